"""sinabs: the surrogates of this package as its `surrogate_grad_fn`; its LIF as a peer in benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..surrogate import Surrogate

__all__ = ["LIFOverTime", "SurrogateGradient", "is_installed"]


def is_installed() -> bool:
    """Whether sinabs can be imported.

    Example:
        >>> spikes = LIFOverTime() if is_installed() else None
    """
    return find_spec("sinabs") is not None


@dataclass(frozen=True)
class SurrogateGradient:
    """A surrogate of this package as the `surrogate_grad_fn` of sinabs' layers.

    Args:
        surrogate: such as `htaf_snn.HTAF()`. sinabs asks it for the gradient alone, so the hardness does not matter and
            parameters are not learned.

    Raises:
        TypeError: if it is no surrogate of this package.

    Example:
        >>> from htaf_snn import HTAF
        >>> SurrogateGradient(HTAF())(torch.tensor([1.0]), 1.0)
        tensor([1.])
    """

    surrogate: Surrogate

    def __post_init__(self):
        if not isinstance(self.surrogate, Surrogate):
            raise TypeError(f"surrogate: expected a surrogate of htaf_snn, got {type(self.surrogate).__name__}")

    def __call__(self, v_mem: Tensor, spike_threshold: float | Tensor) -> Tensor:
        with torch.enable_grad():
            x = (v_mem - spike_threshold).detach().requires_grad_()
            return torch.autograd.grad(self.surrogate(x).sum(), x)[0]


class LIFOverTime(nn.Module):
    """sinabs' `LIF`, from rest, with its own surrogate, for benchmarks.

    Shape:
        currents (T, B, *features) to spikes of the same shape: whole numbers, as sinabs' neurons may spike more than
        once a step.

    Raises:
        ImportError: if sinabs is not installed.

    Example:
        >>> if is_installed():
        ...     spikes = LIFOverTime()(torch.ones(5, 2, 3))
        ...     assert spikes.shape == (5, 2, 3)
    """

    def __init__(self):
        super().__init__()
        self.lif = import_module("sinabs.layers").LIF(tau_mem=10.0, norm_input=False)

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset_states()
        # sinabs has the batch in front. Turning the axes without moving the data costs nothing.
        return self.lif(currents.transpose(0, 1)).transpose(0, 1)
