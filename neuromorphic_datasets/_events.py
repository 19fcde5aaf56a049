"""The events of a recording: their type, and the checks that every event passes once, from files and arrays alike."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
"""An event as Tonic's N-MNIST has it: column, row, time in µs, polarity (1 ON, 0 OFF).

Recordings of sensors of one row have no field y.
"""

# Some 2000 years: no clock that counts µs goes beyond it, but one that counts ns since 1970 does.
LATEST = 1 << 56
BOUNDS = {"x": (-(1 << 15), (1 << 15) - 1), "y": (-(1 << 15), (1 << 15) - 1), "t": (1 - LATEST, LATEST - 1)}


# The largest part of a recording that "drop" drops; what has more faults is rather no recording of that format.
_MOST_FAULTY = 0.1

# What to do about times that are not whole, in arrays and in files.
ROUND = "; times are in µs: multiply seconds by 1e6 and round them"
SET_UNIT = "; for times in another unit than µs set time_unit"
POLARITIES = "p to be 0 or 1 in all events, or -1 or 1 in all"


class RecordingError(ValueError):
    """A file is not a recording, or is damaged; the message names the file and the position.

    Args:
        message: the file, the position, and the fault.
        remedy: the name of the argument of `EventFolder` that helps: "columns", "time_unit", "place", "sensor_size" or
            "on_error"; "given" if an argument does not suit the file, which is itself undamaged; or None.

    Attributes:
        remedy: likewise.

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
        /recording.bin: byte 5: expected words of 5 bytes to the end, got 2 more
    """

    def __init__(self, message: str, remedy: str | None = None):
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, eq=False)
class Events:
    """Events in columns, from the door of the package to the frames.

    `of` takes users' arrays and `compact` the columns of a file; both check every value. Whether times ascend is
    checked by `of`, and for files by `readers`; whether events are on their sensor depends on the sensor, see `on`.

    Attributes:
        x: columns of pixels, integers of shape (n,).
        y: rows, or None for a sensor of one row.
        t: times, µs, int64.
        p: polarities, 0 OFF and 1 ON, integers or bool.
    """

    x: np.ndarray
    y: np.ndarray | None
    t: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: Any) -> "Events":
        return Events(self.x[chosen], None if self.y is None else self.y[chosen], self.t[chosen], self.p[chosen])

    @classmethod
    def of(cls, events: np.ndarray) -> Self:
        """Return the columns of a structured array of x, y, t and p, or of x, t and p.

        Raises:
            TypeError: the array has other fields, or a field is not numeric.
            ValueError: a number is not whole, times descend, or polarities of -1 are beside others than 1.
        """
        names = getattr(getattr(events, "dtype", None), "names", None) or ()
        if not {"x", "t", "p"} <= set(names) or events.ndim != 1 or np.ma.isMaskedArray(events):
            raise TypeError(f"events: expected a structured array with x, y, t and p, got {described(events)}")
        try:
            x, t, p = (whole(field, events[field]) for field in "xtp")
            y = whole("y", events["y"]) if "y" in names else None
            return cls(x, y, *_ordered(t, p))
        except (TypeError, ValueError) as error:
            raise type(error)(f"events: {error}") from None

    @classmethod
    def compact(cls, x: ArrayLike, y: ArrayLike | None, t: ArrayLike, p: ArrayLike) -> Self:
        """Combine columns of whole numbers, of any dtype, in any order of time, in the smallest dtypes.

        Args:
            x: columns of pixels, in [-32768, 32767].
            y: rows of pixels, likewise, or None.
            t: times, µs.
            p: polarities, all 0 or 1, or all -1 or 1; 1 is ON.

        Raises:
            TypeError: a column is not numeric.
            ValueError: the lengths of columns differ, or a value is out of range or not whole.

        Example:
            >>> Events.compact([3, 3], [4, 5], [10, 25], [1, 0]).structured()[1].item()
            (3, 5, 25, 0)
            >>> Events.compact([3.5], [4], [10], [1])
            Traceback (most recent call last):
            ValueError: event 0: expected an integer x, got 3.5
        """
        given = {"x": x, "y": y, "t": t, "p": p}
        columns = {field: np.asarray(column) for field, column in given.items() if column is not None}
        shapes = {field: column.shape for field, column in columns.items()}
        if columns["t"].ndim != 1 or len(set(shapes.values())) > 1:
            raise ValueError(f"expected columns of one length, got {shapes}")
        if not len(columns["t"]):  # an empty list is an array of floats
            rows = None if y is None else np.zeros(0, np.int16)
            return cls(np.zeros(0, np.int16), rows, np.zeros(0, np.int64), np.zeros(0, bool))
        columns = {field: whole(field, column) for field, column in columns.items()}
        for field, (low, high) in BOUNDS.items():
            if field not in columns:
                continue
            column = columns[field]
            if not low <= column.min() <= column.max() <= high:
                refuse(column, (column >= low) & (column <= high), f"{field} in [{low}, {high}]")
        rows = columns["y"].astype(np.int16) if "y" in columns else None
        return cls(columns["x"].astype(np.int16), rows, columns["t"].astype(np.int64), _is_on(columns["p"]))

    def structured(self) -> np.ndarray:
        """Return a new structured array of `EVENT_DTYPE`, without its field y where there are no rows."""
        from . import _kernels

        fields = [field for field in "xytp" if field != "y" or self.y is not None]
        table = np.empty((len(self), len(fields)), np.int64)
        _kernels.write_rows(self.x, self.rows(), self.t, self.p, table)
        return table.view([(field, np.int64) for field in fields])[:, 0]

    def rows(self) -> np.ndarray:
        """Return y, or rows of 0."""
        return np.broadcast_to(np.int16(0), self.x.shape) if self.y is None else self.y

    def channels(self, polarities: int) -> np.ndarray:
        """Return the channel of each event on a sensor of that many polarities; with one they have to be all the same.

        Raises:
            ValueError: there are two polarities where the sensor has one.
        """
        if polarities > 1 or not len(self):
            return self.p
        if (self.p != self.p[0]).any():
            raise ValueError("events: expected one polarity, as the sensor has, got both")
        if self.p[0] not in (0, 1):
            raise ValueError(f"events: expected {POLARITIES}, got {self.p[0]}")
        return np.broadcast_to(np.int8(0), self.p.shape)

    def on(self, sensor_size: tuple[int, int, int]) -> "Events":
        """Return the events with channels as polarities; raise a ValueError naming the first event off the sensor."""
        on_sensor = Events(self.x, self.y, self.t, self.channels(sensor_size[2]))
        x, y, p = on_sensor.x, on_sensor.rows(), on_sensor.p
        sides = list(zip((x, y, p), sensor_size, strict=True))
        if any(len(column) and not 0 <= column.min() <= column.max() < side for column, side in sides):
            off = np.any([(column < 0) | (column >= side) for column, side in sides], axis=0)
            event = int(off.argmax())
            raise ValueError(
                f"events: event {event} (x={x[event]}, y={y[event]}, p={p[event]}) is off a sensor of size "
                f"{sensor_size}; all count from 0, p is 0 for OFF and 1 for ON"
            )
        return on_sensor


@dataclass(frozen=True)
class Recording:
    """The events of a file.

    Attributes:
        events: in columns.
        sensor_size: (width, height, polarities) as the file states it, or None.
        dropped: the number of faulty events that are left out.
        fault: why the first of them is.
    """

    events: Events
    sensor_size: tuple[int, int, int] | None = None
    dropped: int = 0
    fault: str = ""

    def too_faulty(self) -> str:
        """Return what says that too many events were dropped, or ""."""
        count = self.dropped + len(self.events)
        if self.dropped <= _MOST_FAULTY * count:
            return ""
        return f"{self.dropped} of {count} events are faulty, more than a tenth; the first: {self.fault}"


def described(events: object) -> str:
    """Return in a few words what a user gave in place of events."""
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
        hint = ROUND if field == "t" else ""
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


def _is_on(p: np.ndarray) -> np.ndarray:
    """Return which events are ON; polarities have to be all 0 or 1, or all -1 or 1."""
    others = p[p != 1]
    off = -1 if len(others) and others[0] == -1 else 0
    refuse(p, (p == off) | (p == 1), POLARITIES)
    return p == 1


def _ordered(t: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending times as contiguous int64, and polarities with 0 for OFF, checked in one pass."""
    from . import _kernels

    # Few types, so that few versions of the kernel are compiled.
    t, p = (column if column.dtype in (np.int64, np.int8) else column.astype(np.int64) for column in (t, p))
    times = np.empty(len(t), np.int64)
    descent, has_minus = _kernels.copy_times(t, p, times)
    if descent >= 0:
        raise ValueError(
            f"expected ascending times, got {times[descent]} after {times[descent - 1]} at event {descent}; "
            'sort them: events[np.argsort(events["t"], kind="stable")]'
        )
    if len(times) and not -LATEST < times[0] <= times[-1] < LATEST:
        raise ValueError(f"expected times within 2**56 µs, got {times[0]} to {times[-1]}")
    return times, _is_on(p).view(np.int8) if has_minus else p
