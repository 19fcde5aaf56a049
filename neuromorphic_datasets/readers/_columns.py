"""Columns of numbers with names: which is which, in which unit, and as events."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from .._events import BOUNDS, LATEST, POLARITIES, ROUND, SET_UNIT, Events, RecordingError, refuse
from ._recording import Losses, Options, in_order, ordering

_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
FIELDS = {name: field for field, names in _NAMES.items() for name in names}
_PER_US = {"s": 1e-6, "ms": 1e-3, "us": 1, "ns": 1000}
UNITS = tuple(_PER_US)


def by_field(path: Path, names: Collection[str]) -> tuple[dict[str, str], str | None]:
    """Return the name of the column of each of x, y, t and p, and the unit of time that a name states, if any.

    Sensors of one row have no y.

    Raises:
        RecordingError: there is not one column for each.
    """
    found, unit = [], None
    for name in names:
        field, stated = _field(name)
        if field:
            found.append((field, name))
            unit = unit or stated
    if sorted(field for field, _ in found) not in (list("ptxy"), list("ptx")):
        raise RecordingError(f"{path}: expected columns x, y, t and p, one each, got {list(names)}; {_known()}")
    return dict(found), unit


def _known() -> str:
    return ", ".join(f"{field} may be named {', '.join(names[1:])}" for field, names in _NAMES.items())


def _field(name: str) -> tuple[str | None, str | None]:
    """Return the field that a name stands for, and the unit at its end: "timestamp_us", "t (s)", "time[ns]"."""
    plain = name.strip().lower()
    if plain in FIELDS:
        return FIELDS[plain], None
    match = re.fullmatch(r"(\w+?)[_ ]*[(\[]?\b_?(s|ms|us|µs|ns)[)\]]?", plain) or re.fullmatch(
        r"(\w+?)_(s|ms|us|µs|ns)", plain
    )
    if match and FIELDS.get(match[1]) == "t":
        return "t", match[2].replace("µ", "u")
    return None, None


def unit_of(path: Path, stated: str | None, options: Options) -> str:
    """Return the unit of a file's times: what it states, or what the caller says, or µs.

    Raises:
        RecordingError: the two differ.
    """
    if stated and options.time_unit and stated != options.time_unit:
        raise RecordingError(
            f"{path}: expected time_unit {stated!r}, as its times are named, got {options.time_unit!r}", "given"
        )
    return stated or options.time_unit or "us"


def in_us(t: np.ndarray, unit: str) -> np.ndarray:
    """Return times in µs, to the nearest one; halves of ns round up.

    Raises:
        ValueError: a time is beyond 2**56 µs.
    """
    if unit == "us" or t.dtype.kind not in "iuf":
        return t
    if t.dtype.kind == "f":
        return np.floor(t / _PER_US[unit] + 0.5)
    factor = 1 if unit == "ns" else round(1 / _PER_US[unit])
    refuse(t, np.abs(t.astype(np.float64)) < LATEST // factor, f"a time within 2**56 µs, in {unit}")
    whole = t.astype(np.int64)
    return (whole + 500) // 1000 if unit == "ns" else whole * factor


def events_of(
    path: Path, columns: Mapping[str, np.ndarray], unit: str, options: Options, losses: Losses, number: int = 0
) -> Events:
    """Return columns by field as events; `number` is that of the first of them in the file.

    Raises:
        RecordingError: a value is no coordinate, time or polarity, unless the options are lenient.
    """
    columns = {field: np.asarray(column) for field, column in columns.items()}
    try:
        _check_polarities(columns["p"], losses)
        columns["t"] = in_us(columns["t"], unit)
        if options.lenient:
            columns = _valid(columns, losses, number)
        return Events.compact(columns["x"], columns.get("y"), columns["t"], columns["p"])
    except (TypeError, ValueError) as error:
        text = re.sub(r"^event (\d+)", lambda match: f"event {int(match[1]) + number}", str(error))
        has_fractions = text.endswith(ROUND)
        text = text.removesuffix(ROUND) + (SET_UNIT if has_fractions else "")
        raise RecordingError(
            f"{path}: {text}{in_order(options)}", "time_unit" if has_fractions else ordering(options)
        ) from None


def _check_polarities(p: np.ndarray, losses: Losses) -> None:
    """Raise ValueError if OFF is -1 in one piece of a recording and 0 in another."""
    if p.dtype.kind not in "iubf" or losses.lenient:
        return
    off = p[(p == 0) | (p == -1)]
    if losses.off is None and len(off):
        losses.off = int(off[0])
    if losses.off is not None:
        refuse(p, p != -1 - losses.off, POLARITIES)


def _valid(columns: dict[str, np.ndarray], losses: Losses, number: int) -> dict[str, np.ndarray]:
    """Return the rows whose values are coordinates, times and polarities."""
    valid = np.ones(len(columns["t"]), bool)
    for field, column in columns.items():
        if column.dtype.kind not in "iubf" or column.shape != valid.shape:
            return columns  # not a column of numbers, which is an error of its own
        exact = column.astype(np.float64)
        with np.errstate(invalid="ignore"):
            right = np.isfinite(exact) & (exact == np.trunc(exact))
        if field == "p":
            right &= np.isin(exact, (-1, 1) if (exact == -1).sum() > (exact == 0).sum() else (0, 1))
        else:
            right &= (exact >= BOUNDS[field][0]) & (exact <= BOUNDS[field][1])
        if not right[valid].all():
            event = int((valid & ~right).argmax())
            losses.add(
                int((valid & ~right).sum()), f"event {number + event}: expected a valid {field}, got {column[event]}"
            )
        valid &= right
    return {field: column[valid] for field, column in columns.items()}
