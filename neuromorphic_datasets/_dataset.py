"""What every data set of this package is."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import Dataset

EVENT_DTYPE = np.dtype([("x", np.int64), ("y", np.int64), ("t", np.int64), ("p", np.int64)])
"""One event, as Tonic's N-MNIST gives it: column, row, time in µs, polarity (1 ON, 0 OFF)."""


class EventDataset(Dataset):
    """A map-style data set of event recordings; `load` makes them.

    Indexing gives ``(events, label)``: a structured array with the fields x, y, t (µs, ascending) and p (1
    ON, 0 OFF), which is the caller's own copy, and an int. With a `transform`, its result stands in place of
    events.

    Attributes:
        name: the name under which `load` knows the set.
        sensor_size: (width, height, polarities), as Tonic writes it.
        classes: the name of each label.
        targets: the labels, int64 array of shape (len(self),).
        transform: what is applied to the events, or None.
    """

    def __init__(
        self,
        name: str,
        sensor_size: tuple[int, int, int],
        classes: list[str],
        targets: np.ndarray,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        self.name = name
        self.sensor_size = sensor_size
        self.classes = classes
        self.targets = np.asarray(targets, dtype=np.int64)
        self.transform = transform

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
