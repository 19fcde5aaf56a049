"""sinabs' own surrogates with its `SingleSpike`, at threshold 1; a spike is x >= 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor

FAULTS: dict[str, str] = {}
"""Known faults of sinabs' surrogates, by name: none that shows at threshold 1."""

COUNTERPARTS = {
    "gaussian": "gaussian",
    "heaviside": "rectangle",
    "single_exponential": "piecewise_exp",
}
"""The surrogate of this package that has the shape which each has, or is documented to have."""

_CLASSES = {
    "gaussian": "Gaussian",
    "heaviside": "Heaviside",
    "multi_gaussian": "MultiGaussian",
    "periodic_exponential": "PeriodicExponential",
    "single_exponential": "SingleExponential",
}


def names() -> list[str]:
    """Return the classes of `sinabs.activation`, in lower case with underscores."""
    return sorted(_CLASSES)


@dataclass(frozen=True, eq=False)
class _SpikeAtThresholdOne:
    """sinabs' spikes and gradient as functions of x at threshold 1; its widths are multiples of the threshold."""

    gradient: Callable

    def __call__(self, x: Tensor) -> Tensor:
        # sinabs takes membrane potential and threshold separately; with threshold 0 their difference is not rounded.
        return import_module("sinabs.activation").SingleSpike.apply(x, 0.0, self._gradient_of_shift)

    def _gradient_of_shift(self, x: Tensor, _threshold) -> Tensor:
        return self.gradient(x + 1.0, 1.0)


def make(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """Make an instance with the parameters of its class."""
    return _SpikeAtThresholdOne(getattr(import_module("sinabs.activation"), _CLASSES[name])(**parameters))
