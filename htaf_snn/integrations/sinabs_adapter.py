"""sinabs: its LIF neuron over a sequence, as a peer in benchmarks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import Tensor, nn

__all__ = ["LIFOverTime", "is_installed"]


def is_installed() -> bool:
    """Whether sinabs can be imported."""
    return find_spec("sinabs") is not None


class LIFOverTime(nn.Module):
    """sinabs' `LIF`, from rest, with its own surrogate.

    Shape:
        currents (T, B, *features) to spikes of the same shape.
    """

    def __init__(self):
        super().__init__()
        self.lif = import_module("sinabs.layers").LIF(tau_mem=10.0, norm_input=False)

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset_states()
        # sinabs has the batch in front. Turning the axes without moving the data costs nothing.
        return self.lif(currents.transpose(0, 1)).transpose(0, 1)
