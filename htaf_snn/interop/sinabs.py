"""sinabs: surrogates as its `surrogate_grad_fn`; its LIF for comparison in benchmarks."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor, nn

from ..surrogate import SurrogateLike, resolve


class SurrogateGradient:
    """A surrogate as the `surrogate_grad_fn` of sinabs' layers.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`. sinabs takes only its gradient, so the hardness does
            not matter and parameters are not learned.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.

    Example:
        >>> SurrogateGradient("htaf")(torch.tensor([1.0]), 1.0)
        tensor([1.])
    """

    def __init__(self, surrogate: SurrogateLike):
        self.surrogate = resolve(surrogate)

    def __call__(self, v_mem: Tensor, spike_threshold: float | Tensor) -> Tensor:
        with torch.enable_grad():
            x = (v_mem - spike_threshold).detach().requires_grad_()
            return torch.autograd.grad(self.surrogate(x).sum(), x)[0]


class LIFOverTime(nn.Module):
    """sinabs' `LIF`, from rest, with its own surrogate, for benchmarks.

    Shape:
        currents (T, B, *features) to spikes of the same shape: whole numbers, as sinabs' neurons may spike more than
        once per time step.
    """

    def __init__(self):
        super().__init__()
        self.lif = import_module("sinabs.layers").LIF(tau_mem=10.0, norm_input=False)

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset_states()
        # sinabs takes the batch first; transposing moves no data.
        return self.lif(currents.transpose(0, 1)).transpose(0, 1)
