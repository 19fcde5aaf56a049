"""What readers return, and what holds for every recording."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._events import LATEST, is_on, refuse, whole

# Equal to tonic.io.events_struct, whose import takes seconds; a test compares them.
READ_DTYPE = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", bool)])
"""One event: column, row, time in µs, polarity (True is ON)."""


class RecordingError(ValueError):
    """A file is no recording, or a damaged one; the message names the file and the place.

    Example:
        >>> import tempfile
        >>> from neuromorphic_datasets import read_events
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "recording.bin")
        ...     _ = path.write_bytes(bytes([12, 30, 0x80, 0, 50, 12, 30]))
        ...     try:
        ...         read_events(path)
        ...     except RecordingError as error:
        ...         print(str(error).removeprefix(folder))
        /recording.bin: byte 5: expected 5 bytes per event, got 2
    """


@dataclass(frozen=True)
class Recording:
    """Events of one file.

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


def packed(x, y, t, p) -> np.ndarray:
    """Put columns of whole numbers, of any dtype, into a structured array.

    Args:
        x, y: columns and rows of pixels, in [-32768, 32767].
        t: times, µs.
        p: polarities, each 0 or 1, or each -1 or 1; 1 is ON.

    Returns:
        Structured array of `READ_DTYPE`, as long as t.

    Raises:
        TypeError: a column holds no numbers.
        ValueError: a column has another length, or a value that does not fit.

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
    """Continue int64 times that wrap around after 2**bits µs."""
    wraps = np.cumsum(np.diff(t, prepend=t[:1]) < -(1 << (bits - 1)))
    return t + (wraps << bits)


def body(path: Path, comment: bytes) -> tuple[list[str], int, np.ndarray]:
    """Split a file into its leading lines of text, each starting with `comment`, and what follows.

    Returns the lines, the offset of what follows, and that as uint8.
    """
    content = np.memmap(path, np.uint8, "r")
    lines, offset = [], 0
    while content[offset : offset + len(comment)].tobytes() == comment:
        line = _line(content, offset)
        # A line that is no text is data whose first byte looks like a comment's.
        if not (line.endswith(b"\n") and line.isascii() and line.decode().strip("\r\n\t").isprintable()):
            break
        lines.append(line.decode().strip())
        offset += len(line)
    return lines, offset, content[offset:]


def _line(content: np.ndarray, offset: int, longest: int = 1 << 16) -> bytes:
    piece = content[offset : offset + longest].tobytes()
    return piece[: piece.find(b"\n") + 1]


def checked(path: Path, recording: Recording, sensor_size: tuple[int, int, int] | None) -> Recording:
    """Return the recording if it has events, in order of time and on the sensor."""
    from .._kernels import first_descent, first_off

    events = recording.events
    if len(events) == 0:
        raise RecordingError(f"{path}: there are no events in it")
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
