"""The base class of the data sets, and sets made of others."""

import hashlib
import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.data import Dataset

from . import _checks
from ._cache import Pack
from ._events import Events, Recording, RecordingError
from .readers import read_array


class EventDataset(Dataset):
    """A map-style data set of event recordings; `load` makes them.

    Indexing gives ``(events, label)``: a structured array with the fields x, y, t (µs, ascending) and p (1
    ON, 0 OFF), which is the caller's own copy, and an int. With a `transform`, its result takes the place of the
    events. To make a set of your own, subclass this with an `events` method; `loaders` takes the set in place of a
    name, and checks its events like those of files.

    Attributes:
        name: the name under which `load` knows the set.
        split: the part of the set.
        sensor_size: (width, height, polarities), as in Tonic; sets of sound have height 1. None before the
            recordings of a folder are read, or to take the smallest sensor that all events fit on.
        classes: the name of each label.
        targets: the labels, int64 array of shape (len(self),), each in [0, len(classes) - 1].
        transform: a callable applied to the events, or None; a subclass may define it as a method.
        fingerprint: any string that changes whenever the results of `events` do: an argument, or a property of a
            subclass, not a method. With one, `loaders` keeps the recordings it has read for later runs; if it is
            empty, `loaders` reads all recordings each time.

    Raises:
        IndexError: when indexed beyond its recordings.
        TypeError, ValueError: an argument is of the wrong type or out of range, or a transform or fingerprint is given
            to a subclass that has its own.

    Example:
        >>> class Blinks(EventDataset):
        ...     def events(self, position):
        ...         times = np.arange(position + 1) * 1000
        ...         return np.array([(0, 0, t, 1) for t in times], [(field, np.int64) for field in "xytp"])
        >>> blinks = Blinks("blinks", "train", (1, 1, 2), ["once", "twice"], [0, 1])
        >>> events, label = blinks[1]
        >>> events["t"], blinks.classes[label], len(blinks)
        (array([   0, 1000]), 'twice', 2)
    """

    def __init__(
        self,
        name: str,
        split: str,
        sensor_size: tuple[int, int, int] | None,
        classes: list[str],
        targets: ArrayLike,
        transform: Callable[[np.ndarray], Any] | None = None,
        fingerprint: str = "",
    ):
        for argument, value in (("name", name), ("split", split), ("fingerprint", fingerprint)):
            if not isinstance(value, str):
                raise TypeError(f"{argument}: expected a string, got {value!r} of type {type(value).__name__}")
        if isinstance(classes, str) or not len(classes):
            raise ValueError(f"classes: expected a list of names, got {classes!r}")
        self.name = name
        self.split = split
        self.sensor_size = None if sensor_size is None else _checks.sensor_size(sensor_size)
        self.classes = list(classes)
        self.targets = _checks.labels("targets", targets, len(self.classes))
        self._set_transform(transform)
        if fingerprint and type(self).fingerprint is not EventDataset.fingerprint:
            raise ValueError(f"fingerprint: expected none, as {type(self).__name__} has its own, got {fingerprint!r}")
        self._fingerprint = fingerprint

    @property
    def fingerprint(self) -> str:
        """A string that identifies the events, or an empty one if they may change; see above."""
        return self._fingerprint

    def _set_transform(self, transform: Callable[[np.ndarray], Any] | None) -> None:
        """Set the transform, unless a subclass defines its own."""
        own = getattr(self, "transform", None)
        if own is not None and transform is not None:
            raise ValueError(f"transform: expected None, as {type(self).__name__} has its own, got {transform!r}")
        if own is None:
            self.transform = transform
        if self.transform is not None and not callable(self.transform):
            raise TypeError(f"transform: expected a callable or None, got {self.transform!r}")

    def __repr__(self) -> str:
        parts = "".join(f", {len(own)} {part}" for part, own in self.parts.items())
        counts = f"{len(self)} recordings{parts}, {len(self.classes)} classes"
        return f"<{type(self).__name__} {self.name} {self.split}: {counts}, sensor {self.sensor_size}>"

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is out of range for {self.name}, which has {len(self)} recordings")
        position %= len(self)
        events = self.events(position)
        if self.transform is not None:
            events = self.transform(events)
        return events, int(self.targets[position])

    def events(self, position: int) -> np.ndarray:
        """Return a new array of the untransformed events of recording `position`, >= 0 and < len(self)."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method events(position), got none")

    def where(self, position: int) -> str:
        """Return the name of a recording in error messages."""
        return f"{self.name} {self.split}, recording {position}"

    def identity(self, position: int) -> str:
        """Return what names a recording within the set, wherever its files are."""
        return str(position)

    @property
    def groups(self) -> np.ndarray | None:
        """A number per recording; those of equal numbers stay in one part when the set is divided. None: all differ."""
        return None

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """The positions of "train", "test" and perhaps "val" in a set that is already divided; otherwise empty."""
        return {}

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `read_events`, but the sensor's size, with which files like those of the set are read."""
        return {}

    def packed(self) -> tuple[Pack, np.ndarray] | None:
        """Return a packed file and the position of each recording in it, or None unless the set is stored packed."""
        return None

    def read(self, position: int, lenient: bool = False) -> Recording:
        """Return a recording in columns, with the sensor size that its file states.

        Raises:
            RecordingError: it is invalid; if `lenient`, without its faulty events.
        """
        events = self.events(position)
        try:
            return read_array(events, self.sensor_size) if lenient else Recording(Events.of(events))
        except (TypeError, ValueError) as error:
            raise RecordingError(f"{self.where(position)}: {error}") from None


class StoredDataset(EventDataset):
    """A data set of this package, whose recordings are read in columns."""

    def read(self, position: int, lenient: bool = False) -> Recording:
        raise NotImplementedError

    def events(self, position: int) -> np.ndarray:
        return self.read(position).events.structured()


def recording_of(recordings: EventDataset, position: int, lenient: bool = False) -> Recording:
    """Return a recording of a set, whose class may have an `events` of its own."""
    overridden = isinstance(recordings, StoredDataset) and not is_ours(recordings.events)
    if overridden and recordings.packed() is not None:
        return EventDataset.read(recordings, position, lenient)
    return recordings.read(position, lenient)


class Subset(EventDataset):
    """A selection of another set's recordings, as a set of its own."""

    def __init__(self, whole: EventDataset, split: str, chosen: np.ndarray):
        super().__init__(whole.name, split, whole.sensor_size, whole.classes, whole.targets[chosen], whole.transform)
        self.whole, self.chosen = whole, chosen

    @property
    def fingerprint(self) -> str:
        whole = fingerprint_text(self.whole)
        return whole and digest([whole, *self.chosen.tolist()])

    @property
    def groups(self) -> np.ndarray | None:
        return None if self.whole.groups is None else self.whole.groups[self.chosen]

    @property
    def reading(self) -> dict[str, Any]:
        return self.whole.reading

    def events(self, position: int) -> np.ndarray:
        return self.whole.events(int(self.chosen[position]))

    def read(self, position: int, lenient: bool = False) -> Recording:
        return recording_of(self.whole, int(self.chosen[position]), lenient)

    def where(self, position: int) -> str:
        return self.whole.where(int(self.chosen[position]))


class Joined(EventDataset):
    """A concatenation of sets, which are its parts if they are named."""

    def __init__(self, sets: Sequence[EventDataset], names: Sequence[str] = ()):
        first = sets[0]
        targets = np.concatenate([part.targets for part in sets])
        super().__init__(first.name, "all", first.sensor_size, first.classes, targets, first.transform)
        self._sets, self._names, self._ends = sets, names, np.cumsum([len(part) for part in sets])

    @property
    def fingerprint(self) -> str:
        each = [fingerprint_text(part) for part in self._sets]
        return digest(each) if all(each) else ""

    @property
    def groups(self) -> np.ndarray | None:
        own = [part.groups for part in self._sets]
        if all(groups is None for groups in own):
            return None
        numbered = [
            np.arange(len(part)) if groups is None else groups for part, groups in zip(self._sets, own, strict=True)
        ]
        offsets = np.cumsum([0, *(int(groups.max(initial=0)) + 1 for groups in numbered)])
        return np.concatenate([groups + offset for groups, offset in zip(numbered, offsets, strict=False)])

    @property
    def parts(self) -> dict[str, np.ndarray]:
        starts = self._ends - [len(part) for part in self._sets]
        return {name: np.arange(*edges) for name, *edges in zip(self._names, starts, self._ends, strict=False)}

    @property
    def reading(self) -> dict[str, Any]:
        return self._sets[0].reading  # that of the training part

    def _place(self, position: int) -> tuple[EventDataset, int]:
        part = int(np.searchsorted(self._ends, position, side="right"))
        return self._sets[part], position - (int(self._ends[part - 1]) if part else 0)

    def events(self, position: int) -> np.ndarray:
        part, place = self._place(position)
        return part.events(place)

    def read(self, position: int, lenient: bool = False) -> Recording:
        part, place = self._place(position)
        return recording_of(part, place, lenient)

    def where(self, position: int) -> str:
        part, place = self._place(position)
        return part.where(place)


def fingerprint_text(recordings: EventDataset) -> str:
    """Return a set's fingerprint; TypeError if it is no text, such as a method without @property."""
    fingerprint = recordings.fingerprint
    if not isinstance(fingerprint, str):
        raise TypeError(
            f"fingerprint: expected a string, got {fingerprint!r:.200} of type {type(fingerprint).__name__}"
            f"{'; write @property above the method' if callable(fingerprint) else ''}"
        )
    return fingerprint


def digest(values: Iterable) -> str:
    """Return 16 hexadecimal digits that identify a sequence of values by their representations."""
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()[:16]


def fingerprint_of(files: Iterable[Path]) -> str:
    """Return digits that change when a file is added, removed or rewritten.

    They include the time of the last status change, because copying programs may restore the modification time.
    """
    states = [(str(Path(file).absolute()), Path(file).stat()) for file in files]
    return digest((name, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for name, state in states)


def is_ours(code: Any) -> bool:
    """Return whether a class or function belongs to this package, so that its behaviour is known."""
    return getattr(code, "__module__", "").partition(".")[0] == __name__.partition(".")[0]
