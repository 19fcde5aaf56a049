"""Training of binary, Heaviside and ReLU networks on images, and its recipe."""

import json
import math

import pytest
import torch
from commands import run
from runs import interrupted, metrics, torchrun
from safetensors.torch import load_file
from torch import nn

from htaf_snn import deploy, hardening, models, training
from htaf_snn import nn as hnn
from htaf_snn.training import Run, recipe

SMOOTH = "htaf(normalized=True, hardness=0.0)"
SMALL = {"hidden": (16,), "batch_size": 256, "epochs": 2, "lr": 0.01}


def options(settings):
    shown = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in settings.items()}
    return [part for name, value in shown.items() for part in (f"--{name.replace('_', '-')}", value)]


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "relu"},
        {"model": "bnn", "surrogate": "clipped_ste", "weight_surrogate": "magnitude_aware"},
        {"model": "bnn", "surrogate": SMOOTH, "schedule": "cosine", "anneal": "alpha"},
        {"model": "dhn", "surrogate": "snntorch.atan", "precision": "bf16"},
        {"model": "dhn", "surrogate": SMOOTH, "val_fraction": 0.0},
        {"model": "dhn", "surrogate": SMOOTH, "anneal": "hardness"},
        {"model": "dhn", "anneal": "hardness", "norm": "none", "train_fraction": 0.5},
        {"model": "dhn", "surrogate": "htaf(learn=('alpha', 'beta'))", "schedule": "cosine"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_training_is_resumed_exactly_and_loaded(tmp_path, settings):
    config = Run(**SMALL, **settings)
    assert config.dataset == "digits"
    whole = training.train(config, tmp_path / "whole", progress=False)

    with interrupted(1), pytest.raises(KeyboardInterrupt):
        training.train(config, tmp_path / "parts", progress=False)
    parts = training.train(config, tmp_path / "parts", resume=True, progress=False)
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    unlike = ("seconds", "out")
    assert {k: v for k, v in parts.items() if k not in unlike} == {k: v for k, v in whole.items() if k not in unlike}

    net, (train_loader, _, test_loader) = training.load(tmp_path / "parts"), training.make_loaders(config)
    states = [load_file(tmp_path / name / training.CHECKPOINT) for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert training.evaluate(net, test_loader)["accuracy"] == whole["test_accuracy"]
    assert hardening.is_hard(net)
    assert hardening.evaluate(net, train_loader, test_loader).gap == 0.0
    assert whole["hardening_gap"] == whole["smooth_test_accuracy"] - whole["test_accuracy"]
    assert ("val_hardening_gap" in metrics(tmp_path / "parts")[0]) == bool(config.val_fraction)
    if settings.get("surrogate") == SMOOTH:
        is_hardened = config.anneal == "hardness"
        for surrogate in hardening.surrogates(net).values():
            assert surrogate.alpha == (config.alpha_end if config.anneal == "alpha" else 1.0)
            surrogate.hardness = 1.0 if is_hardened else 0.0
        train_loader.sampler.set_epoch(1)
        again = hardening.evaluate(net, train_loader, test_loader)
        assert (again.hard, again.smooth) == (whole["test_accuracy"], whole["smooth_test_accuracy"])
        assert (whole["hardening_gap"] == 0.0) or not is_hardened
    else:
        assert whole["hardening_gap"] == 0.0


def test_a_trained_network_can_be_packed(tmp_path):
    config = Run(model="bnn", **SMALL)
    training.train(config, tmp_path / "run", progress=False)
    net, (_, _, test_loader) = training.load(tmp_path / "run"), training.make_loaders(config)
    packed = deploy.pack(net)
    for images, _ in test_loader:
        assert torch.equal(packed(images).argmax(1), net(images).argmax(1))


def test_the_command_takes_the_offline_images(tmp_path):
    result = run("train", *options(SMALL | {"model": "dhn"}), "--json", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert 0 <= json.loads(result.stdout)["test_accuracy"] <= 1
    assert training.read_config(tmp_path / "run").dataset == "digits"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dataset": "imagenet"}, "--dataset: expected one of"),
        (
            {"dataset": "nmnist"},
            "dataset: expected images for the model bnn, got nmnist, a set of recordings; models",
        ),
        (
            {"model": "mlp", "dataset": "digits"},
            "dataset: expected recordings for the model mlp, got digits, a set of images; models",
        ),
        ({"folds": 3}, "folds: expected None for a model of images, got 3"),
        ({"weight_surrogate": "magic"}, "unknown surrogate 'magic'"),
        ({"library": "snntorch"}, "library: 'snntorch' has no effect on the model bnn, only on mlp, cnn"),
        ({"n_time_bins": 5}, "n-time-bins: 5 has no effect on the model bnn"),
        (
            {"model": "dhn", "weight_surrogate": "ede"},
            "weight-surrogate: 'ede' has no effect on the model dhn, only on bnn",
        ),
        ({"model": "relu", "surrogate": "atan"}, "surrogate: 'atan' has no effect on the model relu"),
        ({"model": "relu-resnet20", "hidden": (8,)}, "hidden: (8,) has no effect on the model relu-resnet20"),
        ({"model": "relu-cnn", "anneal": "hardness"}, "anneal: 'hardness' has no effect on the model relu-cnn"),
        ({"alpha_end": 9}, "alpha-end: 9.0 has no effect with anneal='none', only with alpha"),
        (
            {"anneal": "hardness", "alpha_end": 9},
            "alpha-end: 9.0 has no effect with anneal='hardness', only with alpha",
        ),
        ({"surrogate": "snntorch.atan", "anneal": "hardness"}, "without a hardness below 1, got 'hardness'"),
        ({"surrogate": "sigmoid", "anneal": "alpha"}, "without an alpha that is a number, got 'alpha'"),
        ({"norm": "layer"}, 'Invalid value "layer" for --norm. Choose from: "auto", "batch", "none"'),
        ({"norm": "none"}, "norm: 'none' has no effect on the model bnn, only on mlp, dhn, relu"),
        ({"identity": 1}, "identity: 1.0 has no effect on the model bnn, only on mlp, dhn, relu"),
        (
            {"model": "dhn", "hidden": (4, 8), "identity": 1},
            "identity: 1.0 has no effect without two hidden layers of the",
        ),
        ({"model": "dhn", "identity": -1}, "identity: expected a number in [0, 1e6], got -1.0"),
        ({"train_fraction": 0}, "train-fraction: expected a number in (0, 1]"),
        ({"surrogate": "magic"}, "magic"),
        ({"schedule": "linear"}, '"linear" for --schedule. Choose from: "constant", "cosine"'),
        ({"anneal": "linear"}, '"linear" for --anneal. Choose from: "none", "hardness", "alpha"'),
        ({"precision": "float16"}, "--precision"),
        ({"alpha_end": 0}, "alpha-end: expected a number in"),
        ({"batch_size": 1}, "batch-size: BatchNorm expects two samples"),
    ],
    ids=lambda wrong: str(wrong),
)
def test_bad_input_is_one_line(tmp_path, wrong, words):
    result = run("train", *options(SMALL | {"model": "bnn"} | wrong), "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_last_batch_of_one_is_left_out(tmp_path):
    """1293 images in batches of 76 leave one, too few for BatchNorm."""
    result = training.train(Run(model="relu", hidden=(4,), batch_size=76, epochs=1), tmp_path, progress=False)
    assert result["epochs"] == 1


def test_annealing_ends_where_it_should_without_the_last_batch(tmp_path):
    """Loading a run gives the network that its figures describe."""
    config = Run(model="dhn", surrogate=SMOOTH, anneal="alpha", hidden=(4,), batch_size=76, epochs=2)
    alphas, at = [], hardening.Anneal.at

    def noted(self, number):
        at(self, number)
        alphas.append(next(iter(self._surrogates.values())).alpha)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hardening.Anneal, "at", noted)
        training.train(config, tmp_path, progress=False)
    assert alphas[-1] == 20.0


@pytest.mark.thorough
def test_a_compiled_network_learns_as_well(tmp_path):
    results = [
        training.train(Run(model="dhn", compiled=compiled, **SMALL), tmp_path / str(compiled), progress=False)
        for compiled in (False, True)
    ]
    assert results[1]["test_loss"] == pytest.approx(results[0]["test_loss"], rel=0.05)


class Step(nn.Module):
    def __init__(self):
        super().__init__()
        self.activation = hnn.BinaryActivation("htaf(alpha=2, normalized=True, hardness=0.0)")
        self.linear = hnn.BinaryLinear(2, 2)


def test_the_recipe_step_by_step():
    settings = {"epochs": 3, "lr": 0.5, "schedule": "cosine", "anneal": "alpha", "alpha_end": 32.0}
    config, model = Run(model="dhn", **settings), Step()
    optimizer = torch.optim.Adam(model.parameters())
    prepare = recipe.before_step(config, model, 10)
    rates, alphas = [], []
    for number in range(30):
        model.linear.weight.data.fill_(3.0)
        prepare(number, optimizer)
        assert model.linear.weight.max() == 1
        rates.append(optimizer.param_groups[0]["lr"])
        alphas.append(model.activation.surrogate.alpha)
    assert alphas == sorted(alphas)
    assert alphas[0] >= 2 and alphas[-1] == pytest.approx(32)
    assert alphas[14] == pytest.approx(8.0)
    assert rates[0] == pytest.approx(0.5 / 4)  # the first of four steps of the rise
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    assert rates.index(max(rates)) in (2, 3)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * (29 / 30 - 0.1) / 0.9)))


def test_the_hardness_is_annealed_to_1_step_by_step():
    config, model = Run(model="dhn", epochs=2, anneal="hardness"), Step()
    model.activation.surrogate.hardness = 0.5
    prepare = recipe.before_step(config, model, 5)
    hardnesses = []
    for number in range(12):
        prepare(number, torch.optim.Adam(model.parameters()))
        hardnesses.append(model.activation.surrogate.hardness)
    assert hardnesses == pytest.approx([0.5 + 0.05 * number for number in range(1, 11)] + [1.0, 1.0])
    assert hardnesses[9] == 1.0 and model.activation.surrogate.alpha == 2.0
    assert model.linear.surrogate.hardness == 1.0


def test_the_hard_network_has_statistics_of_its_own():
    """After a smooth activation, evaluated hard, BatchNorm must know the mean of the steps."""
    torch.manual_seed(0)
    activation = hnn.BinaryActivation("htaf(alpha=0.1, normalized=True, hardness=0.0)", levels=(0, 1))
    model = nn.Sequential(activation, nn.BatchNorm1d(3), nn.Linear(3, 2))
    data = [(torch.randn(64, 3) + 1, torch.zeros(64, dtype=torch.int64)) for _ in range(4)]
    result = hardening.evaluate(model, data, data, keep_hard_statistics=True)
    assert result.gap == result.smooth - result.hard
    mean = torch.cat([x for x, _ in data]).gt(0).float().mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    assert activation.surrogate.hardness == 0.0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model", "twin", "settings"),
    [
        ("dhn", "relu", {"hidden": (5, 5)}),
        ("dhn-cnn", "relu-cnn", {"hidden": (4, 6, 6)}),
        ("binary-resnet20", "relu-resnet20", {"width": 2}),
    ],
)
def test_a_twin_has_the_same_layers_and_learns_by_command(model, twin, settings, tmp_path):
    nets = [training.make_model(Run(model=name, **settings), (1, 8, 8), 10) for name in (model, twin)]
    kinds = (nn.Linear, nn.Conv2d, hnn.BinaryConv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    shapes = [[m.weight.shape for m in net.modules() if isinstance(m, kinds)] for net in nets]
    assert shapes[0] == shapes[1]
    x, outputs = torch.rand(2, 1, 8, 8), [[], []]
    for net, own in zip(nets, outputs, strict=True):
        for module in net.modules():
            if isinstance(module, kinds):
                module.register_forward_hook(lambda module, args, out, own=own: own.append(out.shape))
        net(x)
    assert outputs[0] == outputs[1] and outputs[0][-1] == (2, 10)
    small = {"epochs": 1, "batch_size": 256, "train_fraction": 0.3, **settings}
    for name in (model, twin):
        result = run("train", *options(small | {"model": name}), "--json", "--out", tmp_path / name)
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["epochs"] == 1
        assert training.read_config(tmp_path / name).dataset == "digits"
        assert hardening.is_hard(training.load(tmp_path / name))


def test_a_study_refuses_convolutional_networks_of_images():
    result = run("compare", "--model", "dhn-cnn")
    assert result.exit_code and '"dhn-cnn" for --model' in result.stderr


def test_layers_and_activations_are_listed():
    for net in (models.BinaryMLP(4, [3, 3], 2), models.DeepHeavisideNet(4, [3, 3], 2), models.ReLUNet(4, [3, 3], 2)):
        assert [layer.weight.shape for layer in net.layers] == [(3, 4), (3, 3)]
        assert len(net.neurons) == 2
        assert all(isinstance(neuron, (hnn.BinaryActivation, nn.ReLU)) for neuron in net.neurons)


def test_networks_without_batchnorm_have_biases():
    nets = [models.DeepHeavisideNet(4, [3, 3], 2, norm="none"), models.ReLUNet(4, [3, 3], 2, norm="none")]
    nets.append(models.DeepHeavisideNet((1, 8, 8), [2, 4], 2, norm="none"))
    for net in nets:
        assert not any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in net.modules())
        assert len(net.layers) == len(net.neurons) == 2
        assert all(layer.bias is not None for layer in net.layers)
    assert nets[2](torch.rand(2, 1, 8, 8)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"^norm: expected one of batch, none, got 'layer'"):
        models.ReLUNet(4, [3], 2, norm="layer")


def test_weights_start_with_the_identity_where_the_width_stays():
    def weights(**options):
        torch.manual_seed(0)
        nets = [models.DeepHeavisideNet(3, [3, 3, 4], 2, **options)]
        nets += [models.DeepHeavisideNet((2, 8, 8), [2, 2, 4], 2, **options)]
        nets += [models.SpikingMLP(3, [3, 3, 4], 2, nn.Identity, **options)]
        return [[layer.get_parameter("1.weight" if i and not j else "weight").detach() for j, layer in enumerate(
            net.layers)] for i, net in zip((0, 0, 1), nets, strict=True)]  # fmt: skip

    for (first, second, third), plain in zip(weights(identity=2.0), weights(), strict=True):
        assert torch.equal(first, plain[0]) and torch.equal(third, plain[2])
        difference = second - plain[1]
        if difference.ndim == 4:
            assert difference[..., [0, 0, 1, 2], [0, 1, 0, 2]].abs().max() == 0
            difference = difference[:, :, 1, 1]
        torch.testing.assert_close(difference, 2 * torch.eye(len(second)))
    with pytest.raises(TypeError, match=r"^identity: expected a number, got 'a'"):
        models.SpikingMLP(3, [3], 2, nn.Identity, identity="a")
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^identity: expected a finite number >= 0, got"):
            models.DeepHeavisideNet(3, [3], 2, identity=wrong)


def test_a_spiking_network_with_batchnorm_normalises_over_samples_and_time():
    net = models.SpikingMLP(6, [5, 4], 2, nn.Identity, norm="batch")
    frames, currents = torch.randn(7, 3, 6), []
    net.neurons[0].register_forward_hook(lambda module, inputs, output: currents.append(output[0]))
    assert net(frames).shape == (3, 2)
    assert currents[0].mean((0, 1)).abs().max() < 1e-5
    torch.testing.assert_close(currents[0].var((0, 1), correction=0), torch.ones(5), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=r"^lengths: expected none for a network with BatchNorm"):
        net(frames, torch.tensor([7, 3, 2]))


@pytest.mark.thorough
def test_several_processes_train_a_network_with_batchnorm(tmp_path):
    pytest.importorskip("lightning_fabric", reason="lightning-fabric is not installed")
    run = torchrun("train", *options(SMALL | {"model": "dhn", "epochs": 4}), "--out", tmp_path / "both", "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["processes"] == 2
    config = training.read_config(tmp_path / "both")
    net, (_, _, test_loader) = training.load(tmp_path / "both"), training.make_loaders(config)
    assert training.evaluate(net, test_loader)["accuracy"] == json.loads(run.stdout)["test_accuracy"] > 0.5
