"""What every data set of this package is."""

import hashlib
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from ._cache import Pack

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
"""One event, as Tonic's N-MNIST gives it: column, row, time in µs, polarity (1 ON, 0 OFF)."""


class EventDataset(Dataset):
    """A map-style data set of event recordings; `load` makes them.

    Indexing gives ``(events, label)``: a structured array with the fields x, y, t (µs, ascending) and p (1
    ON, 0 OFF), which is the caller's own copy, and an int. With a `transform`, its result stands in place of
    events. A set of your own is a subclass with an `events` method; `loaders` takes it in place of a name.

    Attributes:
        name: the name under which `load` knows the set.
        split: the part of the set.
        sensor_size: (width, height, polarities), as Tonic writes it; sets of sound have height 1. None until the
            recordings of a folder were read.
        classes: the name of each label.
        targets: the labels, int64 array of shape (len(self),).
        transform: what is applied to the events, or None.
        fingerprint: changes when the recordings do.

    Raises:
        IndexError: when indexed beyond its recordings.

    Example:
        >>> class Blinks(EventDataset):
        ...     def events(self, position):
        ...         times = np.arange(position + 1) * 1000
        ...         return np.array([(0, 0, t, 1) for t in times], EVENT_DTYPE)
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
        targets: np.ndarray,
        transform: Callable[[np.ndarray], Any] | None = None,
        fingerprint: str = "",
    ):
        self.name = name
        self.split = split
        self.sensor_size = sensor_size
        self.classes = classes
        self.targets = np.asarray(targets, dtype=np.int64)
        self.transform = transform
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        position = operator.index(index)
        if not -len(self) <= position < len(self):
            raise IndexError(f"index {position} is outside {self.name} with its {len(self)} recordings")
        position %= len(self)
        events = self.events(position)
        if self.transform is not None:
            events = self.transform(events)
        return events, int(self.targets[position])

    def events(self, position: int) -> np.ndarray:
        """Return a new array of the untransformed events of recording `position`, >= 0 and < len(self)."""
        raise NotImplementedError

    def packed(self) -> "tuple[Pack, np.ndarray] | None":
        """Return a packed file and the place of each recording in it, for sets that are kept so from the start."""
        return None

    def read(self, position: int) -> tuple[np.ndarray, tuple[int, int, int] | None]:
        """Return the events of a recording, and what its file says of the sensor or None."""
        return self.events(position), None


class Subset(EventDataset):
    """Some recordings of another set, as a set of its own."""

    def __init__(self, whole: EventDataset, split: str, chosen: np.ndarray):
        super().__init__(
            whole.name,
            split,
            whole.sensor_size,
            whole.classes,
            whole.targets[chosen],
            whole.transform,
            whole.fingerprint,
        )
        self.whole, self.chosen = whole, chosen

    def events(self, position: int) -> np.ndarray:
        return self.whole.events(int(self.chosen[position]))


class Joined(EventDataset):
    """Several sets, one after the other."""

    def __init__(self, parts: list[EventDataset]):
        first = parts[0]
        super().__init__(
            first.name,
            "all",
            first.sensor_size,
            first.classes,
            np.concatenate([part.targets for part in parts]),
            first.transform,
            digest(part.fingerprint for part in parts),
        )
        self.parts, self.ends = parts, np.cumsum([len(part) for part in parts])

    def events(self, position: int) -> np.ndarray:
        part = int(np.searchsorted(self.ends, position, side="right"))
        return self.parts[part].events(position - (int(self.ends[part - 1]) if part else 0))


def digest(values: Iterable) -> str:
    """Return 16 hexadecimal digits for a sequence of values that print distinctly."""
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()[:16]


def fingerprint_of(files: Iterable[Path]) -> str:
    """Return digits that change when a file comes, goes, or is written again."""
    states = [(str(file), file.stat()) for file in files]
    return digest((name, state.st_size, state.st_mtime_ns) for name, state in states)
