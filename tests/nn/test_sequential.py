"""Chains over sequences: any nesting equals stepping, or is refused with the layer's name."""

import random

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from examples import examples
from torch import nn

from htaf_snn import HTAF, functional, interop
from htaf_snn import nn as hnn

# Equal sizes, so that a confused axis would still fit.
SIZE = 4


class Block(nn.Module):
    """A user's residual block with its own neurons."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class ReturnsState(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif = hnn.Leaky(0.9)

    def forward(self, x):
        return self.lif(x)


class DropsTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.lif = hnn.Leaky(0.9)

    def forward(self, x):
        return self.lif(x)[0].mean(0)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(SIZE, 2)

    def forward(self, x):
        return self.attend(x, x, x)[0]


REFUSED = {
    "LSTM": lambda: nn.LSTM(SIZE, SIZE),
    "GRU cell": lambda: nn.GRUCell(SIZE, SIZE),
    "snnTorch neuron with hidden state": lambda: snn.Leaky(0.9, init_hidden=True),
    "snnTorch neuron": lambda: snn.Synaptic(0.9, 0.8),
    "snnTorch neuron, nested": lambda: nn.Sequential(nn.Linear(SIZE, SIZE), snn.Leaky(0.9, init_hidden=True)),
    "snnTorch's parallel neuron": lambda: snn.LeakyParallel(SIZE, SIZE),
    "Norse neuron": lambda: norse.LIF(),
    "Norse cell": lambda: norse.LIFCell(),
    "neuron as a layer without time": lambda: hnn.TimeDistributed(hnn.Leaky(0.9)),
    "nested neuron as a layer without time": lambda: hnn.TimeDistributed(nn.Sequential(hnn.LIF())),
    "block that returns its state": ReturnsState,
    "block that drops time": DropsTime,
    "attention over samples": Attention,
    "convolution over samples": lambda: nn.Conv1d(SIZE * SIZE, SIZE * SIZE, 1),
    "flattened batch": lambda: nn.Flatten(0),
}


def timeless(draw):
    return draw.choice(
        [lambda: nn.Linear(SIZE, SIZE), nn.ReLU, lambda: nn.BatchNorm1d(SIZE), nn.Dropout, hnn.BinaryActivation]
    )()


def neuron(draw):
    if draw.random() < 0.3:
        return hnn.LIF(v_th=draw.choice([0.1, 0.3]))
    return hnn.Leaky(draw.choice([0.5, 0.9, 1.0]), reset_mechanism=draw.choice(["subtract", "zero"]))


def tree(draw, depth):
    """A random layer, sometimes one that is refused."""
    kind = draw.random()
    if depth == 0 or kind < 0.25:
        return neuron(draw) if draw.random() < 0.6 else timeless(draw)
    if kind < 0.3:
        return draw.choice(list(REFUSED.values()))()
    if kind < 0.4:
        return hnn.TimeDistributed(nn.Sequential(timeless(draw), timeless(draw)))
    if kind < 0.5:
        return Block(hnn.Sequential(timeless(draw), neuron(draw)))
    make = nn.Sequential if draw.random() < 0.5 else hnn.Sequential
    return make(*(tree(draw, depth - 1) for _ in range(draw.randint(1, 3))))


def stepped(layer, x):
    """The output with each neuron stepped by its own library and all other layers applied step by step."""
    if isinstance(layer, hnn.Leaky):
        single, mem, out = interop.to_snntorch(layer), torch.zeros_like(x[0]), []
        for current in x:
            spike, mem = single(current, mem)
            out.append(spike)
        return torch.stack(out)
    if isinstance(layer, hnn.LIF):
        cell, state, out = norse.LIFCell(interop.to_norse(layer).p), None, []
        for current in x:
            spike, state = cell(current, state)
            out.append(spike)
        return torch.stack(out)
    if isinstance(layer, nn.Sequential):
        for child in layer:
            x = stepped(child, x)
        return x
    if isinstance(layer, Block):
        return x + stepped(layer.inner, x)
    return torch.stack([layer.layer(row) if isinstance(layer, hnn.TimeDistributed) else layer(row) for row in x])


def has_refused(net):
    bad = (nn.RNNBase, nn.RNNCellBase, snn.SpikingNeuron, snn.LeakyParallel, norse.LIF, norse.LIFCell)
    bad += (ReturnsState, DropsTime, Attention, nn.Conv1d, nn.Flatten)
    alone = [m.layer for m in net.modules() if isinstance(m, hnn.TimeDistributed)]
    return any(isinstance(m, bad) for m in net.modules()) or any(
        isinstance(m, (hnn.Leaky, hnn.LIF)) for layer in alone for m in layer.modules()
    )


@pytest.mark.hypothesis
@pytest.mark.usefixtures("registered")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_nestings_equal_stepping_or_are_refused():
    refused = equal = 0
    for seed in range(examples(ci=60, thorough=1000)):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        net = hnn.Sequential(*(tree(draw, 3) for _ in range(draw.randint(1, 3)))).eval()
        x = 2 * torch.randn(SIZE, SIZE, SIZE)
        if has_refused(net):
            refused += 1
            with pytest.raises((TypeError, ValueError), match=r"^layer( '[\d.]+' \(\w+\))?: expected"):
                net(x)
        else:
            equal += 1
            torch.testing.assert_close(net(x), stepped(net, x), msg=f"seed {seed}: {net}")
    assert refused > 10 and equal > 10


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "wrap",
    [
        hnn.Sequential,
        lambda layer: hnn.Sequential(nn.Sequential(hnn.Leaky(0.9), layer)),
        lambda layer: hnn.Sequential(nn.Sequential(nn.ReLU(), nn.Sequential(layer))),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_layers_that_lose_time_are_refused_by_name(name, wrap):
    with pytest.raises((TypeError, ValueError), match=r"^layer( '[\d.]+' \(\w+\))?: expected"):
        wrap(REFUSED[name]())(torch.rand(SIZE, SIZE, SIZE))


def test_neurons_of_spikingjelly_and_sinabs_are_refused():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="SpikingJelly is not installed")
    with pytest.raises(TypeError, match=r"layer '0' \(IFNode\): expected a layer without time"):
        hnn.Sequential(neuron.IFNode())(torch.rand(3, 2, 4))
    layer = pytest.importorskip("spikingjelly.activation_based.layer", reason="SpikingJelly is not installed")
    assert hnn.Sequential(layer.Linear(4, 3))(torch.rand(3, 2, 4)).shape == (3, 2, 3)
    layers = pytest.importorskip("sinabs.layers", reason="sinabs is not installed")
    with pytest.raises(TypeError, match=r"layer '0' \(IAF\): expected a layer without time"):
        hnn.Sequential(layers.IAF())(torch.rand(3, 2, 4))


def test_images_keep_their_batch():
    net = hnn.Sequential(nn.Conv2d(2, 3, 3), nn.Sequential(nn.BatchNorm2d(3), hnn.Leaky(0.9)), nn.Flatten()).eval()
    x = 3 * torch.rand(4, 3, 2, 6, 6)
    assert torch.equal(net(x), torch.cat([net(x[:, i : i + 1]) for i in range(3)], 1)) and net(x).any()
    with pytest.raises(
        ValueError, match=r"layer '0' \(Conv2d\): expected \(T, B, channels, ...\) with 2 spatial dimensions"
    ):
        net(torch.rand(2, 1, 6, 6))  # (T, B, H, W) could be read as (B, C, H, W)


@pytest.mark.parametrize("run", [hnn.Leaky(0.9), hnn.LIF(), lambda x: functional.leaky(x, beta=0.9), functional.lif])
def test_a_single_time_step_is_refused(run):
    with pytest.raises(ValueError, match=r"x: expected currents of shape \(T, B, features, ...\).*x\[None\]"):
        run(torch.rand(4, 3))


def test_a_state_of_the_size_of_the_input_is_refused():
    x = torch.rand(4, 3, 5, 5)
    with pytest.raises(
        ValueError, match=r"state: expected v to be a tensor of shape .* per neuron of x without its time"
    ):
        hnn.Leaky(0.9)(x, torch.zeros_like(x))
    with pytest.raises(ValueError, match="state: expected v to be a tensor of shape"):
        hnn.LIF()(x, (torch.zeros_like(x), torch.zeros_like(x)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spike_grad": torch.relu}, "Leaky: got an unexpected argument 'spike_grad'; write surrogate="),
        ({"init_hidden": True}, "'init_hidden'; write nothing: every sequence starts from rest"),
        ({"betta": 1}, "Leaky: got an unexpected argument 'betta'$"),
        ({"surrogate": hnn.BinaryActivation}, r"expected an instance, got the class BinaryActivation; write Bin.*\(\)"),
        ({"backend": "gpu"}, "backend: expected one of auto.*got 'gpu'; for a GPU write 'auto' or 'triton'"),
        ({"threshold": torch.tensor(True)}, "threshold: expected a number or a real tensor, got a torch.bool"),
        ({"threshold": float("nan")}, "threshold: expected a number or a real tensor, got nan"),
        ({"threshold": torch.tensor([1.0, float("nan")])}, "threshold: expected numbers, got NaN"),
    ],
)
def test_arguments_of_other_libraries_are_explained(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        hnn.Leaky(0.9, **options)
    if "spike_grad" in options:
        with pytest.raises(TypeError, match="LIF: got an unexpected argument 'spike_grad'; write surrogate="):
            hnn.LIF(**options)


@pytest.mark.parametrize("threshold", [1, torch.tensor(1), torch.tensor(1, dtype=torch.int8)])
def test_integers_are_parameters(threshold):
    x = 3 * torch.rand(5, 2, 3)
    assert torch.equal(hnn.Leaky(0.9, threshold=threshold)(x)[0], hnn.Leaky(0.9)(x)[0])
    assert torch.equal(functional.leaky(x, beta=0.9, threshold=threshold)[0], hnn.Leaky(0.9)(x)[0])
    assert torch.equal(hnn.LIF(v_th=threshold)(x)[0], hnn.LIF()(x)[0])
    fused = interop.from_snntorch(snn.Leaky(0.9, threshold=int(threshold)))
    assert torch.equal(fused(x)[0], hnn.Leaky(0.9)(x)[0]) and torch.equal(
        interop.to_snntorch(fused).threshold, torch.tensor(1.0)
    )


def test_hooks_of_nested_chains_run_or_are_refused():
    seen = []
    net = hnn.Sequential(hnn.Sequential(hnn.Leaky(0.9)), nn.Sequential(nn.ReLU()))
    for inner in net:
        inner.register_forward_hook(lambda *_: seen.append(1))
    net(torch.rand(3, 2, 4))
    assert len(seen) == 2
    plain = nn.Sequential(hnn.Leaky(0.9))
    plain.register_forward_pre_hook(lambda *_: None)
    with pytest.raises(TypeError, match=r"layer '0' \(Sequential\): expected htaf_snn\.nn\.Sequential around neurons"):
        hnn.Sequential(plain)(torch.rand(3, 2, 4))


@pytest.mark.parametrize("start", [0.5, 1.0, 0.37])
@pytest.mark.parametrize(
    "fire",
    [lambda v: (v >= 0).to(v.dtype), torch.sigmoid, lambda v: (v > 0.2).to(v.dtype), lambda v: (v > 0).to(v.dtype)],
    ids=["at threshold", "soft", "shifted", "strict"],
)
def test_a_neuron_resets_by_a_callables_spikes(fire, start):
    x = torch.full((9, 2, 3), start)
    stepped_ = snn.Leaky(1.0, spike_grad=fire)
    mem, expected = torch.zeros(2, 3), []
    for current in x:
        spike, mem = stepped_(current, mem)
        expected.append(spike)
    assert torch.equal(interop.from_snntorch(stepped_)(x)[0], torch.stack(expected))


def test_a_kernel_asked_for_by_name_refuses_other_resets():
    kernel = hnn.Leaky(1.0, surrogate=lambda v: (v >= 0).to(v.dtype), backend="numba")
    assert kernel(torch.full((9, 2, 3), 0.37))[0].any()  # never at the threshold itself
    with pytest.raises(ValueError, match="surrogate: expected 1 above the threshold and else 0, got other spikes"):
        kernel(torch.full((9, 2, 3), 0.5))


@pytest.mark.parametrize("dt", [float("nan"), -0.001, 0.0, float("inf"), "1ms"])
def test_time_steps_are_checked(dt):
    with pytest.raises(ValueError, match="dt: expected"):
        hnn.LIF(dt=dt)
    with pytest.raises(ValueError, match="dt: expected"):
        functional.lif(torch.rand(3, 2, 4), dt=dt)


def test_parameters_and_inputs_that_do_not_fit_are_refused():
    x = torch.rand(30, 3, 4)
    with pytest.raises(ValueError, match=r"alpha: expected a shape that broadcasts to \(3, 4\), got .* \(30, 1, 1\)"):
        hnn.Leaky(0.9, surrogate=HTAF(alpha=torch.ones(30, 1, 1)))(x)
    with pytest.raises(ValueError, match="beta: expected numbers, got NaN"):
        functional.leaky(x, beta=torch.tensor(float("nan")))
    with pytest.raises(TypeError, match=r"surrogate: expected a callable .* got function; a factory"):
        hnn.Leaky(0.9, surrogate=snn.surrogate.atan)(x)
    with pytest.raises(ValueError, match=r"x: expected no torch\.jit\.trace"):
        torch.jit.trace(hnn.Leaky(0.9), x)


@pytest.mark.parametrize("layer", [nn.Softmax(0), nn.LogSoftmax(-2), nn.Sequential(nn.ReLU(), nn.Softmin(0))])
def test_a_softmax_over_samples_is_refused(layer):
    with pytest.raises(ValueError, match=r"^layer '0' \(\w+\): expected a dimension of features, got dim="):
        hnn.Sequential(layer)(torch.rand(5, 3, 8))
    assert hnn.Sequential(nn.Softmax(-1))(torch.rand(5, 3, 8)).shape == (5, 3, 8)


def test_a_compiled_neuron_in_a_chain():
    x, lif = 2 * torch.rand(4, 3, 5), hnn.Leaky(0.9)
    assert torch.equal(hnn.Sequential(torch.compile(lif, backend="aot_eager"))(x), lif(x)[0])
