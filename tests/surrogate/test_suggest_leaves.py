"""What `surrogate.suggest` leaves as it was, refuses and shows."""

import json
import math

import pytest
import snntorch as snn
import torch
from measured_networks import CLASSES, Stepped, batch, deep, frames, one_layer
from torch import nn

from htaf_snn import HTAF, hardening, models, surrogate
from htaf_snn import nn as hnn
from htaf_snn.surrogate import resolve, suggest
from htaf_snn.surrogate.steepness import Steepness


def state_of(net):
    attributes = [{key: value for key, value in vars(module).items() if key[0] != "_"} for module in net.modules()]
    return {
        "attributes": attributes,
        "buffers": {name: value.clone() for name, value in net.named_buffers()},
        "modes": [module.training for module in net.modules()],
        "modules": list(net.modules()),
        "hardnesses": {name: one.hardness for name, one in hardening.surrogates(net).items()},
        "gradients": [parameter.grad for parameter in net.parameters()],
        "random": torch.get_rng_state(),
    }


def assert_unchanged(before, after):
    for name in before["buffers"]:
        assert torch.equal(before["buffers"][name], after["buffers"][name]), name
    assert torch.equal(before["random"], after["random"])
    for name in ("modes", "modules", "hardnesses"):
        assert before[name] == after[name], name
    assert all(one is other for one, other in zip(before["gradients"], after["gradients"], strict=True))
    for one, other in zip(before["attributes"], after["attributes"], strict=True):
        assert one.keys() == other.keys() and all(one[key] is other[key] for key in one)


def test_nothing_changes():
    net = nn.Sequential(deep(2, "htaf(hardness=0.5)"), nn.Dropout())
    net[0][2].eval()
    nn.functional.cross_entropy(net(batch()[0]), batch()[1]).backward()
    net.eval()
    x, labels = batch()
    before = state_of(net)
    with torch.no_grad():
        assert suggest(net, (x, labels)).layers[0].name == "0.3"
    assert_unchanged(before, state_of(net))
    with pytest.raises(ValueError, match="labels: expected 0 to 4, got"):
        suggest(net, (x, labels + 1))
    assert_unchanged(before, state_of(net))


def test_states_of_neurons_are_kept():
    net = Stepped(lambda: snn.Leaky(0.9, spike_grad=HTAF(), init_hidden=True), hidden=True)
    data = frames()
    net(data[0])
    membrane = net.neurons[0].mem
    value = membrane.clone()
    suggest(net, data)
    assert net.neurons[0].mem is membrane and torch.equal(membrane, value)


def test_training_mode_and_frozen_parameters():
    net = deep(2).requires_grad_(False)
    x, labels = batch()
    trained = suggest(net, (3 * x + 1, labels))
    assert [layer.std for layer in trained.layers] == pytest.approx([1, 1], abs=1e-2)  # by the batch's statistics
    assert suggest(net.eval(), (3 * x + 1, labels)) == trained


def test_compiled_networks():
    compiled, (x, labels), net = [], batch(), deep(2)

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    expected = suggest(net, (x, labels))
    assert suggest(torch.compile(net, backend=backend), (x, labels)).stretch == expected.stretch
    assert not compiled


def test_lengths():
    net = models.SpikingMLP(20, [16], CLASSES, neuron=lambda: hnn.Sequential(hnn.Leaky(0.9)))
    x, labels = frames()
    assert suggest(net, (3 * x, labels, torch.full((64,), 5))).layers[0].name == "neurons.0.module.0"
    with pytest.raises(ValueError, match="lengths"):
        suggest(net, (x, labels, torch.full((64,), 9)))


def test_an_activation_used_twice_is_one_layer():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(20, 30), nn.Linear(30, 25), nn.Linear(25, CLASSES)
            self.act = hnn.BinaryActivation()

        def forward(self, x):
            return self.three(self.act(self.two(self.act(self.one(x)))))

    assert [layer.name for layer in suggest(Twice(), batch()).layers] == ["act"]


def far_away(bias):
    net = nn.Sequential(nn.Linear(20, 8), hnn.BinaryActivation("triangle"), nn.Linear(8, CLASSES))
    nn.init.constant_(net[0].bias, bias)
    return net


def test_potentials_out_of_reach_are_named():
    suggestion = suggest(far_away(-100.0), batch())
    assert suggestion.verdict == "vanishes" and suggestion.present.gradients == (0.0,)
    assert suggestion.layers[0].is_silent and "no spike changes, in 1:" in str(suggestion)
    assert suggestion.layers[0].within == 0 and suggestion.suggested.gradients[0] > 0
    json.dumps(suggestion.as_dict(), allow_nan=False)


def detached():
    class Detach(nn.Module):
        def forward(self, x):
            return x.detach()

    return nn.Sequential(one_layer("htaf")[0], Detach(), nn.Linear(20, CLASSES))


def broken():
    net = one_layer("htaf")
    nn.init.constant_(net[1].bias, math.nan)
    return net


BAD = {
    "no module": (lambda: "net", batch, TypeError, "net: expected a module, got 'net'"),
    "no surrogate": (
        lambda: nn.Linear(20, CLASSES),
        batch,
        ValueError,
        r"none; for Norse's neurons write htaf_snn.fuse",
    ),
    "no batch": (lambda: deep(1), lambda: batch()[0], TypeError, "batch: expected .*got Tensor"),
    "four": (lambda: deep(1), lambda: batch() * 2, TypeError, "batch: expected .*got 4 items"),
    "lists": (lambda: deep(1), lambda: (batch()[0], [1, 2]), TypeError, "labels: expected a tensor, got list"),
    "one-hot": (lambda: deep(1), lambda: (batch()[0], torch.eye(64)), ValueError, r"labels: .*\(64, 64\)"),
    "floats": (lambda: deep(1), lambda: (batch()[0], torch.ones(64)), ValueError, "labels: .*float32"),
    "one sample": (lambda: far_away(0.0), lambda: batch(1), ValueError, "labels: .*two samples"),
    "scores": (lambda: nn.Sequential(hnn.BinaryActivation(), nn.Flatten(0)), batch, ValueError, r"net: .*\(64, n_"),
    "tuple": (lambda: hnn.Leaky(0.9), lambda: frames(), TypeError, "net: expected class scores .*got tuple"),
    "labels": (
        lambda: deep(1),
        lambda: (batch()[0], batch()[1] + 3),
        ValueError,
        "labels: expected 0 to 4, got 3 to 7",
    ),
    "NaN": (lambda: deep(2), lambda: (batch()[0] * math.nan, batch()[1]), ValueError, "finite potentials.*layer '3'"),
    "NaN scores": (broken, batch, ValueError, "net: expected finite class scores"),
    "constant": (lambda: deep(2), lambda: (batch()[0] * 0, batch()[1]), ValueError, "same for all in layer '3'"),
    "detached": (detached, batch, ValueError, "none that a gradient reaches"),
    "no gradient": (lambda: deep(1, "norse.heaviside"), batch, ValueError, "with a gradient, got .*heaviside"),
    "overflow": (lambda: deep(1, "snntorch.sigmoid(slope=99)"), batch, ValueError, "finite gradient.* in layer '3'"),
    "nothing": (lambda: deep(2, "snntorch.SFS"), batch, ValueError, "at some width, got .*SFS"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors(case):
    net, data, error, match = BAD[case]
    net = net()
    before = state_of(net) if isinstance(net, nn.Module) else None
    with pytest.raises(error, match=match):
        suggest(net, data())
    if before:
        assert state_of(net)["modules"] == before["modules"]


@pytest.mark.thorough
def test_table_json_and_plot(tmp_path):
    suggestion = suggest(deep(4), batch())
    lines = str(suggestion).splitlines()
    assert lines[0].startswith("Present:   htaf(alpha=1.0, beta=4.0). The gradient passes")
    start, kept = lines[2].split("; with the height that it has now, ")
    assert start == f"To use it, write {suggestion.surrogate!r}"
    assert resolve(kept.strip('".')).gain == pytest.approx(1 / suggestion.stretch, rel=0.01)
    assert [line.split()[0] for line in lines[4:]] == ["layer", "3", "6", "9", "12"]
    values = json.loads(json.dumps(suggestion.as_dict(), allow_nan=False))
    assert values["verdict"] == "passes" and len(values["widths"]) == 5 and len(values["layers"]) == 4
    stretches = [width.stretch for width in suggestion.widths]
    assert stretches == sorted(stretches, reverse=True) and {1.0, suggestion.stretch} <= set(stretches)
    for name, start in {"a.png": b"\x89PNG", "a.svg": b"<?xml", "a.pdf": b"%PDF"}.items():
        suggestion.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"plot: expected a \.png, \.svg, \.pdf file in an existing folder"):
        suggestion.plot(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="existing folder"):
        suggestion.plot(tmp_path / "none" / "a.png")
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", sorted(set(surrogate.names()) - {"straight_through"}))
def test_every_formula_has_a_steepness(name):
    steepness = Steepness.of(surrogate.resolve(name))
    assert steepness is not None and steepness.scale(1.0) == 1
    x = torch.randn(200, dtype=torch.float64)
    slopes = []
    for one, factor in ((surrogate.resolve(steepness.specification(0.7, digits=17)), 1.0), (steepness.surrogate, 0.7)):
        at = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(one(at * factor).sum(), at)[0])
    torch.testing.assert_close(slopes[0], slopes[1] * steepness.scale(0.7))


def test_a_parameter_that_is_no_steepness_is_not_taken():
    assert Steepness.of(surrogate.resolve("norse.super(alpha=10.0)")) is None
    assert Steepness.of(surrogate.resolve("straight_through")) is None
    assert Steepness.of(surrogate.resolve("htaf(beta=2.0)")).key == "alpha"
