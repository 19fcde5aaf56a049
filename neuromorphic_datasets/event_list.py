"""Your own arrays of events as a data set."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _checks
from ._dataset import EventDataset, is_ours
from ._events import Events, described

__all__ = ["EventList"]


class EventList(EventDataset):
    """Recordings in memory, one structured array each.

    Args:
        recordings: arrays of x, y, t (µs, ascending) and p (0 and 1, or -1 and 1); without y for a sensor of one row.
        targets: the labels, one per recording.
        sensor_size: (width, height, polarities); None takes the smallest sensor that all events fit on.
        classes: the name of each label; None for their numbers.
        name: of the set, in messages.
        transform: applied to the events of each recording.

    Raises:
        TypeError, ValueError: an argument is of the wrong type, or a recording is invalid, which the message names.

    Example:
        >>> blink = np.array([(3, 1, 10, 1), (3, 1, 25, 0)], [(field, np.int64) for field in "xytp"])
        >>> recordings = EventList([blink, blink[:1]], [0, 1], classes=["twice", "once"])
        >>> events, label = recordings[1]
        >>> events["t"], recordings.classes[label], recordings.sensor_size
        (array([10]), 'once', (4, 2, 2))
    """

    def __init__(
        self,
        recordings: Sequence[np.ndarray],
        targets: ArrayLike,
        *,
        sensor_size: tuple[int, int, int] | None = None,
        classes: Sequence[str] | None = None,
        name: str = "recordings",
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        if isinstance(recordings, np.ndarray) or not isinstance(recordings, Sequence) or not recordings:
            shown = "an empty list" if isinstance(recordings, Sequence) else described(recordings)
            raise TypeError(f"recordings: expected a list of one or more arrays, got {shown}")
        labels = np.asarray(targets)
        if labels.shape != (len(recordings),):
            raise ValueError(f"targets: expected {len(recordings)}, one per recording, got shape {labels.shape}")
        if classes is None:
            _checks.labels("targets", labels, 1 << 31)
            classes = [str(number) for number in range(int(labels.max()) + 1)]
        size = None if sensor_size is None else _checks.sensor_size(sensor_size)
        smallest = _smallest(recordings, size)
        super().__init__(name, "all", size or smallest, list(classes), labels, transform)
        self._recordings = list(recordings)

    @property
    def fingerprint(self) -> str:
        """Digits of all events; empty for a subclass."""
        if not is_ours(type(self)):
            return ""
        digits = hashlib.sha256()
        for recording in self._recordings:
            digits.update(f"{recording.dtype.descr} {recording.shape}".encode())
            digits.update(np.ascontiguousarray(recording).tobytes())
        return digits.hexdigest()[:16]

    def events(self, position: int) -> np.ndarray:
        return self._recordings[position].copy()


def _smallest(recordings: Sequence[np.ndarray], sensor_size: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Return the smallest sensor that holds all events, checked on `sensor_size` if it is given."""
    width, height, has_rows = 1, 1, True
    for number, recording in enumerate(recordings):
        try:
            events = Events.of(recording).on(sensor_size or (1 << 15, 1 << 15, 2))
            if events.y is None and sensor_size is not None and sensor_size[1] > 1:
                raise TypeError(f"events: expected a field y, because the sensor has {sensor_size[1]} rows, got none")
            if number and has_rows is not (events.y is not None):
                raise TypeError("events: expected a field y in all recordings or in none, got both")
        except (TypeError, ValueError) as error:
            raise type(error)(f"recordings, number {number}: {error}") from None
        has_rows = events.y is not None
        width = max(width, int(events.x.max(initial=0)) + 1)
        height = max(height, int(events.rows().max(initial=0)) + 1)
    return width, height, 2
