"""Frames of a recording that is larger than memory."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from . import _checks
from ._events import Events, Recording
from ._frames import count, window_starts
from .readers import RecordingError, check_effects, options, pieces_of, reads_in_pieces
from .readers._recording import Losses

# Events, or words, of a piece: some megabytes.
_PIECE = 1 << 18


def stream(
    path: str | os.PathLike,
    *,
    time_window: float,
    sensor_size: tuple[int, int, int] | None = None,
    columns: str | None = None,
    time_unit: str | None = None,
    place: str | None = None,
    clock_tolerance: int = 0,
    on_error: str = "raise",
    dtype: DTypeLike = np.int16,
) -> Iterator[np.ndarray]:
    r"""Yield the frames of a recording one by one, in constant memory.

    They are those of ``to_frames(read_events(path), sensor_size, time_window=time_window)``: every event is in one, and
    windows without events give frames of zeros.

    Args:
        path: a file of a format of `read_events`, but .npz, which cannot be read in pieces.
        time_window: µs per frame, > 0.
        sensor_size: (width, height, polarities); None is the size that the file states.
        columns, time_unit, place, clock_tolerance: as in `read_events`.
        on_error: likewise; to "drop" faulty events, at most a tenth, all events are read into memory before the first
            frame, because only then is it known which are out of order.
        dtype: as in `to_frames`.

    Yields:
        Arrays of shape (polarities, height, width), or (polarities, width) for events without y, the caller's own.

    Raises:
        RecordingError, ValueError, TypeError, FileNotFoundError: as `read_events` and `to_frames`, or the file is not
            of a format that can be read in pieces, or more than a tenth of its events are to be dropped. A fault is
            found when its piece is read, after the frames before it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "recording.csv")
        ...     _ = path.write_text("t,x@4,y@2,p\n0,3,1,1\n9,0,0,0\n25,1,1,1\n")
        ...     frames = list(stream(path, time_window=10))
        >>> len(frames), frames[0].shape, int(frames[0].sum()), int(frames[1].sum())
        (3, (2, 2, 4), 2, 0)
    """
    window = _checks.positive("time_window", time_window)
    chosen = options(
        sensor_size=sensor_size,
        columns=columns,
        time_unit=time_unit,
        place=place,
        clock_tolerance=clock_tolerance,
        on_error=on_error,
        piece=_PIECE,
    )
    check_effects(Path(path), chosen)
    if not reads_in_pieces(Path(path)):
        raise ValueError(f"path: expected a format that can be read in pieces, got {path}; use read_events")
    losses = Losses(lenient=chosen.lenient)
    opened, pieces = pieces_of(Path(path), chosen, losses)
    size = chosen.sensor_size or opened.sensor_size
    if size is None:
        raise ValueError(f"sensor_size: expected (width, height, polarities), as {path} does not state it, got None")
    return _frames(_mostly_valid(path, pieces, losses), window, size, np.dtype(dtype))


def _mostly_valid(path: str | os.PathLike, pieces: Iterator[Events], losses: Losses) -> Iterator[Events]:
    """Yield the pieces (a lenient reader has only one); warn if events were left out, raise if there were too many."""
    events = None
    for events in pieces:
        if faults := Recording(events, None, losses.count, losses.first).too_faulty():
            raise RecordingError(f"{path}: {faults}")
        if losses.count:
            warnings.warn(f"{path}: {losses.described()}", stacklevel=3)
        yield events
    if events is None:
        lost = f"; {losses.described()}" if losses.count else ""
        raise RecordingError(f"{path}: expected at least one event, got none{lost}")


def _frames(
    pieces: Iterator[Events], window: float, size: tuple[int, int, int], dtype: np.dtype
) -> Iterator[np.ndarray]:
    shape, first, number, flat = size[::-1], None, 0, False
    frame = np.zeros((1, *shape), dtype)
    for events in pieces:
        flat = events.y is None
        first = int(events.t[0]) if first is None else first
        t = events.t - first
        cut = 0
        while cut < len(t):
            [following] = window_starts(window, number + 1, number + 2)
            if t[cut] >= following:
                yield frame[0, :, 0] if flat else frame[0]
                frame, number = np.zeros((1, *shape), dtype), number + 1
                continue
            end = int(np.searchsorted(t, following))
            count(events, np.array([cut]), np.array([end]), frame)
            cut = end
    yield frame[0, :, 0] if flat else frame[0]
