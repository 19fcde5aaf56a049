"""Norse's own threshold functions."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from math import inf

import torch
from torch import Tensor

from ..base import Foreign, Surrogate

FAULTS = {
    "circ": "alpha is a width: larger is wider, and at the default of 100 the gradient is 1 nearly everywhere",
    "heavi_erfc": "peak 1.128 at any alpha",
    "heaviside": "has no gradient",
    "super": "alpha is ignored by Norse 1.1: the width is always 1",
    "tanh": "peak 1 at any alpha: not the derivative of a step of height 1",
    "triangle": "alpha sets the height only, 100 at the default; the width is fixed",
}
"""Known faults of Norse 1.1's threshold functions, by name."""

COUNTERPARTS = {
    "heavi_erfc": "erfc",
    "super": "fast_sigmoid",
    "tanh": "ede",
    "triangle": "triangle",
}
"""The surrogate of this package that has the shape which each has, or is documented to have."""


MODULE = "norse.torch.functional.threshold"
ORIGINAL = "__htaf_snn_original__"
"""The attribute in which the `threshold` that `htaf_snn.register` puts in place holds Norse's."""


def is_extended() -> bool:
    """Return whether `htaf_snn.register` has replaced Norse's `threshold`."""
    return hasattr(getattr(sys.modules.get(MODULE), "threshold", None), ORIGINAL)


def names() -> list[str]:
    """Return the methods of Norse's `threshold`; "adjoint", which is none, is left out."""
    return sorted(FAULTS)


@dataclass(frozen=True, eq=False)
class Threshold:
    """One of Norse's threshold functions, looked up at each call so that it can be pickled."""

    method: str
    alpha: float | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return import_module("norse.torch.functional.threshold").threshold(x, self.method, self.alpha)


def make(name: str, alpha: float | Tensor = 100.0) -> Threshold:
    """Return a threshold function with Norse's parameter alpha > 0; 100 is the default of its neurons."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, Tensor)) or not torch.as_tensor(alpha > 0).all():
        raise ValueError(f"alpha: expected a positive number, got {alpha!r}")
    return Threshold(name, alpha)


def as_method(surrogate: Surrogate) -> tuple[str, float | Tensor]:
    """Return the `method` and the `alpha` with which a Norse neuron computes a surrogate.

    Raises:
        ValueError: if there are none: for callables of another origin, a hardness below 1, and parameters that are
            tensors.
    """
    if isinstance(surrogate, Foreign) and isinstance(surrogate.function, Threshold):
        return surrogate.function.method, surrogate.function.alpha
    values = surrogate.values()
    if surrogate.formula is None:
        raise ValueError(f"surrogate: expected one of htaf-snn or Norse for Norse's neurons, got {surrogate!r}")
    if surrogate.hardness < 1 or any(isinstance(value, Tensor) for value in values.values()):
        raise ValueError(f"surrogate: expected hardness 1 and plain numbers for Norse's neurons, got {surrogate!r}")
    # A literal has no name for infinity, but a number beyond the largest float is read as that.
    literals = {name: "1e999" if value == inf else repr(value) for name, value in values.items()}
    return f"{surrogate.formula.name}({', '.join(f'{name}={value}' for name, value in literals.items())})", 1.0
