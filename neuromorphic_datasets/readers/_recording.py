"""The result of readers, and helpers and checks for every recording."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from .._events import LATEST, RecordingError, is_on, refuse, whole

# Equal to tonic.io.events_struct, whose import takes seconds; a test compares them.
READ_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
"""An event: column, row, time in µs, polarity (True is ON)."""


@dataclass(frozen=True)
class Recording:
    """The events of a file.

    Attributes:
        events: structured array of `READ_DTYPE`.
        sensor_size: (width, height, polarities) as the file states it, or None.

    Example:
        >>> recording = Recording(packed([3, 3], [4, 5], [10, 25], [1, 0]), (128, 128, 2))
        >>> recording.events["p"], recording.sensor_size
        (array([ True, False]), (128, 128, 2))
    """

    events: np.ndarray
    sensor_size: tuple[int, int, int] | None = None


_BOUNDS = {"x": (-(1 << 15), (1 << 15) - 1), "y": (-(1 << 15), (1 << 15) - 1), "t": (-LATEST, LATEST)}


def packed(x: ArrayLike, y: ArrayLike, t: ArrayLike, p: ArrayLike) -> np.ndarray:
    """Combine columns of whole numbers, of any dtype, into a structured array.

    Args:
        x: columns of pixels, in [-32768, 32767].
        y: rows of pixels, likewise.
        t: times, µs.
        p: polarities, all 0 or 1, or all -1 or 1; 1 is ON.

    Returns:
        Structured array of `READ_DTYPE`, as long as t.

    Raises:
        TypeError: a column is not numeric.
        ValueError: the lengths of columns differ, or a value is out of range or not whole.

    Example:
        >>> packed([3, 3], [4, 5], [10, 25], [1, 0])[1].item()
        (3, 5, 25, False)
        >>> packed([3.5], [4], [10], [1])
        Traceback (most recent call last):
        ValueError: event 0: expected an integer x, got 3.5
    """
    columns = {"x": np.asarray(x), "y": np.asarray(y), "t": np.asarray(t), "p": np.asarray(p)}
    shapes = {field: column.shape for field, column in columns.items()}
    if columns["t"].ndim != 1 or len(set(shapes.values())) > 1:
        raise ValueError(f"expected columns of one length, got {shapes}")
    columns = {field: whole(field, column) for field, column in columns.items() if len(column)}
    for field, (low, high) in _BOUNDS.items():
        column = columns.get(field, np.zeros(0))
        if len(column) and not low <= column.min() <= column.max() <= high:
            refuse(column, (column >= low) & (column <= high), f"{field} in [{low}, {high}]")
    events = np.empty(shapes["t"], READ_DTYPE)
    for field, column in columns.items():
        events[field] = is_on(column) if field == "p" else column
    return events


def unwrapped(t: np.ndarray, bits: int) -> np.ndarray:
    """Unwrap int64 times that wrap around after 2**bits µs."""
    wraps = np.cumsum(np.diff(t, prepend=t[:1]) < -(1 << (bits - 1)))
    return t + (wraps << bits)


def body(path: Path, comment: bytes) -> tuple[list[str], int, np.ndarray]:
    """Split a file into its leading lines of text, each starting with `comment`, and the data after them.

    Returns the lines, the offset of the data, and the data as uint8.
    """
    content = np.memmap(path, np.uint8, "r")
    lines, offset = [], 0
    while content[offset : offset + len(comment)].tobytes() == comment:
        line = _line(content, offset)
        # A line that is not text is data that happens to start like a comment.
        if not (line.endswith(b"\n") and line.isascii() and line.decode().strip("\r\n\t").isprintable()):
            break
        lines.append(line.decode().strip())
        offset += len(line)
    return lines, offset, content[offset:]


def _line(content: np.ndarray, offset: int, longest: int = 1 << 16) -> bytes:
    piece = content[offset : offset + longest].tobytes()
    return piece[: piece.find(b"\n") + 1]


def checked(path: Path, recording: Recording, sensor_size: tuple[int, int, int] | None) -> Recording:
    """Return the recording; raise RecordingError unless it has events, in order of time and on the sensor."""
    from .._kernels import first_descent, first_off

    events = recording.events
    if len(events) == 0:
        raise RecordingError(f"{path}: expected at least one event, got none")
    descent = first_descent(events["t"])
    if descent >= 0:
        before, after = events["t"][descent - 1 : descent + 1]
        raise RecordingError(f"{path}: event {descent}: the time goes back, from {before} to {after} µs")
    size = sensor_size or recording.sensor_size
    width, height = (1 << 15, 1 << 15) if size is None else size[:2]
    event = first_off(events["x"], events["y"], width, height)
    if event >= 0:
        x, y = events["x"][event], events["y"][event]
        raise RecordingError(f"{path}: event {event}: (x={x}, y={y}) is off the sensor of {width} x {height} pixels")
    return recording
