"""Pieces of recordings as recordings of their own, and the rules by which they are cut."""

import csv
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._dataset import EventDataset, StoredDataset, digest, fingerprint_text, is_ours
from ._events import Recording, RecordingError
from ._frames import window_starts
from ._packing import pack


class Interval(NamedTuple):
    """A part of a recording with a label.

    Attributes:
        label: the name or number of a class, as text.
        start: time, µs; the first event of the part is not before it.
        end: time, µs; all events of the part are before it.

    Example:
        >>> Interval("clap", 80_048_239, 85_092_709).label
        'clap'
    """

    label: str
    start: float
    end: float


class ByTime(NamedTuple):
    """Pieces of a length in time."""

    length: float
    overlap: float
    remainder: str

    def bounds(self, t: np.ndarray, number: int) -> list[tuple[int, int]]:
        """Return the first event and the one after the last of each piece of a recording with these times."""
        since, duration = t - t[0], int(t[-1] - t[0])
        stride = self.length - self.overlap
        try:
            starts = window_starts(stride, 0, int(duration // stride) + 1)
        except ValueError as error:
            raise ValueError(f"recording {number}: {error}") from error
        whole = starts + self.length <= duration + 1
        ends = np.searchsorted(since, starts + self.length)
        if self.remainder == "keep":
            whole[np.argmax(ends == len(t)) : np.argmax(ends == len(t)) + 1] = True
        return list(zip(np.searchsorted(since, starts)[whole].tolist(), ends[whole].tolist(), strict=True))


class ByCount(NamedTuple):
    """Pieces of a number of events."""

    length: int
    overlap: int
    remainder: str

    def bounds(self, t: np.ndarray, number: int) -> list[tuple[int, int]]:
        stride = self.length - self.overlap
        found = [(start, start + self.length) for start in range(0, len(t) - self.length + 1, stride)]
        reached = found[-1][1] if found else 0
        if self.remainder == "keep" and reached < len(t):
            found.append((len(found) * stride, len(t)))
        return found


class ByLabel(NamedTuple):
    """Pieces with a label of their own."""

    intervals: list[list[Interval]]
    classes: Sequence[str] | None

    def bounds(self, t: np.ndarray, number: int) -> list[tuple[int, int]]:
        edges = np.array([interval[1:] for interval in self.intervals[number]], float).reshape(-1, 2)
        if not (edges[:, 0] < edges[:, 1]).all():
            raise ValueError(f"intervals: expected start < end in all of recording {number}, got {edges.tolist()}")
        return [tuple(pair) for pair in np.searchsorted(t, edges).tolist()]

    def names(self) -> list[str]:
        """Return the labels in the order of their numbers."""
        occur = {interval.label for own in self.intervals for interval in own}
        if self.classes is None:
            return sorted(occur, key=lambda label: (not label.isdecimal(), label.isdecimal() and int(label), label))
        if odd := sorted(occur - set(self.classes)):
            raise ValueError(f"intervals: expected labels among {list(self.classes)}, got {odd}")
        return list(self.classes)


def by_label(intervals: Sequence[Iterable[Interval | tuple]], classes: Sequence | None) -> ByLabel:
    """Return the rule of annotated intervals; `classes` are their labels in the order of their numbers."""
    try:
        made = [[Interval(str(label), start, end) for label, start, end in own] for own in intervals]
    except (TypeError, ValueError):
        raise ValueError(f"intervals: expected (label, start, end) in lists, got {intervals!r:.200}") from None
    return ByLabel(made, None if classes is None else [str(label) for label in classes])


Rule = ByTime | ByCount | ByLabel


class Pieces(StoredDataset):
    """Pieces of another set's recordings; `cut` makes them. `titles` name the classes otherwise than their labels."""

    def __init__(
        self,
        whole: EventDataset,
        rule: Rule,
        folder: Path,
        titles: Sequence[str] | None = None,
        on_error: str = "raise",
    ):
        self._whole, self._rule = whole, rule
        self._packed, places = pack(whole, folder, on_error=on_error)
        classes = rule.names() if isinstance(rule, ByLabel) else whole.classes
        self._pieces: list[tuple[int, int, int]] = []
        self._sources: list[int] = []
        targets: list[int] = []
        empty, without = 0, 0
        for number, place in enumerate(places.tolist()):
            if place < 0:
                continue
            bounds = rule.bounds(self._packed.events(place).t, number)
            if isinstance(rule, ByLabel):
                labels = [classes.index(interval.label) for interval in rule.intervals[number]]
            else:
                labels = [int(whole.targets[number])] * len(bounds)
            filled = [(edges, label) for edges, label in zip(bounds, labels, strict=True) if edges[0] < edges[1]]
            self._pieces += [(place, *edges) for edges, _ in filled]
            self._sources += [number] * len(filled)
            targets += [label for _, label in filled]
            empty += len(bounds) - len(filled) if isinstance(rule, ByLabel) else 0
            without += not filled
        if not targets:
            t = self._packed.events(0).t
            what = "intervals that have events" if isinstance(rule, ByLabel) else "recordings longer than a piece"
            raise ValueError(
                f"{whole.name}: expected {what}, in µs, got none; the first recording is from {t[0]} to {t[-1]} µs"
            )
        if empty or without:
            warnings.warn(
                f"{whole.name}: left out: intervals without events: {empty}; recordings without a piece: {without} of "
                f"{len(whole)}",
                stacklevel=3,
            )
        name, size = f"{whole.name}-pieces", self._packed.sensor_size
        super().__init__(name, whole.split, size, list(titles or classes), targets, whole.transform)

    @property
    def fingerprint(self) -> str:
        whole = fingerprint_text(self._whole) if is_ours(type(self)) else ""
        return whole and digest([whole, self._whole.targets.tolist(), self._rule])

    @property
    def groups(self) -> np.ndarray:
        """The number of the whole of each piece: pieces of one recording are not divided."""
        return np.array(self._sources)

    @property
    def reading(self) -> dict[str, Any]:
        return self._whole.reading

    @property
    def parts(self) -> dict[str, np.ndarray]:
        sources = np.array(self._sources)
        return {name: np.flatnonzero(np.isin(sources, own)) for name, own in self._whole.parts.items()}

    def read(self, position: int, lenient: bool = False) -> Recording:
        place, start, end = self._pieces[position]
        return Recording(self._packed.events(place, start, end))

    def where(self, position: int) -> str:
        _, start, end = self._pieces[position]
        return f"{self._whole.where(self._sources[position])}, events {start} to {end - 1}"


def read_intervals(path: str | os.PathLike) -> list[Interval]:
    r"""Read the annotation of a recording, as DVS Gesture has it: a table of class, startTime_usec and endTime_usec.

    Args:
        path: a .csv with these names in its first line.

    Returns:
        One interval per line.

    Raises:
        FileNotFoundError: there is no such file.
        RecordingError: it is no such table.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels.csv")
        ...     _ = path.write_text("class,startTime_usec,endTime_usec\n2,80048239,85092709\n")
        ...     read_intervals(path)
        [Interval(label='2', start=80048239, end=85092709)]
    """
    names = ("class", "startTime_usec", "endTime_usec")
    with open(path, newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        if not set(names) <= set(table.fieldnames or ()):
            raise RecordingError(f"{path}: expected columns {', '.join(names)}, got {table.fieldnames}")
        rows = [[row[name] for name in names] for row in table]
    try:
        return [Interval(label.strip(), int(start), int(end)) for label, start, end in rows]
    except (AttributeError, TypeError, ValueError) as error:
        raise RecordingError(f"{path}: expected times in µs, whole numbers, got {error}") from None
