"""Recordings cut into pieces: by time, by the number of events, and by annotated label."""

from collections.abc import Iterable, Sequence
from numbers import Real
from os import PathLike

from . import _checks
from ._cache import user_folder
from ._catalogue import load, names
from ._dataset import EventDataset
from ._frames import check_remainder
from ._packing import check_on_error
from ._pieces import ByCount, ByTime, Interval, Pieces, Rule, by_label
from ._sources import Source, opened


def cut(
    recordings: Source,
    *,
    time_window: float | None = None,
    n_events: int | None = None,
    overlap: float = 0,
    intervals: Sequence[Iterable[Interval | tuple]] | None = None,
    classes: Sequence[str] | None = None,
    remainder: str = "drop",
    on_error: str = "raise",
    cache: str | PathLike | None = None,
) -> EventDataset:
    """Cut recordings into pieces, each a recording of its own, with the label of the whole or of its interval.

    Args:
        recordings: a data set, or what `loaders` takes in place of one; its transform is applied to the pieces.
        time_window: the length of a piece, µs, > 0; the first starts with the first event. Or
        n_events: the number of events of a piece, >= 1. Or
        intervals: for each recording, (label, start, end) of its pieces in µs, as `read_intervals` returns them.
        overlap: how far a piece reaches into the next: µs, < time_window, or events, < n_events.
        classes: with intervals: their labels, in the order of their numbers; None sorts those that occur.
        remainder: "drop" or "keep" the last piece, which is shorter.
        on_error, cache: as in `loaders`.

    Returns:
        A data set of the pieces that have events, with the times of the whole.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range, or there is no piece.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from neuromorphic_datasets import EVENT_DTYPE, EventList
        >>> events = np.array([(0, 0, t, 1) for t in range(10)], EVENT_DTYPE)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pieces = cut(EventList([events], [0]), n_events=4, overlap=2, cache=folder)
        ...     [piece["t"].tolist() for piece, _ in (pieces[i] for i in range(len(pieces)))]
        [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    """
    if sum(value is not None for value in (time_window, n_events, intervals)) != 1:
        raise ValueError("time_window, n_events and intervals: expected exactly one of them")
    check_remainder(remainder)
    check_on_error(on_error)
    folder = _checks.folder("cache", cache) or user_folder()
    if isinstance(recordings, str) and recordings in names():
        whole = load(recordings, "all")
    else:
        whole = opened(recordings, names(), cache=folder, on_error=on_error)
    if intervals is not None:
        if overlap or remainder != "drop":
            raise ValueError(f"intervals: expected no overlap and remainder with them, got {overlap!r}, {remainder!r}")
        if len(intervals) != len(whole):
            raise ValueError(f"intervals: expected {len(whole)} lists, one per recording, got {len(intervals)}")
        rule: Rule = by_label(intervals, classes)
    elif classes is not None:
        raise ValueError(f"classes: expected None without intervals, got {classes!r}")
    elif time_window is not None:
        rule = ByTime(_checks.positive("time_window", time_window), _less("overlap", overlap, time_window), remainder)
    else:
        count = _checks.integer("n_events", n_events, 1)
        rule = ByCount(count, _checks.integer("overlap", overlap, 0, count - 1), remainder)
    return Pieces(whole, rule, folder, on_error=on_error)


def _less(name: str, value: float, limit: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < limit:
        raise ValueError(f"{name}: expected a number >= 0 and < {limit}, got {value!r}")
    return value
