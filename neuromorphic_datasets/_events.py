"""Checks of the events of a recording, from files and from arrays alike."""

import numpy as np

# No clock counts µs beyond it, some 2000 years; one that counts ns since 1970 does.
LATEST = 1 << 56


def columns(events: np.ndarray, polarities: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, t and p of a structured array, checked but for what `on_sensor` checks.

    All are integers in the machine's byte order, t is int64 and ascending. Without a field y all rows are 0; for a
    sensor of one polarity all polarities are.

    Raises:
        TypeError: the array has other fields, or a field holds no numbers.
        ValueError: a number is not whole, times descend, or polarities are two where the sensor has one.
    """
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not {"x", "t", "p"} <= set(names) or events.ndim != 1 or np.ma.isMaskedArray(events):
        raise TypeError(f"events: expected a structured array with x, y, t and p, got {_described(events)}")
    try:
        x, t, p = (whole(field, events[field]) for field in "xtp")
        y = whole("y", events["y"]) if "y" in names else np.broadcast_to(np.int16(0), x.shape)
    except (TypeError, ValueError) as error:
        raise type(error)(f"events: {error}") from None
    t = np.ascontiguousarray(t, np.int64)
    _check_order(t)
    if polarities == 1 and len(p):
        if (p != p[0]).any():
            raise ValueError("events: a sensor of one polarity, but events of both")
        _off_and_on(p[:1])
        p = np.broadcast_to(np.int8(0), p.shape)
    return x, y, t, p


def _off_and_on(p: np.ndarray) -> np.ndarray:
    try:
        return is_on(p).view(np.int8)
    except ValueError as error:
        raise ValueError(f"events: {error}") from None


def is_on(p: np.ndarray) -> np.ndarray:
    """Return which events are ON, of polarities that are all 0 or 1, or all -1 or 1."""
    off = -1 if (p == -1).any() else 0
    refuse(p, (p == off) | (p == 1), "p to be 0 or 1 in all events, or -1 or 1 in all")
    return p == 1


def on_sensor(x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor_size: tuple[int, int, int]) -> np.ndarray:
    """Return the polarities as 0 and 1, or raise a ValueError that names the first event off the sensor."""
    if len(p) and p.min() < 0:
        p = _off_and_on(p)
    sides = list(zip((x, y, p), sensor_size, strict=True))
    if any(len(column) and not 0 <= column.min() <= column.max() < side for column, side in sides):
        off = np.any([(column < 0) | (column >= side) for column, side in sides], axis=0)
        event = int(off.argmax())
        raise ValueError(
            f"events: event {event} (x={x[event]}, y={y[event]}, p={p[event]}) is off a sensor of size {sensor_size}; "
            "all count from 0, p is 0 for OFF and 1 for ON"
        )
    return p


def _described(events) -> str:
    if isinstance(events, np.ndarray):
        return f"{'a masked array, ' if np.ma.isMaskedArray(events) else ''}{events.dtype} of shape {events.shape}"
    return f"{type(events).__name__} {events!r}"[:200]


def whole(field: str, column: np.ndarray) -> np.ndarray:
    """Return a column of whole numbers as integers in the machine's byte order.

    Raises:
        TypeError: it holds no numbers.
        ValueError: a number is not whole, or too large for an int64 or a time; the message names the event.
    """
    if column.dtype.kind not in "iubf" or column.ndim != 1:
        raise TypeError(f"expected a number as {field}, got {column.dtype} of shape {column.shape[1:]}")
    if column.dtype.kind == "b":
        return column.view(np.int8)
    if column.dtype.kind == "f":
        hint = "; times are in µs: seconds have to be multiplied by 1e6 and rounded" if field == "t" else ""
        refuse(column, np.isfinite(column) & (column == np.trunc(column)), f"an integer {field}", hint)
    if column.dtype.kind == "f" or column.dtype == np.uint64:
        refuse(column, np.abs(column.astype(np.float64)) < LATEST, f"{field} in [-2**56, 2**56]")
        return column.astype(np.int64)
    return column if column.dtype.isnative else column.astype(column.dtype.newbyteorder("="))


def refuse(column: np.ndarray, right: np.ndarray, expected: str, hint: str = "") -> None:
    """Raise a ValueError that names the first event that is not right, if there is one."""
    if not right.all():
        event = int(right.argmin())
        raise ValueError(f"event {event}: expected {expected}, got {column[event]}{hint}")


def _check_order(t: np.ndarray) -> None:
    from . import _kernels

    descent = _kernels.first_descent(t)
    if descent >= 0:
        raise ValueError(
            f"events: expected ascending times, got {t[descent]} after {t[descent - 1]} at event {descent}; "
            'sort them: events[np.argsort(events["t"], kind="stable")]'
        )
    if len(t) and not -LATEST < t[0] <= t[-1] < LATEST:
        raise ValueError(f"events: expected times within 2**56 µs, got {t[0]} to {t[-1]}")
