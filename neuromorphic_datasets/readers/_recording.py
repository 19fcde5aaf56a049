"""Recordings as they are read: options, pieces of events, and the checks of every piece."""

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._events import Events, RecordingError


@dataclass(frozen=True)
class Options:
    """What a caller says of a file.

    Attributes:
        sensor_size: as in `read_events`.
        columns, time_unit, place, clock_tolerance: likewise.
        lenient: leave out faulty events.
        piece: the number of events, or of a format's words, per piece; None reads all at once.
    """

    sensor_size: tuple[int, int, int] | None = None
    columns: str | None = None
    time_unit: str | None = None
    place: str | None = None
    clock_tolerance: int = 0
    lenient: bool = False
    piece: int | None = None


def in_order(options: Options) -> str:
    """Return a question for the message of a fault, if the caller says what the columns are."""
    return "" if options.columns is None else f"; are the columns in the order {options.columns!r}?"


def ordering(options: Options) -> str | None:
    """Return the remedy of such a fault."""
    return None if options.columns is None else "columns"


@dataclass
class Losses:
    """What is known of a recording from piece to piece.

    Attributes:
        count: how many events, or other parts, are left out.
        first: why the first one is.
        off: the value of OFF in a table, -1 or 0, once it is known.
        lenient: whether faulty events are left out.
    """

    count: int = 0
    first: str = ""
    off: int | None = None
    lenient: bool = False

    def add(self, count: int, reason: str) -> None:
        self.first = self.first or reason
        self.count += count

    def described(self) -> str:
        """Return in words how many events are left out, and why the first one is."""
        return f"faults dropped: {self.count}; the first: {self.first}"


@dataclass
class Stream:
    """A recording that is being read.

    Attributes:
        sensor_size: (width, height, polarities) as the file states it, or None.
        pieces: a function that returns the events, in pieces, in the order of the file, and notes what it leaves out.
        content: the file mapped into memory, or None.
    """

    sensor_size: tuple[int, int, int] | None
    pieces: Callable[[Losses], Iterator[Events]]
    content: np.ndarray | None = None

    def release(self) -> None:
        """Give back the memory of what has been read of a mapped file; it is mapped again where it is needed."""
        base: Any = self.content
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            base.madvise(mmap.MADV_DONTNEED)


def whole_words(path: Path, size: int, word: int, offset: int, options: Options, losses: Losses) -> int:
    """Return the number of whole words in `size` bytes from an offset in a file.

    Raises:
        RecordingError: there are bytes left, unless the options are lenient.
    """
    excess = size % word
    if excess:
        reason = f"byte {offset + size - excess}: expected words of {word} bytes to the end, got {excess} more"
        if not options.lenient:
            raise RecordingError(f"{path}: {reason}")
        losses.add(1, reason)
    return size // word


def cuts(count: int, piece: int | None) -> Iterator[slice]:
    """Return the slices of `piece` items each that cover `count` of them."""
    step = piece or max(count, 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


class Clock:
    """Times that wrap around after 2**bits µs, from piece to piece."""

    def __init__(self, bits: int):
        self._bits, self._wraps = bits, 0
        self._last: np.ndarray | None = None

    def unwrapped(self, t: np.ndarray) -> np.ndarray:
        """Unwrap int64 times."""
        if not len(t):
            return t
        first = t[:1] if self._last is None else self._last
        wraps = self._wraps + np.cumsum(np.diff(t, prepend=first) < -(1 << (self._bits - 1)))
        self._wraps, self._last = int(wraps[-1]), t[-1:]
        return t + (wraps << self._bits)


def body(path: Path, comment: bytes) -> tuple[list[str], int, np.ndarray]:
    """Split a file into its leading lines of text, each starting with `comment`, and the data after them.

    Returns the lines, the offset of the data, and the data as uint8.
    """
    content = np.asarray(np.memmap(path, np.uint8, "r"))
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


def empty(size: int) -> Events:
    """Return columns for a decoder to fill."""
    return Events(*(np.empty(size, dtype) for dtype in (np.int16, np.int16, np.int64, np.bool_)))


def checked(path: Path, stream: Stream, options: Options, losses: Losses) -> Iterator[Events]:
    """Yield the pieces of a recording, in order of time and on the sensor.

    With lenient options, events off the sensor are left out, and the fewest events with which times descend.

    Raises:
        RecordingError: naming the file and the event.
    """
    size = options.sensor_size or stream.sensor_size
    width, height = (1 << 15, 1 << 15) if size is None else size[:2]
    number, latest, only = 0, np.iinfo(np.int64).min, None
    pieces = stream.pieces(losses)
    if options.lenient:  # which events are in disorder is known only from all of them
        pieces = iter([joined(list(pieces))])
    for read in pieces:
        events = _on_sensor(path, read, (width, height), number, options, losses if options.lenient else None)
        if len(events):
            t = _held(events.t, latest, options.clock_tolerance)
            events = _ascending(
                path,
                Events(events.x, events.y, t, events.p),
                latest,
                number,
                options,
                losses if options.lenient else None,
            )
        if len(events):
            latest = int(events.t[-1])
            if size is not None and size[2] == 1:
                only = _one_polarity(path, events.p, only)
            yield events
        number += len(read)
        if options.piece:
            stream.release()


def _one_polarity(path: Path, p: np.ndarray, only: int | None) -> int:
    """Return the polarity of all events of a sensor of one; RecordingError if there are two."""
    only = int(p[0]) if only is None else only
    if (p != only).any():
        raise RecordingError(f"{path}: expected events of one polarity, as the sensor has, got both")
    return only


def _on_sensor(
    path: Path, events: Events, sides: tuple[int, int], number: int, options: Options, losses: Losses | None
) -> Events:
    from .._kernels import first_off

    width, height = sides
    x, y = events.x, events.rows()
    event = first_off(x, y, width, height)
    if event < 0:
        return events
    place = f"(x={x[event]}, y={y[event]})" if events.y is not None else f"x={x[event]}"
    if width == height == 1 << 15:
        reason = f"event {number + event}: expected coordinates in [0, 32767], got {place}"
    else:
        reason = f"event {number + event}: {place} is off the sensor of {width} x {height} pixels"
    if losses is None:
        raise RecordingError(f"{path}: {reason}{in_order(options)}", ordering(options))
    on = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    losses.add(len(events) - int(on.sum()), reason)
    return events[on]


def _held(t: np.ndarray, latest: int, tolerance: int) -> np.ndarray:
    """Return times that stand still where they step back by at most the tolerance."""
    if not tolerance:
        return t
    reached = np.maximum(np.maximum.accumulate(t), latest)
    return np.where(t >= reached - tolerance, reached, t)


def _ascending(path: Path, events: Events, latest: int, number: int, options: Options, losses: Losses | None) -> Events:
    from .._kernels import first_descent, longest_ascent

    t = events.t
    event = 0 if t[0] < latest else first_descent(t)
    if event < 0:
        return events
    before = t[event - 1] if event else latest
    reason = f"event {number + event}: the time goes back, from {before} to {t[event]} µs"
    if losses is None:
        raise RecordingError(f"{path}: {reason}{in_order(options)}", ordering(options))
    kept = longest_ascent(t)
    losses.add(len(t) - int(kept.sum()), reason)
    return events[kept]


def joined(pieces: list[Events]) -> Events:
    """Return pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        return empty(0)
    rows = None if pieces[0].y is None else np.concatenate([piece.rows() for piece in pieces])
    x, t, p = (np.concatenate([getattr(piece, name) for piece in pieces]) for name in "xtp")
    return Events(x, rows, t, p)
