"""snnTorch's own surrogates."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from torch import Tensor

from ..base import Foreign, Surrogate

if TYPE_CHECKING:
    import snntorch

FAULTS = {
    "LSO": "raises when called: it calls another operator",
    "SFS": "zero gradient for x <= B, so none near the threshold",
    "SSO": "the gradient is random, and 1 wherever it spikes",
    "atan": "the gradient is pi * alpha / 2 times the documented one",
    "heaviside": "the gradient is 1 where it spikes, else 0",
    "sigmoid": "NaN gradient below x = -3.4 at the default slope, by overflow",
    "spike_rate_escape": "the peak lies one above the threshold",
    "straight_through_estimator": "documented as a fast sigmoid",
    "triangular": "no triangle: +threshold below 0, -threshold from 0 on, everywhere",
}
"""Known faults of snnTorch 1.0's surrogates, by name."""

COUNTERPARTS = {
    "atan": "atan",
    "fast_sigmoid": "fast_sigmoid",
    "sigmoid": "sigmoid",
    "straight_through_estimator": "straight_through",
    "triangular": "triangle",
}
"""The surrogate of this package that has the shape which each has, or is documented to have."""

ORIGINAL = "__htaf_snn_original__"
"""The attribute in which what `htaf_snn.register` puts in place holds what it replaces, None for nothing."""

_SCALES = ("alpha", "beta", "slope", "variance")


def _factories() -> dict[str, Callable]:
    module = import_module("snntorch.surrogate")
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and key != "custom_surrogate"
        if not key.startswith("_")
    }


def names() -> list[str]:
    """Return the names of the factories in `snntorch.surrogate`."""
    return sorted(_factories())


def make(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """Call a factory; parameters are numbers, > 0 where they set a scale."""
    for key, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (key in _SCALES and not value > 0):
            expected = "a positive number" if key in _SCALES else "a number"
            raise ValueError(f"{key}: expected {expected}, got {value!r}")
    return _factories()[name](**parameters)


def as_spike_grad(surrogate: Surrogate) -> Callable[[Tensor], Tensor]:
    """Return what a neuron is given as `spike_grad`: a callable of another origin is unwrapped."""
    return surrogate.function if type(surrogate) is Foreign else surrogate


def own_surrogate(neuron: snntorch.SpikingNeuron) -> Surrogate | None:
    """Return the neuron's surrogate if it is of this package; of one that wraps another, as `Rescaled`, the other."""
    surrogate = neuron.spike_grad
    while isinstance(surrogate, Foreign) and type(surrogate) is not Foreign:
        surrogate = surrogate.function
    return surrogate if isinstance(surrogate, Surrogate) and surrogate.formula is not None else None


def check_reset(neuron: snntorch.SpikingNeuron) -> None:
    """Raise RuntimeError if a neuron resets softly: below hardness 1, while `register` is not in force."""
    # The hardness is looked at last: to compiled graphs it is a constant.
    surrogate = None if hasattr(neuron.mem_reset, ORIGINAL) else own_surrogate(neuron)
    if surrogate is not None and surrogate.hardness < 1:
        raise RuntimeError(
            "hardness: below 1 snnTorch's neurons reset softly; call htaf_snn.register() for hard resets"
        )
