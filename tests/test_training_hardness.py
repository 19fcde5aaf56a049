"""Spiking runs whose hardness or alpha is annealed, and what registration leaves behind."""

# ruff: noqa: F811  (a fixture of another file)

import json

import pytest
import torch
from safetensors.torch import load_file
from test_training import interrupted, metrics, recordings  # noqa: F401

from htaf_snn import hardening, interop, models, register, training
from htaf_snn import nn as hnn
from htaf_snn.compare import stacking, trial
from htaf_snn.compare.trial import Config
from htaf_snn.training import TrainConfig, loop

SMOOTH = "htaf(hardness=0.0)"


@pytest.fixture
def small(recordings):
    return {"dataset": "nmnist", "root": recordings, "hidden": (12,), "n_time_bins": 3, "batch_size": 8, "lr": 0.01}


@pytest.mark.parametrize("library", ["snntorch", "fused"])
@pytest.mark.parametrize("anneal", ["hardness", "alpha"])
def test_an_annealed_run_resumes_exactly_and_ends_hard(small, tmp_path, library, anneal):
    config = TrainConfig(**small, epochs=3, library=library, surrogate=SMOOTH, anneal=anneal)
    whole = training.train(config, tmp_path / "whole", progress=False)
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "parts", progress=False)
    parts = training.train(config, tmp_path / "parts", resume=True, progress=False)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert {**parts, "seconds": 0, "out": ""} == {**whole, "seconds": 0, "out": ""}
    first, second = (load_file(tmp_path / name / training.CHECKPOINT) for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())
    [numbers] = [bytes(value.tolist()) for name, value in first.items() if name.endswith("_extra_state")]
    end = {"hardness": 1.0} if anneal == "hardness" else {"hardness": 0.0, "alpha": 20.0}
    assert json.loads(numbers).items() >= end.items()

    net, loaders = training.load(tmp_path / "parts"), training.make_loaders(config)
    evaluation = hardening.evaluate(net, loaders[0], loaders[2])
    assert (evaluation.hard, evaluation.gap, evaluation.loss) == (whole["test_accuracy"], 0.0, whole["test_loss"])
    assert whole["hardening_gap"] == whole["smooth_test_accuracy"] - whole["test_accuracy"]
    assert whole["hardening_gap"] == 0.0 or anneal == "alpha"
    gaps = [line["val_hardening_gap"] for line in metrics(tmp_path / "whole")]
    assert gaps[-1] == 0.0 or anneal == "alpha"
    assert not interop.snntorch.is_registered()


def test_weights_of_another_surrogate_change_nothing(small, tmp_path):
    training.train(TrainConfig(**small, epochs=1), tmp_path, progress=False)
    model = models.SpikingMLP(2 * 34 * 34, (12,), 10, lambda: models.neuron("snntorch", "atan"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: .*'atan', got .*\"htaf\""):
        training.load_checkpoint(tmp_path / training.CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_leaves_norse_as_it_was(small, tmp_path, monkeypatch, fails):
    module = pytest.importorskip("norse.torch.functional.threshold", reason="norse is not installed")
    own = module.threshold
    if fails:
        monkeypatch.setattr(loop._Training, "_step", lambda *positional, **named: 1 / 0)
    try:
        training.train(TrainConfig(**small, epochs=1, library="norse"), tmp_path, progress=False)
    except ZeroDivisionError:
        assert fails
    assert module.threshold is own


def test_a_training_within_a_registration_leaves_it_in_force(small, tmp_path):
    module = pytest.importorskip("norse.torch.functional.threshold", reason="norse is not installed")
    with register():
        registered = module.threshold
        training.train(TrainConfig(**small, epochs=1, library="norse"), tmp_path, progress=False)
        assert module.threshold is registered


def test_a_loaded_network_of_norse_says_what_to_call(small, tmp_path):
    pytest.importorskip("norse", reason="norse is not installed")
    config = TrainConfig(**small, epochs=1, library="norse")
    result = training.train(config, tmp_path, progress=False)
    net, (_, _, test_loader) = training.load(tmp_path), training.make_loaders(config)
    with pytest.raises(RuntimeError, match=r"Norse does not know 'htaf\(.*\)'; call htaf_snn\.register\(\) first"):
        training.evaluate(net, test_loader)
    with register():
        assert training.evaluate(net, test_loader)["accuracy"] == result["test_accuracy"]


SMALL = {"width": 8, "batch_size": 256, "n_time_bins": 4}


def test_a_study_resets_hard_at_any_hardness():
    """A trial's network equals one of `nn.Leaky` with the surrogate itself, in outputs and gradients."""

    class Recordings:
        sensor_size, classes = (5, 5, 2), ("0", "1", "2")

    config = Config(surrogate=SMOOTH, **SMALL)
    net = trial._network(config, Recordings(), trial.surrogate_of(config))
    torch.manual_seed(config.seed)
    expected = models.SpikingMLP(50, (8, 8), 3, lambda: hnn.Sequential(hnn.Leaky(beta=0.9, surrogate=SMOOTH)))
    frames = torch.rand(9, 4, 2, 5, 5) * 20
    outputs, others = net(frames), expected(frames)
    assert not set(net.neurons[0](frames[:, :, 0]).unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(outputs, others)
    for output, model in ((outputs, net), (others, expected)):
        output.square().sum().backward()
        assert all(parameter.grad.any() for parameter in model.parameters())
    for parameter, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize("anneal", ["hardness", "alpha"])
def test_annealed_seeds_are_stacked_as_they_run_alone(anneal):
    settings = {**SMALL, "epochs": 2, "lr": 0.01, "anneal": anneal, "schedule": "cosine"}
    configs = [Config(surrogate=SMOOTH, seed=seed, **settings) for seed in (0, 1)]
    for stacked, config in zip(stacking.run(configs), configs, strict=True):
        alone = trial.run(config)
        assert stacked.keys() == alone.keys()
        for line, other in zip(stacked["curves"], alone["curves"], strict=True):
            assert line == {name: pytest.approx(value, rel=0.01) for name, value in other.items()}
        assert stacked["smooth_test_accuracy"] == pytest.approx(alone["smooth_test_accuracy"], abs=0.01)


def test_seeds_whose_surrogates_learn_are_not_stacked():
    configs = [Config(surrogate="htaf(learn=('alpha',))", seed=seed, **SMALL) for seed in (0, 1)]
    with pytest.raises(stacking.StackingError, match=r"^surrogate: expected one without parameters that learn"):
        stacking.run(configs)
