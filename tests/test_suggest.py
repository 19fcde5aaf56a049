"""The width that `surrogate.suggest` measures, against closed forms, and all that it leaves as it was."""

import copy
import json
import math

import pytest
import snntorch as snn
import torch
from snntorch import utils
from torch import nn

from htaf_snn import HTAF, hardening, models, surrogate
from htaf_snn import nn as hnn
from htaf_snn.surrogate import MeasuredWidth, resolve, suggest
from htaf_snn.surrogate.steepness import Steepness

CLASSES = 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def batch(samples=64, features=20):
    return torch.randn(samples, features), torch.randint(CLASSES, (samples,))


def deep(depth, spec="htaf", width=48):
    return models.DeepHeavisideNet(20, [width] * depth, CLASSES, surrogate=spec)


def one_layer(spec):
    """A network whose potentials are its inputs."""
    return nn.Sequential(hnn.BinaryActivation(spec), nn.Linear(20, CLASSES))


class Stepped(nn.Module):
    """A network of snnTorch that is stepped through time, or of fused neurons over the same sequence."""

    def __init__(self, make, hidden=False):
        super().__init__()
        self.first, self.last, self.hidden = nn.Linear(20, 30), nn.Linear(30, CLASSES), hidden
        self.neurons = nn.ModuleList([make(), make()])
        with torch.no_grad():
            self.first.weight.mul_(3)
            self.last.weight.mul_(3)

    def forward(self, frames):
        one, two = self.neurons
        if isinstance(one, hnn.NeuronLayer):
            return two(self.last(one(self.first(frames))[0]))[0].mean(0)
        if self.hidden:
            utils.reset(self)
            return sum(two(self.last(one(self.first(x)))) for x in frames)
        mem, other = one.reset_mem(), two.reset_mem()
        out = []
        for x in frames:
            spikes, mem = one(self.first(x), mem)
            spikes, other = two(self.last(spikes), other)
            out.append(spikes)
        return torch.stack(out).mean(0)


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


def frames():
    return torch.randn(8, 64, 20), torch.randint(CLASSES, (64,))


def coherence_of(alpha):
    """Of HTAF at potentials from N(0, 1)."""
    u = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = torch.exp(-u * u / 2) / torch.exp(-u * u / 2).sum()
    slopes = alpha / torch.cosh(alpha * u) ** 2 / torch.cosh(2 * torch.tanh(alpha * u)) ** 2
    return ((density * slopes).sum() ** 2 / (density * slopes**2).sum()).item()


def test_rectangle_at_normal_potentials_equals_its_closed_form():
    suggestion = suggest(one_layer("rectangle(width=1.0)"), batch(1500))
    # Its coherence is the share of potentials within half its width, and 0.5 suffices for one layer.
    half = math.sqrt(2) * torch.erfinv(torch.tensor(0.5)).item()
    assert 1 / suggestion.stretch == pytest.approx(2 * half, rel=0.05)
    (layer,) = suggestion.layers
    assert layer.coherence == pytest.approx(layer.within, abs=2e-3) and layer.within == pytest.approx(0.5, abs=0.02)
    assert layer.mean_square == pytest.approx(layer.within * suggestion.stretch**2, rel=1e-3)
    assert (layer.mean, layer.std, layer.rate) == pytest.approx((0, 1, 0.5), abs=0.02)
    assert layer.suggested_signal == pytest.approx(layer.coherence, abs=0.02)
    assert layer.signal == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=0.02)
    assert suggestion.surrogate == f"rectangle(width={1 / suggestion.stretch:.3g})"


def test_gradients_are_those_of_the_network_with_that_surrogate():
    net, data = deep(3), batch()
    suggestion = suggest(net, data)
    for width in suggestion.present, suggestion.suggested:
        changed, potentials = copy.deepcopy(net), []

        def keep(module, inputs, kept=potentials):
            kept.append(inputs[0])

        for activation in changed.neurons:
            activation.surrogate = HTAF(alpha=width.stretch)
            activation.register_forward_pre_hook(keep)
        loss = nn.functional.cross_entropy(changed(data[0]), data[1])
        norms = [grad.norm().item() for grad in torch.autograd.grad(loss, potentials)]
        assert width.gradients == pytest.approx(norms, rel=1e-4)


def test_the_signal_through_a_chain_is_the_product_of_coherences():
    suggestion = suggest(deep(8, width=128), batch(256))
    coherences = [layer.coherence for layer in suggestion.layers]
    assert coherences == pytest.approx([coherence_of(suggestion.stretch)] * 8, abs=0.03)
    for place, layer in enumerate(suggestion.layers):
        assert layer.suggested_signal == pytest.approx(math.prod(coherences[place:]), rel=0.25)
    assert suggestion.suggested.signal == pytest.approx(0.1, rel=0.2) and suggestion.suggested.signal >= 0.1


def test_what_a_neuron_has_in_common_over_the_batch_is_signal():
    x, labels = batch()
    apart = suggest(one_layer("htaf"), (x / 100 + torch.linspace(-2, 2, 20), labels))
    assert apart.layers[0].std > 1 and apart.present.signal > 0.99
    sequence = nn.Sequential(hnn.BinaryActivation(), nn.Linear(20, CLASSES), Mean())  # (T, B, features)
    assert suggest(sequence, (x / 100 + torch.linspace(-2, 2, 7)[:, None, None], labels)).present.signal > 0.99


def test_alpha_falls_with_depth():
    alphas = [suggest(deep(depth), batch(128)).stretch for depth in (2, 8, 32)]
    assert 0.85 < alphas[0] < 1.15 and 0.4 < alphas[1] < 0.65 and 0.2 < alphas[2] < 0.35


def test_shortcuts_let_signal_pass():
    x, labels = torch.randn(16, 1, 8, 8), torch.randint(CLASSES, (16,))
    suggestion = suggest(models.BinaryResNet(14, 1, CLASSES, width=4, surrogate="htaf"), (x, labels))
    product = math.prod(layer.coherence for layer in suggestion.layers)
    assert suggestion.suggested.signal > 5 * product


@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_fused_neurons_agree_with_those_of_snntorch(backend):
    slow = Stepped(lambda: snn.Leaky(0.9, spike_grad=HTAF()))
    fast = Stepped(lambda: hnn.Leaky(0.9, backend=backend))
    fast.load_state_dict({**fast.state_dict(), **{k: v for k, v in slow.state_dict().items() if "neurons" not in k}})
    data = frames()
    one, two = suggest(slow, data), suggest(fast, data)
    assert one.stretch == two.stretch and one.surrogate == two.surrogate
    for mine, other in zip(one.layers, two.layers, strict=True):
        assert mine.name == other.name and mine.gradient == pytest.approx(other.gradient, rel=1e-4)
        assert (mine.mean, mine.std, mine.signal) == pytest.approx((other.mean, other.std, other.signal), rel=1e-4)
    assert {layer.backend for layer in fast.neurons} == {backend}


@pytest.mark.parametrize(
    "make",
    [
        lambda: hnn.Leaky(0.9, checkpoint_every=3),
        lambda: hnn.Leaky(0.9, save_dtype=torch.bfloat16, surrogate="htaf(hardness=0.0)"),
        lambda: hnn.RLeaky(0.9, all_to_all=False),
        lambda: hnn.LIF(v_th=torch.tensor(0.1)),
        lambda: snn.Leaky(0.9),
        lambda: snn.Leaky(0.9, spike_grad=HTAF(), init_hidden=True),
    ],
    ids=["checkpoints", "bfloat16", "recurrent", "norse", "plain callable", "hidden state"],
)
def test_other_neurons(make):
    net = Stepped(make)
    net.hidden = getattr(net.neurons[0], "init_hidden", False)
    suggestion = suggest(net, frames())
    assert [layer.name for layer in suggestion.layers] == ["neurons.0", "neurons.1"]
    assert suggestion.suggested.signal >= 0.1


def test_the_stretch_is_relative_to_the_potentials():
    net = nn.Sequential(
        nn.Linear(20, 40), hnn.BinaryActivation(), nn.Linear(40, 40), hnn.BinaryActivation(), nn.Linear(40, CLASSES)
    )
    data = batch(256)
    before = suggest(net, data)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(10)
            layer.bias.mul_(10)
    after = suggest(net, data)
    assert after.stretch == pytest.approx(before.stretch / 10, rel=0.03)
    assert after.layers[1].std == pytest.approx(10 * before.layers[1].std, rel=1e-4)


ANY = {
    "htaf(beta=8.0)": "htaf(alpha={}, beta=8.0)",
    "gaussian(sigma=2.0)": "gaussian(sigma={})",
    "snntorch.atan(alpha=2)": "snntorch.atan(alpha={})",
    "snntorch.fast_sigmoid(slope=25)": "snntorch.fast_sigmoid(slope={})",
    "straight_through(clip=3)": "straight_through(clip={})",
    "norse.super(alpha=1.0)": None,
    "rectangle(width=1e-06)": "rectangle(width={})",
}


@pytest.mark.parametrize("spec", ANY)
def test_any_surrogate(spec):
    data = batch(256)
    net = deep(2, spec)
    suggestion = suggest(net, data)
    assert suggestion.suggested.signal >= 0.1 and min(layer.coherence for layer in suggestion.layers) >= 0.5
    if ANY[spec] is None:
        assert suggestion.surrogate is None
        assert f"Rescaled(…, stretch={suggestion.stretch:.3g}) around the present one" in str(suggestion)
        return
    start, end = ANY[spec].split("{}")
    assert suggestion.surrogate.startswith(start) and suggestion.surrogate.endswith(end)
    for activation in net.neurons:
        activation.surrogate = surrogate.resolve(suggestion.surrogate)
    again = suggest(net, data)
    assert again.stretch == pytest.approx(1, rel=0.04)
    assert again.present.gradients == pytest.approx(suggestion.suggested.gradients, rel=0.02)


def test_a_surrogate_in_any_form_is_tried():
    net = deep(2)
    own = suggest(net, batch(), surrogate="snntorch.atan(alpha=2)")
    assert own.surrogate.startswith("snntorch.atan(alpha=") and isinstance(net.neurons[0].surrogate, HTAF)
    smooth = suggest(net, batch(), surrogate=lambda x: (x > 0).to(x.dtype) + x.sigmoid() - x.sigmoid().detach())
    assert smooth.surrogate is None and smooth.has_width


@pytest.mark.parametrize(
    "alpha", [{"alpha": torch.linspace(0.5, 2, 48)}, {"learn": ["alpha"]}], ids=["tensor", "learned"]
)
def test_parameters_that_are_tensors(alpha):
    suggestion = suggest(deep(2, HTAF(**alpha)), batch())
    assert suggestion.suggested.signal >= 0.1
    assert (suggestion.surrogate is None) == ("learn" not in alpha)


def test_what_has_no_width_says_so():
    suggestion = suggest(deep(4, "straight_through"), batch())
    assert (suggestion.has_width, suggestion.stretch, suggestion.present.signal) == (False, 1.0, pytest.approx(1))
    assert "no width" in str(suggestion) and len(suggestion.widths) == 1
    half = suggest(deep(4, "snntorch.triangular"), batch())  # 1 below 0 and -1 above
    assert not half.has_width and half.present.signal < 0.1


def test_weights_are_left_out():
    suggestion = suggest(models.BinaryMLP(20, [32, 32], CLASSES), (torch.rand(64, 20), batch()[1]))
    assert [layer.name for layer in suggestion.layers] == ["4", "7"]


def test_verdicts():
    assert MeasuredWidth("", 1.0, (2e-3, 1.0), (1.0, 1.0)).verdict == "passes"
    assert MeasuredWidth("", 1.0, (5e-4, 1.0), (1.0, 1.0)).verdict == "vanishes"
    assert MeasuredWidth("", 1.0, (1.0, 5e-4), (1.0, 1.0)).verdict == "explodes"
    assert MeasuredWidth("", 1.0, (math.inf, 1.0), (1.0, 1.0)).verdict == "explodes"
    assert MeasuredWidth("", 1.0, (0.0, 0.0), (1.0, 1.0)).verdict == "vanishes"
    assert suggest(deep(8, "htaf(alpha=0.05)"), batch()).verdict == "vanishes"
    assert suggest(deep(8, "htaf(alpha=20.0)"), batch()).verdict == "explodes"


def test_the_gain_evens_the_gradient_out():
    net, data = deep(16), batch(128)
    suggestion = suggest(net, data)
    assert suggestion.suggested.verdict == "vanishes" and f"gain={suggestion.gain:.3g})" in str(suggestion)
    plain = surrogate.resolve(suggestion.surrogate)

    def multiplied(x):
        y = plain(x)
        return y.detach() + suggestion.gain * (y - y.detach())

    assert 0.5 < suggest(net, data, surrogate=multiplied).present.ratio < 2


def test_a_gradient_below_float32_is_measured():
    suggestion = suggest(deep(40, "htaf(alpha=0.03)", width=16), batch(32))
    assert 0 < suggestion.present.ratio < 1e-40 and suggestion.present.signal > 0.9
    assert suggest(deep(24, "htaf(alpha=0.0001)", width=16), batch(32)).stretch > 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_dtypes(dtype):
    x, labels = batch()
    suggestion = suggest(deep(8).to(dtype), (x.to(dtype), labels))
    assert 0.4 < suggestion.stretch < 0.65
    assert suggestion.layers[0].suggested_gradient > 0


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
