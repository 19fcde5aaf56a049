"""sinabs: its surrogates for comparisons, ours as its `surrogate_grad_fn`, and its LIF as a peer in benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from ..surrogate import Surrogate

__all__ = ["FAULTS", "LIFOverTime", "SurrogateGradient", "is_installed", "library_surrogate", "surrogate_names"]

FAULTS: dict[str, str] = {}
"""What is known to be odd in sinabs' surrogates, by name: nothing that shows at threshold 1."""

_CLASSES = {
    "gaussian": "Gaussian",
    "heaviside": "Heaviside",
    "multi_gaussian": "MultiGaussian",
    "periodic_exponential": "PeriodicExponential",
    "single_exponential": "SingleExponential",
}


def is_installed() -> bool:
    """Whether sinabs can be imported.

    Example:
        >>> usable = surrogate_names() if is_installed() else []
    """
    return find_spec("sinabs") is not None


def surrogate_names() -> list[str]:
    """The names that `library_surrogate` accepts, sorted; sinabs need not be installed.

    Example:
        >>> surrogate_names()[:2]
        ['gaussian', 'heaviside']
    """
    return sorted(_CLASSES)


def library_surrogate(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """One of sinabs' own surrogates with its `SingleSpike`, exactly as sinabs computes them at threshold 1.

    A spike is x >= 0.

    Args:
        name: of a class in `sinabs.activation`, in lower case with underscores, such as "single_exponential".
        **parameters: as the class takes them.

    Returns:
        A callable from a floating-point tensor to spikes of its shape.

    Raises:
        ImportError: if sinabs is not installed.
        ValueError: if there is no such class (the message lists them), or it does not take the parameters.

    Example:
        >>> if is_installed():
        ...     step = library_surrogate("single_exponential", grad_width=0.5)
        ...     assert step(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 1.0]
    """
    if name not in _CLASSES:
        raise ValueError(f"unknown surrogate 'sinabs.{name}'; expected one of: {', '.join(sorted(_CLASSES))}")
    activation = import_module("sinabs.activation")
    try:
        gradient = getattr(activation, _CLASSES[name])(**parameters)
    except TypeError as error:
        raise ValueError(f"surrogate 'sinabs.{name}': {error}") from error
    return partial(_step, activation.SingleSpike, gradient)


def _step(single_spike, gradient: Callable, x: Tensor) -> Tensor:
    # sinabs takes membrane potential and threshold apart; at 0 and 1 their difference is x without rounding.
    return single_spike.apply(x, 0.0, _at_threshold_one(gradient))


@dataclass(frozen=True)
class _at_threshold_one:  # noqa: N801
    """sinabs' widths are multiples of the threshold; this gives the gradient of x at a threshold of 1."""

    gradient: Callable

    def __call__(self, x: Tensor, _: float) -> Tensor:
        return self.gradient(x + 1.0, 1.0)


@dataclass(frozen=True)
class SurrogateGradient:
    """A surrogate of this package as the `surrogate_grad_fn` of sinabs' layers.

    Args:
        surrogate: such as `htaf_snn.HTAF()`. sinabs asks it for the gradient alone, so the mode does not matter and
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
