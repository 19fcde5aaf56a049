"""Checks of arguments: each returns the checked value, or raises an error that names the argument."""

import os
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int within [minimum, maximum]; a bool is not an integer."""
    if type(value) is int and value >= minimum and maximum is None:  # as nearly always; frames are made in 20 µs
        return value
    wanted = f"an integer >= {minimum}" if maximum is None else f"an integer in [{minimum}, {maximum}]"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return number


def fraction(name: str, value: object) -> float:
    """Return `value` as a float within [0, 1)."""
    return _number(name, value, "a number >= 0 and < 1", lambda number: 0 <= number < 1)


def positive_fraction(name: str, value: object) -> float:
    """Return `value` as a float within (0, 1]."""
    return _number(name, value, "a number > 0 and <= 1", lambda number: 0 < number <= 1)


def _number(name: str, value: object, wanted: str, is_valid: Callable[[float], bool]) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    if not is_valid(float(value)):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def folder(name: str, value: object) -> Path | None:
    """Return `value` as a Path with ``~`` expanded, or None."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path or None, got {value!r} of type {type(value).__name__}")
    return Path(value).expanduser()


def sensor_size(value: Any) -> tuple[int, int, int]:
    """Return `value` as (width, height, polarities), each an int >= 1."""
    try:
        width, height, polarities = value
    except (TypeError, ValueError):
        raise TypeError(f"sensor_size: expected (width, height, polarities), got {value!r}") from None
    sides = {"width": width, "height": height, "polarities": polarities}
    width, height, polarities = (integer(f"sensor_size: {name}", side, 1) for name, side in sides.items())
    return width, height, polarities


def sides(name: str, value: Any) -> tuple[int, int]:
    """Return `value`, (height, width) or one number for both, as two ints >= 1."""
    pair = (value, value) if isinstance(value, Integral) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise TypeError(f"{name}: expected (height, width) or a number, got {value!r}")
    height, width = (integer(name, side, 1) for side in pair)
    return height, width


def positive(name: str, value: object) -> float:
    """Return `value`, a finite number > 0, as an int or a float."""
    wanted = "a finite number > 0"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    number = int(value) if isinstance(value, Integral) else float(value)  # an integer keeps the edges integers
    if not 0 < number < float("inf"):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return number


def labels(name: str, value: ArrayLike, n_classes: int) -> np.ndarray:
    """Return `value` as a new int64 array of shape (n,), each in [0, n_classes - 1]."""
    array = np.asarray(value)
    wanted = f"integers in [0, {n_classes - 1}]"
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise TypeError(f"{name}: expected {wanted}, of shape (n,), got {array.dtype} of shape {array.shape}")
    if len(array) and not 0 <= array.min() <= array.max() < n_classes:
        recording = int(((array < 0) | (array >= n_classes)).argmax())
        raise ValueError(f"{name}: expected {wanted}, got {array[recording]} for recording {recording}")
    return array.astype(np.int64)


def columns(value: object) -> str | None:
    """Return `value`, the letters t, x, y and p in any order, y perhaps missing, or None."""
    if value is not None and (not isinstance(value, str) or sorted(value) not in (list("ptxy"), list("ptx"))):
        raise ValueError(
            f'columns: expected the letters t, x, y and p in some order, y or not, such as "txyp", got {value!r}'
        )
    return value
