"""A surrogate's mathematics, and the registry in which kernels look it up by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType

from .vocabulary import NAMES

__all__ = ["FORMULAS", "Formula", "formula_named", "is_registered"]


def _is_portable(function: object) -> bool:
    if not isinstance(function, FunctionType) or function.__closure__:
        return False
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return all(
        name in NAMES or isinstance(value, float) or (name == "abs" and value is None) or _is_portable(value)
        for name, value in named.items()
    )


@dataclass(frozen=True)
class Formula:
    """The mathematics of a surrogate: a smooth step and its derivative, which take the same parameters.

    Attributes:
        name: a Python identifier, the surrogate's name in specifications.
        primitive: h(x, *parameters), elementwise, for any floating-point tensor x.
        derivative: h'(x, *parameters), of the shape of x; NaN where x is NaN.
        parameter_gradients: the derivatives of h with respect to the parameters, in order, as a tuple; parameters
            without one at its end cannot be learned. None if none can.

    Example:
        >>> def primitive(x, width):
        ...     return 0.5 + x / (2.0 * (width + abs(x)))
        >>> def derivative(x, width):
        ...     return 0.5 * width / (width + abs(x)) / (width + abs(x))
        >>> formula = Formula("soft_step", primitive, derivative)
        >>> formula.parameters, formula.portable, formula.derivative(0.0, 2.0)
        (('width',), True, 0.25)
    """

    name: str
    primitive: Callable
    derivative: Callable
    parameter_gradients: Callable | None = None

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(inspect.signature(self.derivative).parameters)[1:]

    @cached_property
    def portable(self) -> bool:
        """Whether compiled kernels can take both functions as they are.

        They are then written with arithmetic, floats, `abs`, the names of `surrogate.vocabulary` and functions of that
        kind alone.
        """
        return _is_portable(self.primitive) and _is_portable(self.derivative)


FORMULAS: dict[str, Formula] = {}
"""Filled by `surrogate.register`."""


def formula_named(name: str) -> Formula:
    """Return the registered formula of that name."""
    return FORMULAS[name]


def is_registered(formula: Formula) -> bool:
    """Whether `formula_named` finds this very formula by its name."""
    return FORMULAS.get(formula.name) is formula
