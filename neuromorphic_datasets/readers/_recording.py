"""Helpers and checks for every recording."""

from pathlib import Path

import numpy as np

from .._events import Events, Recording, RecordingError


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
    descent = first_descent(events.t)
    if descent >= 0:
        before, after = events.t[descent - 1 : descent + 1]
        raise RecordingError(f"{path}: event {descent}: the time goes back, from {before} to {after} µs")
    size = sensor_size or recording.sensor_size
    width, height = (1 << 15, 1 << 15) if size is None else size[:2]
    event = first_off(events.x, events.rows(), width, height)
    if event >= 0:
        x, y = events.x[event], events.rows()[event]
        raise RecordingError(f"{path}: event {event}: (x={x}, y={y}) is off the sensor of {width} x {height} pixels")
    return recording


def empty(size: int) -> Events:
    """Return columns for a decoder to fill."""
    return Events(*(np.empty(size, dtype) for dtype in (np.int16, np.int16, np.int64, np.bool_)))
