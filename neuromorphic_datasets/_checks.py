"""Checks of arguments: each returns the checked value or raises, naming the argument."""

import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np


def integer(name: str, value, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int within [minimum, maximum]; a bool is not an integer."""
    wanted = f"an integer >= {minimum}" if maximum is None else f"an integer in [{minimum}, {maximum}]"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return int(value)


def fraction(name: str, value) -> float:
    """Return `value` as a float within [0, 1)."""
    wanted = "a number >= 0 and < 1"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return float(value)


def folder(name: str, value) -> Path | None:
    """Return `value` as a Path with ``~`` expanded, or None."""
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path or None, got {value!r} of type {type(value).__name__}")
    return Path(value).expanduser()


def sensor_size(value) -> tuple[int, int, int]:
    """Return `value` as (width, height, polarities), each an int >= 1."""
    try:
        width, height, polarities = value
    except (TypeError, ValueError):
        raise TypeError(f"sensor_size: expected (width, height, polarities), got {value!r}") from None
    names = ("width", "height", "polarities")
    return tuple(
        integer(f"sensor_size: {name}", side, 1) for name, side in zip(names, (width, height, polarities), strict=True)
    )


def positive(name: str, value) -> float:
    """Return `value`, a finite number > 0."""
    wanted = "a finite number > 0"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected {wanted}, got {value!r} of type {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return value


def labels(name: str, value, n_classes: int) -> np.ndarray:
    """Return `value` as a new int64 array of shape (n,), each in [0, n_classes - 1]."""
    array = np.asarray(value)
    wanted = f"integers in [0, {n_classes - 1}]"
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise TypeError(f"{name}: expected {wanted}, of shape (n,), got {array.dtype} of shape {array.shape}")
    if len(array) and not 0 <= array.min() <= array.max() < n_classes:
        place = int(((array < 0) | (array >= n_classes)).argmax())
        raise ValueError(f"{name}: expected {wanted}, got {array[place]} for recording {place}")
    return array.astype(np.int64)


def columns(value) -> str | None:
    """Return `value`, the letters t, x, y and p in some order, or None."""
    if value is not None and (not isinstance(value, str) or sorted(value) != list("ptxy")):
        raise ValueError(f"columns: expected the letters t, x, y and p in some order, got {value!r}")
    return value
