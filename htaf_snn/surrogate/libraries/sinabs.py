"""sinabs' own surrogates with its `SingleSpike`, at threshold 1; x >= 0 is a spike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from torch import Tensor

FAULTS: dict[str, str] = {}
"""Known faults of sinabs' surrogates, by name: none that shows at threshold 1."""

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
    """sinabs' widths are multiples of the threshold; this gives spikes and gradient of x at a threshold of 1."""

    gradient: Callable

    def __call__(self, x: Tensor) -> Tensor:
        # sinabs takes membrane potential and threshold apart; at 0 and 1 their difference is x without rounding.
        return import_module("sinabs.activation").SingleSpike.apply(x, 0.0, self._gradient_of_shift)

    def _gradient_of_shift(self, x: Tensor, _threshold) -> Tensor:
        return self.gradient(x + 1.0, 1.0)


def make(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """Make an instance; parameters as the class takes them."""
    return _SpikeAtThresholdOne(getattr(import_module("sinabs.activation"), _CLASSES[name])(**parameters))
