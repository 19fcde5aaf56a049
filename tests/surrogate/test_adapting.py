"""Surrogates whose width follows the spread of their layer's potentials."""

import math
from itertools import count

import pytest
import torch
from runs import resumed_run
from studies import one_trial
from torch import nn

from htaf_snn import HTAF, models, profile, training
from htaf_snn import nn as hnn
from htaf_snn.compare import Settings, selection, stacking, trial
from htaf_snn.surrogate import AdaptiveWidth, Rescaled, resolve
from htaf_snn.training import Run, step
from htaf_snn.training.readings import SpikeRates


@pytest.fixture
def small(recordings):
    shared = {"hidden": (12,), "n_time_bins": 3, "batch_size": 8, "lr": 0.01}
    return {"dataset": "nmnist", "data_root": recordings, **shared, "anneal": "width"}


def adapt(net, x):
    with AdaptiveWidth(net).measuring():
        net(x)


@pytest.mark.parametrize(
    ("surrogate", "parameter", "closed_form"),
    [
        ("rectangle", "width", lambda sigma: 2 * sigma),
        ("triangle", "alpha", lambda sigma: 1 / (2 * sigma)),
        ("atan", "alpha", lambda sigma: 2 / (math.pi * sigma)),
        ("gaussian", "sigma", lambda sigma: sigma / math.sqrt(2 * math.log(2))),
        ("htaf(alpha=3, beta=8)", "alpha", None),
        ("htaf(hardness=0.5, normalized=True)", "alpha", None),
        ("swish_sign", "beta", None),
        ("ede(t=0.2)", "t", None),
    ],
)
def test_the_width_is_twice_the_standard_deviation(surrogate, parameter, closed_form):
    net = hnn.BinaryActivation(surrogate)
    for scale in (1.0, 0.01, 300.0):
        x = scale * (torch.randn(50, 40) + 0.7)
        sigma = x.double().std(correction=0).item()
        adapt(net, x)
        assert profile.measure(net.surrogate).width == pytest.approx(2 * sigma, rel=1e-6)
        if closed_form:
            assert getattr(net.surrogate, parameter) == pytest.approx(closed_form(sigma), rel=1e-9)


def leaky_potentials(currents, beta=0.9):
    """The potentials minus the threshold 1 that decide on spikes, after the delayed reset."""
    u, potentials = torch.zeros_like(currents[0]), []
    for current in currents:
        u = beta * u + current - (u > 1).to(u)
        potentials.append(u - 1)
    return torch.stack(potentials)


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_the_potentials_of_neurons_are_those_that_decide_on_spikes(backend):
    net = hnn.Sequential(
        nn.Linear(6, 20), hnn.Leaky(0.9, surrogate="rectangle", backend=backend), nn.Linear(20, 5), hnn.Leaky(0.9)
    )
    x = 2 * torch.rand(7, 4, 6)
    adapt(net, x)
    with torch.no_grad():
        potentials = leaky_potentials(net[0](x))
        assert ((potentials > 0).float() == net[1](net[0](x))[0]).all() and (potentials > 0).any()
        later = leaky_potentials(net[2]((potentials > 0).float()))
    assert net[1].surrogate.width == pytest.approx(2 * potentials.std(correction=0).item(), rel=1e-6)
    assert profile.measure(net[3].surrogate).width == pytest.approx(2 * later.std(correction=0).item(), rel=1e-6)
    assert net[1].backend == backend


def test_the_width_follows_the_weights():
    """Without resets the potentials minus the threshold are linear in the weights, up to a constant."""
    net, x = hnn.Sequential(nn.Linear(6, 20), hnn.Leaky(0.9, reset_mechanism="none")), torch.rand(7, 4, 6)
    adapt(net, x)
    before = net[1].surrogate.alpha
    with torch.no_grad():
        for parameter in net[0].parameters():
            parameter *= 2
    adapt(net, x)
    assert net[1].surrogate.alpha == pytest.approx(before / 2, rel=1e-6)


def test_a_stretch_divides_the_width():
    net, x = hnn.BinaryActivation(Rescaled("rectangle", stretch=4.0, gain=3.0)), torch.randn(100)
    adapt(net, x)
    assert net.surrogate.function.width == pytest.approx(2 * x.std(correction=0).item(), rel=1e-6)
    assert profile.measure(net.surrogate).width == pytest.approx(x.std(correction=0).item() / 2, rel=1e-6)


def test_measuring_leaves_all_else_as_it_was():
    net = models.SpikingMLP(6, [8, 8], 3, lambda: hnn.Leaky(0.9, surrogate="rectangle"), norm="batch").eval()
    net.layers[1].append(nn.Dropout())
    before = {name: value.clone() for name, value in net.state_dict().items() if "_extra_state" not in name}
    x, surrogates = 3 * torch.rand(5, 4, 6), [neuron.surrogate for neuron in net.neurons]
    random = torch.get_rng_state()
    adapt(net, x)
    assert torch.equal(torch.get_rng_state(), random) and not net.training
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert [neuron.surrogate for neuron in net.neurons] == surrogates
    assert all(neuron.surrogate.width != 1 for neuron in net.neurons)


def test_a_layer_without_spread_keeps_its_width():
    net = nn.ModuleList([hnn.BinaryActivation("rectangle(width=3)") for _ in range(2)])
    with AdaptiveWidth(net).measuring():
        net[0](torch.full((1000,), 0.2))  # whose variance is rounded to 7e-18; the other is not used
    assert [layer.surrogate.width for layer in net] == [3, 3]
    with pytest.raises(FloatingPointError, match=r"^potentials: expected finite ones .*, got NaN or infinity"):
        adapt(net[0], torch.tensor([1.0, math.nan]))
    assert net[0].surrogate.width == 3


def test_sums_over_processes():
    net, parts = hnn.BinaryActivation("rectangle"), torch.randn(2, 30)
    with AdaptiveWidth(net).measuring(lambda *own: [2 * number for number in own]):
        net(parts[0])
    assert net.surrogate.width == pytest.approx(2 * parts[0].std(correction=0).item(), rel=1e-6)
    seen = []
    with AdaptiveWidth(net).measuring(lambda *own: seen.append(own) or own):
        net(parts[0])
    with AdaptiveWidth(net).measuring(lambda *own: [a + b for a, b in zip(own, seen[0], strict=True)]):
        net(parts[1])
    assert net.surrogate.width == pytest.approx(2 * parts.std(correction=0).item(), rel=1e-6)


@pytest.mark.parametrize(
    "net",
    [
        nn.Linear(1, 1),
        hnn.BinaryActivation("straight_through"),
        hnn.BinaryActivation("snntorch.atan"),
        hnn.BinaryActivation("htaf(learn=('alpha',))"),
        hnn.BinaryActivation(HTAF(alpha=torch.tensor([1.0, 2.0]))),
        hnn.BinaryLinear(2, 2, surrogate="clipped_ste"),
        models.neuron("snntorch"),
        models.neuron("norse", "norse.super"),
    ],
    ids=count(),
)
def test_networks_without_a_width(net):
    with pytest.raises(ValueError, match=r"^net: expected a layer of this package whose surrogate has a width"):
        AdaptiveWidth(net)


def test_what_is_no_network():
    with pytest.raises(TypeError, match=r"^net: expected a module, got 'htaf'"):
        AdaptiveWidth("htaf")


@pytest.mark.thorough
@pytest.mark.parametrize("model", [{}, {"model": "cnn", "hidden": (4,)}])
def test_an_adapted_run_resumes_exactly(small, tmp_path, model):
    _, numbers = resumed_run(Run(**{**small, **model}, epochs=3), tmp_path)
    assert numbers["alpha"] != 1 and training.read_config(tmp_path / "parts").anneal == "width"
    assert training.load(tmp_path / "parts").neurons[0].surrogate.alpha == numbers["alpha"]


def test_each_step_has_the_width_of_its_own_batch(small, tmp_path, monkeypatch):
    seen, add_gradients = [], step.Trainer.add_gradients

    def checked(trainer, batch):
        width = trainer.model.neurons[0].surrogate.width
        adapt(trainer.model, batch.x)
        seen.append((width, trainer.model.neurons[0].surrogate.width))
        return add_gradients(trainer, batch)

    monkeypatch.setattr(step.Trainer, "add_gradients", checked)
    training.train(Run(**small, surrogate="rectangle", epochs=1), tmp_path, progress=False)
    assert len(seen) > 3 and all(width == again for width, again in seen)
    assert len({width for width, _ in seen}) == len(seen)


def test_spike_rates_are_those_of_the_training():
    net, x = models.SpikingMLP(6, [8], 3, lambda: hnn.Leaky(0.9, threshold=0.1)), torch.rand(5, 4, 6)
    width = AdaptiveWidth(net)
    with SpikeRates(net) as rates:
        with width.measuring():
            net(2 * x)
        net(x)
    assert rates.sizes() == [5 * 4 * 8]
    assert rates.sums() == net.neurons[0](net.layers[0](x.flatten(0, 1)).unflatten(0, (5, 4)))[0].sum() > 0


def test_runs_on_which_it_has_no_effect(small, tmp_path):
    for library in ("snntorch", "norse"):
        with pytest.raises(ValueError, match=f"^anneal: 'width' needs the potentials, .*, got {library!r}"):
            Run(**small, library=library)
    with pytest.raises(ValueError, match=r"^anneal: 'width' has no effect on the model relu"):
        Run(model="relu", anneal="width")
    for surrogate in ("straight_through", "snntorch.atan", "htaf(learn=('alpha',))"):
        with pytest.raises(ValueError, match=r"^anneal: expected 'none' for .*, without a number that sets the width"):
            training.train(Run(**small, surrogate=surrogate), tmp_path / "run", progress=False)
    assert not any(tmp_path.iterdir())
    net = models.SpikingMLP(4, [3], 2, lambda: models.neuron("snntorch"))
    loader = torch.utils.data.DataLoader([(torch.ones(5, 4), 0)])
    with pytest.raises(ValueError, match=r"^net: expected a layer of this package whose surrogate has a width"):
        training.fit(net, loader, recipe=training.Recipe(anneal="width"), out=tmp_path, progress=False)


def test_binary_networks_and_compiled_ones(tmp_path):
    config = Run(model="dhn", hidden=(16, 16), epochs=1, batch_size=256, anneal="width", surrogate="rectangle")
    training.train(config, tmp_path, progress=False)
    assert all(layer.surrogate.width != 1 for layer in training.load(tmp_path).neurons)
    net, graphs = nn.Sequential(nn.Linear(3, 3), hnn.BinaryActivation("rectangle")), []
    width = AdaptiveWidth(net)

    def backend(graph, inputs):
        result = torch._dynamo.lookup_backend("aot_eager")(graph, inputs)  # may abort the analysis, which begins again
        graphs.append(graph)
        return result

    compiled = torch.compile(net, backend=backend)
    for scale in (1.0, 2.0, 4.0):
        x = scale * torch.randn(9, 3)
        with width.measuring():
            net(x)
        gradients = []
        for run in (compiled, net):
            inputs = x.clone().requires_grad_()
            run(inputs).sum().backward()
            gradients.append(inputs.grad)
        torch.testing.assert_close(*gradients)
    assert len(graphs) == 1


TINY = {"width": 8, "batch_size": 256, "n_time_bins": 4, "epochs": 1}


def test_studies(tmp_path):
    settings = Settings.of(
        surrogates=["htaf", "snntorch.atan", "rectangle"], anneal=["none", "width"], slopes=(1.0, 2.0), **TINY
    )
    settings.check()
    assert settings.arms() == [
        ("htaf", "none", 0.0, ""), ("htaf", "width", 0.0, ""), ("snntorch.atan", "none", 0.0, ""),
        ("rectangle", "none", 0.0, ""), ("rectangle", "width", 0.0, ""),
    ]  # fmt: skip
    assert selection.label(("htaf", "width", 0.0, "")) == "htaf, width adapted"
    with pytest.raises(ValueError, match=r"^anneal: expected a surrogate with which 'width' has an effect, got none"):
        Settings.of(surrogates=["straight_through"], anneal=["width"], **TINY)
    with pytest.raises(ValueError, match=r"^match: expected none, peak or area with anneal=width"):
        Settings.of(surrogates=["htaf"], anneal=["width"], match="half_width", **TINY)


def test_trials():
    one = one_trial("rectangle", slope=2.0, anneal="width", **TINY)
    with pytest.raises(stacking.StackingError, match=r"^anneal: expected no width, which follows"):
        stacking.run([one])
    result, again = trial.run(one), trial.run(one)
    assert {**result, "times": 0} == {**again, "times": 0} and result["hardening_gap"] == 0
    assert result["curves"] != trial.run(one_trial("rectangle", slope=2.0, **TINY))["curves"]
    assert resolve("rectangle").width == 1
