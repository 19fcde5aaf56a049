"""SpikingJelly: its LIF neuron over a sequence, as a peer in benchmarks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import Tensor, nn

__all__ = ["LIFOverTime", "is_installed"]


def is_installed() -> bool:
    """Whether SpikingJelly can be imported."""
    return find_spec("spikingjelly") is not None


class LIFOverTime(nn.Module):
    """SpikingJelly's multi-step `LIFNode`, from rest, with its own surrogate.

    Args:
        backend: "torch", "triton" or "cupy", SpikingJelly's.

    Shape:
        currents (T, B, *features) to spikes of the same shape.
    """

    def __init__(self, backend: str = "torch"):
        super().__init__()
        self.lif = import_module("spikingjelly.activation_based.neuron").LIFNode(step_mode="m")
        self.lif.backend = backend

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset()
        return self.lif(currents)
