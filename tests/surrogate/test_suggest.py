"""The width that `surrogate.suggest` measures, against closed forms."""

import copy
import math

import pytest
import snntorch as snn
import torch
from measured_networks import CLASSES, Stepped, batch, deep, frames, one_layer
from torch import nn

from htaf_snn import HTAF, models, surrogate
from htaf_snn import nn as hnn
from htaf_snn.surrogate import MeasuredWidth, suggest


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(0)


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


@pytest.mark.thorough
def test_the_gain_evens_the_gradient_out():
    net, data = deep(16), batch(128)
    suggestion = suggest(net, data)
    assert suggestion.suggested.verdict == "vanishes" and f"gain={suggestion.gain:.3g})" in str(suggestion)
    plain = surrogate.resolve(suggestion.surrogate)

    def multiplied(x):
        y = plain(x)
        return y.detach() + suggestion.gain * (y - y.detach())

    assert 0.5 < suggest(net, data, surrogate=multiplied).present.ratio < 2


@pytest.mark.thorough
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
