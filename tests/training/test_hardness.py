"""Spiking runs whose hardness or alpha is annealed, and what registration leaves behind."""

from dataclasses import replace

import pytest
import torch
from runs import metrics, resumed_run
from studies import one_trial

from htaf_snn import hardening, interop, models, register, training
from htaf_snn import nn as hnn
from htaf_snn.compare import Study, stacking, trial
from htaf_snn.functional import events
from htaf_snn.training import Run, loop, recipe

SMOOTH = "htaf(hardness=0.0)"


@pytest.fixture
def small(recordings):
    return {
        "dataset": "nmnist",
        "data_root": recordings,
        "hidden": (12,),
        "n_time_bins": 3,
        "batch_size": 8,
        "lr": 0.01,
    }


def annealed(*specifications, **settings):
    """The surrogates of a network trained for two steps, before, between and after them: hardnesses and alphas."""
    net = torch.nn.Sequential(*[hnn.BinaryActivation(specification) for specification in specifications])
    config = Run(model="dhn", epochs=2, **settings)
    recipe.check_annealing(config, net)
    prepare, optimizer = training.before_step(config, net, steps=1), torch.optim.SGD([torch.zeros(1)])
    values = []
    for number in range(3):
        values.append([(layer.surrogate.hardness, layer.surrogate.values().get("alpha")) for layer in net])
        prepare(number, optimizer)
    return values


def test_each_surrogate_is_annealed_from_its_own_value_and_hard_ones_stay():
    surrogates = ["htaf(hardness=0.0)", "htaf", "htaf(alpha=4, hardness=0.5)", "sigmoid(hardness=0.5)"]
    first, second, last = annealed(*surrogates, anneal="hardness")
    assert first == [(0.0, 1.0), (1.0, 1.0), (0.5, 4.0), (0.5, None)]
    assert second == [(0.5, 1.0), (1.0, 1.0), (0.75, 4.0), (0.75, None)]
    assert {hardness for hardness, _ in last} == {1.0}
    first, second, last = annealed(*surrogates, anneal="alpha", alpha_end=16.0)
    assert first == [(0.0, 1.0), (1.0, 1.0), (0.5, 4.0), (0.5, None)]
    assert second == [(0.0, 4.0), (1.0, 1.0), (0.5, 8.0), (0.5, None)]
    assert last == [(0.0, 16.0), (1.0, 1.0), (0.5, 16.0), (0.5, None)]


def test_a_hard_network_is_annealed_from_smooth():
    """Its surrogates without a smooth step stay as they are."""
    surrogates = ["htaf", "sigmoid", "snntorch.atan"]
    assert annealed(*surrogates) == [[(1.0, 1.0), (1.0, None), (1.0, None)]] * 3
    values = annealed(*surrogates, anneal="hardness")
    assert [[hardness for hardness, _ in line] for line in values] == [[0.0, 0.0, 1.0], [0.5, 0.5, 1.0], [1.0] * 3]
    values = annealed(*surrogates, anneal="alpha", alpha_end=4.0)
    assert values[0] == [(0.0, 1.0), (0.0, None), (1.0, None)]
    assert values[2] == [(0.0, 4.0), (0.0, None), (1.0, None)]


@pytest.mark.parametrize(
    "surrogate", ["sigmoid(hardness=0.0)", "htaf(learn=('alpha',), hardness=0.5)"], ids=["none", "learned"]
)
def test_what_cannot_be_annealed_as_asked(small, tmp_path, surrogate):
    message = r"^anneal: expected 'none' for (Sigmoid|HTAF)\(.*, without an alpha that is a number, got 'alpha'"
    with pytest.raises(ValueError, match=message):
        annealed(surrogate, anneal="alpha")
    with pytest.raises(ValueError, match=r"^anneal: expected 'none' where all that has alpha is hard, got 'alpha'"):
        annealed(surrogate, "htaf", anneal="alpha")
    config = Run(**small, surrogate=surrogate, anneal="alpha")
    with pytest.raises(ValueError, match=message):
        training.train(config, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match=r"^anneal: expected a surrogate with which 'alpha' has an effect, got none"):
        Study(tmp_path / "study", surrogates=[surrogate], anneal="alpha")
    with pytest.raises(ValueError, match=r"^anneal: expected 'none' for neurons that hold no surrogate of this"):
        training.train(replace(config, library="norse", neuron=None, surrogate="norse.super"), tmp_path / "run")
    assert not any(tmp_path.glob("run*")) and not any(tmp_path.glob("study*"))
    assert annealed(surrogate, anneal="hardness")[-1][0][0] == 1.0
    assert annealed(surrogate, anneal="none")[-1] == annealed(surrogate, anneal="none")[0]


@pytest.mark.thorough
@pytest.mark.parametrize("library", ["snntorch", "fused"])
@pytest.mark.parametrize("anneal", ["hardness", "alpha"])
def test_an_annealed_run_resumes_exactly_and_ends_hard(small, tmp_path, library, anneal):
    config = Run(**small, epochs=3, library=library, surrogate=SMOOTH, anneal=anneal)
    whole, numbers = resumed_run(config, tmp_path)
    end = {"hardness": 1.0} if anneal == "hardness" else {"hardness": 0.0, "alpha": 20.0}
    assert numbers.items() >= end.items()

    net, loaders = training.load(tmp_path / "parts"), training.make_loaders(config)
    evaluation = hardening.evaluate(net, loaders[0], loaders[2])
    assert (evaluation.hard, evaluation.gap, evaluation.loss) == (whole["test_accuracy"], 0.0, whole["test_loss"])
    assert whole["hardening_gap"] == whole["smooth_test_accuracy"] - whole["test_accuracy"]
    assert whole["hardening_gap"] == 0.0 or anneal == "alpha"
    gaps = [line["val_hardening_gap"] for line in metrics(tmp_path / "whole")]
    assert gaps[-1] == 0.0 or anneal == "alpha"
    assert not interop.snntorch.is_registered()


def test_weights_of_another_surrogate_change_nothing(small, tmp_path):
    training.train(Run(**small, epochs=1), tmp_path, progress=False)
    model = models.SpikingMLP(2 * 34 * 34, (12,), 10, lambda: models.neuron("snntorch", "atan"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: expected"):
        training.load_checkpoint(tmp_path / training.CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_leaves_norse_as_it_was(small, tmp_path, monkeypatch, fails):
    module = pytest.importorskip("norse.torch.functional.threshold", reason="norse is not installed")
    own = module.threshold
    if fails:
        monkeypatch.setattr(loop, "train_epoch", lambda *positional, **named: 1 / 0)
    try:
        training.train(Run(**small, epochs=1, library="norse"), tmp_path, progress=False)
    except ZeroDivisionError:
        assert fails
    assert module.threshold is own


def test_a_training_within_a_registration_leaves_it_in_force(small, tmp_path):
    module = pytest.importorskip("norse.torch.functional.threshold", reason="norse is not installed")
    with register():
        registered = module.threshold
        training.train(Run(**small, epochs=1, library="norse"), tmp_path, progress=False)
        assert module.threshold is registered


def test_a_loaded_network_of_norse_says_what_to_call(small, tmp_path):
    pytest.importorskip("norse", reason="norse is not installed")
    config = Run(**small, epochs=1, library="norse")
    result = training.train(config, tmp_path, progress=False)
    net, (_, _, test_loader) = training.load(tmp_path), training.make_loaders(config)
    with pytest.raises(RuntimeError, match=r"Norse does not know 'htaf\(.*\)'; call htaf_snn\.register\(\) first"):
        training.evaluate(net, test_loader)
    with register():
        assert training.evaluate(net, test_loader)["accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        ("fused", "^neuron: expected a function that makes a spiking layer, .*, got 'fused'"),
        (hnn.Leaky(0.9), "^neuron: expected a function that makes a spiking layer, .*, got Leaky"),
        (list, r"^neuron: expected a function that makes a module, got one that makes \[\]"),
    ],
)
def test_neurons_that_a_network_cannot_use(neuron, message):
    with pytest.raises(TypeError, match=message):
        models.SpikingMLP(4, [3], 2, neuron)(torch.ones(5, 2, 4))
    with pytest.raises(TypeError, match=message):
        models.SpikingCNN((1, 2, 2), [3], 2, neuron)(torch.ones(5, 2, 1, 2, 2))


SMALL = {"width": 8, "batch_size": 256, "n_time_bins": 4}


def test_a_study_resets_hard_at_any_hardness():
    """A trial's network equals one of `nn.Leaky` with the surrogate itself, in outputs and gradients."""

    class Recordings:
        sensor_size, classes = (5, 5, 2), ("0", "1", "2")

    config = one_trial(SMOOTH, **SMALL)
    net = trial.network(config, Recordings())
    torch.manual_seed(config.run.seed)
    expected = models.SpikingMLP(50, (8, 8), 3, lambda: hnn.Sequential(hnn.Leaky(beta=0.9, surrogate=SMOOTH)))
    frames = torch.rand(9, 4, 2, 5, 5) * 20
    outputs, others = net(frames), expected(frames)
    assert not set(net.neurons[0](frames[:, :, 0])[0].unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(outputs, others)
    for output, model in ((outputs, net), (others, expected)):
        output.square().sum().backward()
        assert all(parameter.grad.any() for parameter in model.parameters())
    for parameter, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.thorough
@pytest.mark.parametrize("anneal", ["hardness", "alpha"])
def test_annealed_seeds_are_stacked_as_they_run_alone(anneal, monkeypatch):
    """Within rounding: a spike moved by rounding may change the class of a few recordings."""
    # The first layer adds in the same order in both, as stacked networks take the dense product.
    monkeypatch.setattr(events, "_FEW", 1 << 60)
    finish, nets = trial.finish, []
    monkeypatch.setattr(
        trial, "finish", lambda prepared, *others: (nets.append(prepared.model), finish(prepared, *others))[1]
    )
    # Wide, as rounding decides more spikes of a steep activation.
    wide = {"slope": 0.25, "alpha_end": 5.0} if anneal == "alpha" else {"slope": 0.25}
    settings = {**SMALL, "epochs": 2, "lr": 0.01, "anneal": anneal, "schedule": "cosine", **wide}
    configs = [one_trial(SMOOTH, seed=seed, **settings) for seed in (0, 1)]
    together, alone = stacking.run(configs), [trial.run(config) for config in configs]
    for net, other in zip(nets[:2], nets[2:], strict=True):
        for weights, others in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(weights, others, rtol=0, atol=settings["lr"])  # less than a step of Adam
    for result, other in zip(together, alone, strict=True):
        assert result.keys() == other.keys()
        for line, expected in zip((*result["curves"], result), (*other["curves"], other), strict=True):
            assert line.keys() == expected.keys()
            for name in line.keys() & {"train_loss", "val_loss", "test_loss"}:
                assert line[name] == pytest.approx(expected[name], rel=1e-3)
            assert line["spike_rate"] == pytest.approx(expected["spike_rate"], rel=0.02)
            for name in [name for name in line if name.endswith("accuracy")]:  # of 144 recordings or more
                assert line[name] == pytest.approx(expected[name], abs=3 / 144)


def test_seeds_whose_surrogates_learn_are_not_stacked():
    configs = [one_trial("htaf(learn=('alpha',))", seed=seed, **SMALL) for seed in (0, 1)]
    with pytest.raises(
        stacking.StackingError, match=r"^surrogate, neuron: expected them without parameters that learn"
    ):
        stacking.run(configs)
    configs = [one_trial(norm="batch", seed=seed, **SMALL) for seed in (0, 1)]
    with pytest.raises(stacking.StackingError, match=r"^norm: expected none, as BatchNorm's statistics are not"):
        stacking.run(configs)


def test_alpha_is_not_annealed_backwards():
    config = training.Run(model="bnn", surrogate="htaf(alpha=30)", anneal="alpha")
    with pytest.raises(ValueError, match=r"alpha_end: expected at least 30\.0, the surrogate's own, got 20\.0"):
        training.before_step(config, hnn.BinaryActivation(config.surrogate), steps=2)
