"""Binding of a formula's functions to another vocabulary, so that one source serves every backend."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from ..surrogate.vocabulary import NAMES

T = TypeVar("T")


def _references(function: FunctionType) -> dict[str, Any]:
    """Return the globals that a function's code refers to."""
    return {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}


def bind(
    function: Callable[..., object],
    vocabulary: dict[str, Any],
    finish: Callable[[FunctionType], T],
    number: Callable[[float], object] = float,
    constant: Callable[[float], object] | None = None,
) -> T:
    """Copy a formula's function, and those that it calls, onto another vocabulary.

    Args:
        function: a function of a portable `Formula`.
        vocabulary: objects for the names of `surrogate.vocabulary`, and for any others.
        finish: applied to each copy, such as a compiler's decorator.
        number: applied to each floating-point literal; it sets the precision of the arithmetic.
        constant: applied to each number that is a global, such as pi; `number` by default.

    Returns:
        The result of `finish` for the copy of `function`.

    Raises:
        LookupError: if the vocabulary lacks a name of `surrogate.vocabulary` that the function uses.

    Example:
        >>> import math
        >>> from htaf_snn.surrogate.formulas import sigmoid
        >>> bind(sigmoid.derivative, {"exp": math.exp}, finish=lambda f: f)(0.0, 4.0)
        1.0
    """
    assert isinstance(function, FunctionType)  # a formula's, with code to copy
    # All numbers, not only those that the code names: Triton looks at the defaults of the parameters too.
    numbers = {name: value for name, value in function.__globals__.items() if isinstance(value, float)}
    meanings = {**{name: (constant or number)(value) for name, value in numbers.items()}, **vocabulary}
    for name, value in _references(function).items():
        if name in NAMES and name not in vocabulary:
            raise LookupError(f"{name} has no meaning in this vocabulary")
        if name not in meanings:
            meanings[name] = bind(value, vocabulary, finish, number, constant)
    constants = tuple(number(c) if isinstance(c, float) else c for c in function.__code__.co_consts)
    copy = FunctionType(function.__code__.replace(co_consts=constants), meanings, function.__name__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return finish(copy)
