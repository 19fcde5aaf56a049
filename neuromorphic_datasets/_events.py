"""The events of a recording: their type, and checks for events from files and from arrays alike."""

import numpy as np

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
"""An event as Tonic's N-MNIST has it: column, row, time in µs, polarity (1 ON, 0 OFF)."""

# Some 2000 years: no clock that counts µs goes beyond it, but one that counts ns since 1970 does.
LATEST = 1 << 56


class RecordingError(ValueError):
    """A file is not a recording, or is damaged; the message names the file and the position.

    Example:
        >>> import pathlib, tempfile
        >>> from neuromorphic_datasets import read_events
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "recording.bin")
        ...     _ = path.write_bytes(bytes([12, 30, 0x80, 0, 50, 12, 30]))
        ...     try:
        ...         read_events(path)
        ...     except RecordingError as error:
        ...         print(str(error).removeprefix(folder))
        /recording.bin: byte 5: expected 5 bytes per event, got 2
    """


def columns(events: np.ndarray, polarities: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, t and p of a structured array, checked except for the bounds, which `on_sensor` checks.

    All are integers in native byte order; t is int64 and ascending. Without a field y all rows are 0; for a sensor of
    one polarity all polarities are 0.

    Raises:
        TypeError: the array has other fields, or a field is not numeric.
        ValueError: a number is not whole, times descend, or there are two polarities where the sensor has one.
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
            raise ValueError("events: expected one polarity, as the sensor has, got both")
        _off_and_on(p[:1])
        p = np.broadcast_to(np.int8(0), p.shape)
    return x, y, t, p


def _off_and_on(p: np.ndarray) -> np.ndarray:
    try:
        return is_on(p).view(np.int8)
    except ValueError as error:
        raise ValueError(f"events: {error}") from None


def is_on(p: np.ndarray) -> np.ndarray:
    """Return which events are ON; polarities have to be all 0 or 1, or all -1 or 1."""
    off = -1 if (p == -1).any() else 0
    refuse(p, (p == off) | (p == 1), "p to be 0 or 1 in all events, or -1 or 1 in all")
    return p == 1


def on_sensor(x: np.ndarray, y: np.ndarray, p: np.ndarray, sensor_size: tuple[int, int, int]) -> np.ndarray:
    """Return the polarities as 0 and 1; raise a ValueError naming the first event off the sensor, if any."""
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


def _described(events: object) -> str:
    if isinstance(events, np.ndarray):
        return f"{'a masked array, ' if np.ma.isMaskedArray(events) else ''}{events.dtype} of shape {events.shape}"
    return f"{type(events).__name__} {events!r}"[:200]


def whole(field: str, column: np.ndarray) -> np.ndarray:
    """Return a column of whole numbers as integers in native byte order.

    Raises:
        TypeError: it is not numeric.
        ValueError: a number is not whole, or is too large for an int64 or a time; the message names the event.
    """
    if column.dtype.kind not in "iubf" or column.ndim != 1:
        raise TypeError(f"expected a number as {field}, got {column.dtype} of shape {column.shape[1:]}")
    if column.dtype.kind == "b":
        return column.view(np.int8)
    if column.dtype.kind == "f":
        hint = "; times are in µs: multiply seconds by 1e6 and round them" if field == "t" else ""
        refuse(column, np.isfinite(column) & (column == np.trunc(column)), f"an integer {field}", hint)
    if column.dtype.kind == "f" or column.dtype == np.uint64:
        refuse(column, np.abs(column.astype(np.float64)) < LATEST, f"{field} in [-2**56, 2**56]")
        return column.astype(np.int64)
    return column if column.dtype.isnative else column.astype(column.dtype.newbyteorder("="))


def refuse(column: np.ndarray, right: np.ndarray, expected: str, hint: str = "") -> None:
    """Raise a ValueError naming the first event that is not right, if any."""
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
