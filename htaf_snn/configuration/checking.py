"""Settings whose constraints stand at their fields, and what checks them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np

from .._hints import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def is_count(value: object) -> bool:
    """Return whether the value is an integer of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    """Return whether the value is a real number and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_pair(value: object) -> bool:
    """Return whether a value is a tuple of two positive integers."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_count, value))


class Valid(NamedTuple):
    """Which values a field takes, in words and as a function."""

    expected: str
    is_valid: Callable[[Any], object]


class Only(NamedTuple):
    """The models on which a field has an effect."""

    models: tuple[str, ...]


def within(low: float, high: float, brackets: str = "[]") -> Valid:
    """Return the constraint to an interval; brackets are those of mathematics."""

    def is_valid(value: Any) -> bool:
        below = value > low if brackets[0] == "(" else value >= low
        return is_number(value) and below and (value < high if brackets[1] == ")" else value <= high)

    return Valid(f"a number in {brackets[0]}{low:g}, {high:g}{brackets[1]}".replace("e+06", "e6"), is_valid)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Settings whose values are made plain and checked."""

    def __post_init__(self):
        make_plain(self)
        for name, valid in constraints(type(self)).items():  # type: ignore[arg-type]  # a class can be hashed
            require(name, getattr(self, name), *valid)


def _hints(kind: Any) -> Iterator[tuple[str, Any, tuple]]:
    """Yield the name of each field, its type, and what it is annotated with."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        is_annotated = get_origin(hint) is Annotated
        yield name, get_args(hint)[0] if is_annotated else hint, get_args(hint)[1:] if is_annotated else ()


@cache
def constraints(kind: Any) -> dict[str, Valid]:
    """Return which values each field of a dataclass takes: its `Valid`, its choices, or its type."""
    found = {}
    for name, plain, extras in _hints(kind):
        valid = next((extra for extra in extras if isinstance(extra, Valid)), None)
        found[name] = valid or (_one_of(get_args(plain)) if get_origin(plain) is Literal else _of_type(plain))
    return found


@cache
def effects(kind: Any) -> dict[str, tuple[str, ...]]:
    """Return the models on which each field that is marked with `Only` has an effect."""
    return {name: extra.models for name, _, extras in _hints(kind) for extra in extras if isinstance(extra, Only)}


def _one_of(choices: Collection[str]) -> Valid:
    return Valid(f"one of {', '.join(choices)}", choices.__contains__)


def _of_type(hint: Any) -> Valid:
    kinds = get_args(hint) or (hint,)
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), None)
    if choices:
        return Valid(f"None or one of {', '.join(choices)}", (None, *choices).__contains__)
    if any(get_origin(kind) is tuple for kind in (hint, *kinds)):  # the elements are checked where they are used
        return Valid("", lambda value: True)
    words = {str: "text", bool: "true or false", int: "an integer", float: "a number", type(None): "None"}
    expected = " or ".join(words.get(kind, str(kind)) for kind in kinds)
    return Valid(expected, lambda value: type(value) in kinds)


@cache
def float_fields(kind: Any) -> tuple[str, ...]:
    """Return the fields of a dataclass that take a number that need not be an integer."""
    return tuple(name for name, plain, _ in _hints(kind) if float in (plain, *get_args(plain)))


def make_plain(settings: DataclassInstance) -> None:
    """Store the values of settings as JSON can: NumPy's numbers as Python's, lists as tuples, paths as text."""
    for field in fields(settings):
        value = plain(getattr(settings, field.name))
        if type(value) is int and field.name in float_fields(type(settings)):
            value = float(value)  # else equal settings would be stored in two ways
        object.__setattr__(settings, field.name, value)


def plain(value: object) -> object:
    """Return a value as JSON can store it, with tuples for lists."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    if isinstance(value, Mapping):
        return {key: plain(own) for key, own in value.items()}
    return str(value) if isinstance(value, PathLike) else value


def require(name: str, value: object, expected: str, is_valid: Callable[[Any], object]) -> None:
    """Raise ValueError naming the expected values unless this one is valid."""
    try:
        valid = is_valid(value)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}{did_you_mean(value, expected)}")
