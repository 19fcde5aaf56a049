"""A surrogate's mathematics, and the registry in which kernels look it up by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FunctionType

import torch

from .vocabulary import NAMES


def _is_portable(function: object) -> bool:
    if not isinstance(function, FunctionType) or function.__closure__:
        return False
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return all(
        name in NAMES or isinstance(value, float) or (name == "abs" and value is None) or _is_portable(value)
        for name, value in named.items()
    )


def _constants(function: object) -> Iterator[tuple[dict, str, float]]:
    """Yield the global numbers that a function and those that it calls read: their namespace, name and value."""
    if isinstance(function, FunctionType):
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, float):
                yield function.__globals__, name, value
            elif name not in NAMES:
                yield from _constants(value)


@dataclass(frozen=True)
class Formula:
    """The mathematics of a surrogate: a smooth step and its derivative, which take the same parameters.

    Attributes:
        name: a Python identifier, the surrogate's name in specifications.
        primitive: h(x, *parameters), elementwise, for any floating-point tensor x.
        derivative: h'(x, *parameters), of the shape of x; NaN where x is NaN.
        parameter_gradients: the derivatives of h with respect to the parameters, in order, as a tuple; parameters
            without one at its end cannot be learned. None if none can.
        parameters: the names of the parameters, in order.
        portable: whether compiled kernels can take both functions as they are: written with arithmetic, floats, `abs`,
            the names of `surrogate.vocabulary` and functions of that kind alone.
        constants: the global numbers that the functions read, with their namespaces, names and values. Where one has
            changed, plain torch computes, as kernels have taken over the old one.

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

    # Not properties: the compiler reads them.
    parameters: tuple[str, ...] = field(init=False, compare=False)
    portable: bool = field(init=False, compare=False)
    constants: tuple[tuple[dict, str, float], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self):
        for name, function in (("primitive", self.primitive), ("derivative", self.derivative)):
            if not callable(function):
                raise TypeError(f"{name}: expected a function, got {function!r}")
        names = [tuple(inspect.signature(one).parameters)[1:] for one in (self.primitive, self.derivative)]
        if names[0] != names[1]:
            raise ValueError(f"{self.name}: expected the same parameters of primitive and derivative, got {names}")
        object.__setattr__(self, "parameters", names[0])
        object.__setattr__(self, "portable", _is_portable(self.primitive) and _is_portable(self.derivative))
        constants = *_constants(self.primitive), *_constants(self.derivative)
        object.__setattr__(self, "constants", constants)

    def is_unchanged(self) -> bool:
        """Return whether global numbers that the functions read are those that compiled kernels have taken over."""
        return torch.compiler.is_compiling() or all(names.get(k) == value for names, k, value in self.constants)


def between(smooth, hard, softness, hardness):
    """Return the mean of a smooth step and the hard one, weighted by the hardness and by 1 - hardness, the softness.

    Plain arithmetic, which every backend compiles for itself.
    """
    return softness * smooth + hardness * hard


FORMULAS: dict[str, Formula] = {}
"""Filled by `surrogate.register`."""


def formula_named(name: str) -> Formula:
    """Return the registered formula of that name."""
    return FORMULAS[name]


def is_registered(formula: Formula) -> bool:
    """Whether `formula_named` finds this very formula by its name."""
    return FORMULAS.get(formula.name) is formula
