"""What the benchmarks of sequences time: this package's layers, and other libraries' on the same computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._packages import OWN
from ..interop import sinabs, spikingjelly, to_norse, to_snntorch
from ..models.neurons import neuron
from ..surrogate import HTAF, ATan, FastSigmoid


@dataclass(frozen=True)
class Peer:
    """An implementation to time: `make` returns a module from a float32 tensor (T, B, features) to another."""

    make: Callable[[], nn.Module]
    package: str = OWN


class OutputOf(nn.Module):
    """A layer of this package without its state."""

    def __init__(self, layer: hnn.NeuronLayer):
        super().__init__()
        self.layer = layer

    def forward(self, currents: Tensor) -> Tensor:
        return self.layer(currents)[0]


class _SteppedByIndex(nn.Module):
    """snnTorch's Leaky stepped as in its tutorials; autograd then allocates a tensor of the input's size per step."""

    def __init__(self):
        super().__init__()
        self.leaky = neuron("snntorch", "snntorch.atan").get_submodule("neuron")

    def forward(self, currents: Tensor) -> Tensor:
        mem = torch.zeros_like(currents[0])
        spikes = []
        for step in range(len(currents)):
            spike, mem = self.leaky(currents[step], mem)
            spikes.append(spike)
        return torch.stack(spikes)


class _Composite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(4.0 * torch.tanh(1.0 * x))


def moved_bytes(module: nn.Module) -> int | None:
    """Return the bytes that both passes of our kernels at least read and write per element; None for others' modules.

    Forwards the input, the output and what is saved; backwards what is saved, the gradients of the output and of the
    input, and the input again if it is needed; each in float32.
    """
    if isinstance(module, HTAF):
        return 20
    if not isinstance(module, OutputOf):
        return None
    made, layer = module.layer.sources(), module.layer
    return 4 * (4 + made.keeps_input) + 2 * made.saved * (4 if layer.save_dtype is None else 2)


def _ours(make: Callable[[], hnn.NeuronLayer]) -> Peer:
    return Peer(lambda: OutputOf(make()))


_LIF = {
    "hnn.Leaky": _ours(lambda: hnn.Leaky(0.9, surrogate=HTAF())),
    "hnn.Leaky, ATan": _ours(lambda: hnn.Leaky(0.9, surrogate=ATan())),
    "hnn.Leaky, bfloat16": _ours(lambda: hnn.Leaky(0.9, save_dtype=torch.bfloat16)),
    "hnn.LIF": _ours(lambda: hnn.LIF(surrogate=HTAF())),
    "hnn.LIF, FastSigmoid": _ours(lambda: hnn.LIF(surrogate=FastSigmoid(100.0))),
    "snn.Leaky, stepped": Peer(_SteppedByIndex, "snntorch"),
    "snn.Leaky, stepped, unbound": Peer(lambda: _OutputOfTheirs(neuron("snntorch", "snntorch.atan")), "snntorch"),
    "norse.LIF": Peer(lambda: _OutputOfTheirs(neuron("norse", "norse.super(alpha=100.0)", "lif")), "norse"),
    "sinabs.LIF": Peer(lambda: sinabs.LIFOverTime(), "sinabs"),
    "SpikingJelly": Peer(spikingjelly.LIFOverTime, "spikingjelly"),
}
_SMOOTH_STEPS = {
    "HTAF, smooth": Peer(lambda: HTAF(hardness=0.0)),
    "sigmoid(4 * tanh(x)), eager": Peer(_Composite, "torch"),
}


class _Stepped(nn.Module):
    """A neuron of snnTorch, called for one time step after the other, from rest."""

    def __init__(self, neuron: nn.Module, states: int):
        super().__init__()
        self.neuron, self.states = neuron, states

    def forward(self, x: Tensor) -> Tensor:
        states, outputs = [torch.zeros_like(x[0])] * self.states, []
        for current in x.unbind():
            output, *after = self.neuron(current, *states)
            # A recurrent neuron takes its spikes back.
            states = [output, *after] if len(after) < self.states else after
            outputs.append(output)
        return torch.stack(outputs)


class _StepByStep(nn.Module):
    """A cell of Norse, called for one time step after the other."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for current in x.unbind():
            output, state = self.cell(current, state)
            outputs.append(output)
        return torch.stack(outputs)


class _OutputOfTheirs(nn.Module):
    """A neuron of Norse that runs over a sequence, without its state."""

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x)[0]


def _own_neuron(**options) -> hnn.NeuronLayer:
    """Return a layer of a user's own neuron, with an adaptive threshold."""

    @hnn.neuron(states={"v": 0.0, "a": 0.0}, parameters={"beta": 0.9, "rho": 0.97, "threshold": 1.0})
    def adaptive_lif(x, v, a, *, beta, rho, threshold, spike):
        v = beta * v + x
        s = spike(v - threshold - a)
        return s, v - s * threshold, rho * a + s

    return adaptive_lif(**options)


def _of_snntorch(layer: hnn.NeuronLayer, states: int) -> nn.Module:
    return _Stepped(to_snntorch(layer), states)


def _of_norse(layer: hnn.NeuronLayer) -> nn.Module:
    neuron = to_norse(layer)
    return _StepByStep(neuron) if type(neuron).__name__.endswith("Cell") else _OutputOfTheirs(neuron)


_FEATURES = 1000  # of recurrent layers, which are made for a number of them
_SNNTORCH: dict[str, tuple[Callable[..., hnn.NeuronLayer], int]] = {
    "Leaky": (lambda **o: hnn.Leaky(0.9, **o), 1),
    "Lapicque": (lambda **o: hnn.Lapicque(C=5.0, **o), 1),
    "Synaptic": (lambda **o: hnn.Synaptic(alpha=0.8, beta=0.9, **o), 2),
    "Alpha": (lambda **o: hnn.Alpha(alpha=0.9, beta=0.8, **o), 3),
    "RLeaky": (lambda **o: hnn.RLeaky(0.9, linear_features=_FEATURES, **o), 2),
    "RSynaptic": (lambda **o: hnn.RSynaptic(alpha=0.8, beta=0.9, linear_features=_FEATURES, **o), 3),
}
_NORSE: dict[str, Callable[..., hnn.NeuronLayer]] = {
    "LIF": hnn.LIF, "LIFBox": hnn.LIFBox, "IAF": hnn.IAF, "LIFRefrac": hnn.LIFRefrac, "LIFEx": hnn.LIFEx,
    "LIFAdEx": hnn.LIFAdEx, "LIFAdExRefrac": hnn.LIFAdExRefrac, "Izhikevich": hnn.Izhikevich, "LSNN": hnn.LSNN,
    "LIFRecurrent": lambda **o: hnn.LIFRecurrent(_FEATURES, _FEATURES, **o),
    "LSNNRecurrent": lambda **o: hnn.LSNNRecurrent(_FEATURES, _FEATURES, **o),
}  # fmt: skip


def _pairs() -> dict[str, Peer]:
    """Return our layer of every neuron, each before its library's own loop, with that library's default surrogate."""
    pairs: dict[str, Peer] = {}
    for name, (make, states) in _SNNTORCH.items():
        pairs[f"hnn.{name}"] = _ours(partial(make, surrogate=ATan()))
        pairs[f"snn.{name}"] = Peer(partial(_theirs, make, states), "snntorch")
    for name, layer in _NORSE.items():
        pairs[f"hnn.{name}"] = _ours(partial(layer, surrogate="fast_sigmoid(slope=1)"))
        pairs[f"norse.{name}"] = Peer(partial(_theirs_of_norse, layer), "norse")
    pairs["hnn.LI"], pairs["norse.LI"] = _ours(hnn.LI), Peer(lambda: _of_norse(hnn.LI()), "norse")
    pairs["hnn.ParametricLIF"] = _ours(lambda: hnn.ParametricLIF(learn=("w",), surrogate=ATan()))
    pairs["SpikingJelly, ParametricLIF"] = Peer(spikingjelly.ParametricLIFOverTime, "spikingjelly")
    pairs["own neuron"] = _ours(lambda: _own_neuron(surrogate=ATan()))
    pairs["own neuron, loop in torch"] = _ours(lambda: _own_neuron(surrogate=ATan(), backend="torch"))
    return pairs


def _theirs(make: Callable[..., hnn.NeuronLayer], states: int) -> nn.Module:
    return _of_snntorch(make(surrogate="snntorch.atan"), states)


def _theirs_of_norse(make: Callable[..., hnn.NeuronLayer]) -> nn.Module:
    return _of_norse(make(surrogate="norse.super(alpha=100)"))


BENCHMARKS = {"lif": _LIF, "htaf": _SMOOTH_STEPS, "neurons": _pairs()}
PEERS = {name: peer for peers in BENCHMARKS.values() for name, peer in peers.items()}
