"""Recordings as frames, batch by batch, and what is kept of them in memory."""

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ._batches import Samples
from ._cache import Pack
from ._dataset import EventDataset
from ._events import Events
from ._frames import count, slices
from ._sparse import rows_of
from .transforms import ToFrames

_KEPT_BYTES = 1 << 27
"""The size of the frames that are kept in memory for later epochs and trainings, at most; larger sets are counted."""


class FrameDataset(Dataset):
    """Recordings as frames, made from a packed file batch by batch; see `loaders`.

    Indexing gives (frames, label), or (frames, label, length) for frames of a time window: a float32 tensor of shape
    (T, C, H, W) and ints.

    Attributes:
        targets: the labels, int64 of shape (n,).
        classes: the names of the classes, by label.
        sensor_size: (width, height, polarities).
        transform: that of events, before they are counted, or None.
        reading: as of `EventDataset`.
        event_counts: the number of events of each recording, int64 of shape (n,).
        durations: the time from the first to the last event of each recording, µs, likewise.
    """

    def __init__(
        self,
        recordings: EventDataset,
        packed: Pack,
        places: np.ndarray,
        framing: dict[str, Any],
        layout: str = "dense",
    ):
        readable = np.flatnonzero(places >= 0)
        self._packed, self._places, self._numbers = packed, places[readable], readable
        self._name = f"{recordings.name} {recordings.split}"
        self.targets, self.classes = recordings.targets[readable], recordings.classes
        self.groups = None if recordings.groups is None else recordings.groups[readable]
        self.sensor_size, self.reading = packed.sensor_size, recordings.reading
        self.transform = None if isinstance(recordings.transform, ToFrames) else recordings.transform
        self._framing, self._layout, self._seed = framing, layout, 0
        self._augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

    @property
    def event_counts(self) -> np.ndarray:
        return self._packed.counts[self._places]

    @property
    def durations(self) -> np.ndarray:
        return self._packed.durations[self._places]

    def places_of(self, numbers: np.ndarray) -> np.ndarray:
        """Return the indices here of recordings by their positions in the data set, without those left out."""
        return np.flatnonzero(np.isin(self._numbers, numbers))

    def only(self, chosen: np.ndarray) -> "FrameDataset":
        """Return a set of a selection of the recordings, by index."""
        return self._with(**{name: getattr(self, name)[chosen] for name in ("_places", "_numbers", "targets")})

    def augmented(self, augment: Callable | None, seed: int) -> "FrameDataset":
        """Return a set whose events are changed by `augment`, seeded by epoch and recording."""
        return self._with(_augment=augment, _seed=seed)

    def _with(self, **changed) -> "FrameDataset":
        other = object.__new__(FrameDataset)
        other.__dict__.update(self.__dict__, **changed)
        return other

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> Samples:
        """Return samples, possibly none, by indices or (epoch, index) pairs; torch's loader calls this."""
        pairs = [index if isinstance(index, tuple) else (0, operator.index(index)) for index in indices]
        numbers = [index for _, index in pairs]
        labels = torch.from_numpy(self.targets[numbers])
        places, kept = self._places[numbers], self._kept()
        stored = None if self._packed.shape is None else self._packed.frames()
        if kept is not None and kept.known[places].all():
            stored = kept.frames
        if stored is not None:
            batch = _float32(stored[places])
            own = (batch[:, position].clone() for position in range(len(numbers)))
            return Samples((batch, labels), lambda: zip(own, labels.tolist(), strict=True))
        recordings = [self._events(epoch, index) for epoch, index in pairs]
        cuts = []
        for index, events in zip(numbers, recordings, strict=True):
            with self._naming(index):
                cuts.append(slices(events.t, **self._framing))
        lengths = [len(starts) for starts, _ in cuts]
        longest = max(lengths, default=self._framing.get("n_time_bins", 0))
        counted = () if "n_time_bins" in self._framing else (torch.tensor(lengths, dtype=torch.int64),)

        def dense() -> torch.Tensor:
            batch = np.zeros((longest, len(pairs), *self.sensor_size[::-1]), np.float32)
            for position, (events, (starts, ends)) in enumerate(zip(recordings, cuts, strict=True)):
                with self._naming(pairs[position][1]):
                    wraps = self._framing.get("remainder") == "drop"
                    count(events, starts, ends, batch[: len(starts), position], wraps)
            if kept is not None:
                kept.add(places, batch)
            return torch.from_numpy(batch)

        if self._layout == "dense":
            frames = dense()
        else:
            frames = rows_of(recordings, cuts, longest, self.sensor_size, [self._naming(index) for _, index in pairs])

        def samples() -> Iterator[tuple]:
            full = frames if self._layout == "dense" else dense()
            own = (full[:length, position].clone() for position, length in enumerate(lengths))
            return zip(own, labels.tolist(), *(part.tolist() for part in counted), strict=True)

        return Samples((frames, labels, *counted), samples)

    def _kept(self) -> "_Kept | None":
        """Return the frames in memory, None if they change or are too large."""
        changed = self.transform is not None or self._augment is not None or self._layout != "dense"
        shape = (len(self._packed), self._framing.get("n_time_bins", 0), *self.sensor_size[::-1])
        if changed or self._packed.shape is not None or not 0 < math.prod(shape) <= _KEPT_BYTES:
            return None
        return _kept_frames(self._packed.identity, shape, tuple(sorted(self._framing.items())))

    def _events(self, epoch: int, index: int) -> Events:
        """Return the events of one recording, transformed and augmented."""
        place = int(self._places[index])
        events = self._packed.events(place)
        if self.transform is None and self._augment is None:
            return events
        changed = events.structured()
        if self.transform is not None:
            changed = self.transform(changed)
        if self._augment is not None:
            stream = np.random.SeedSequence(self._seed, spawn_key=(epoch, place))
            changed = self._augment(changed, np.random.default_rng(stream))
        with self._naming(index):
            return Events.of(changed)

    @contextlib.contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Name the recording in errors."""
        try:
            yield
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self._name}, recording {self._numbers[index]}: {error}") from error


class _Kept:
    """Frames that were counted before, a byte per value.

    Attributes:
        frames: uint8, (n, T, C, H, W).
        known: whether the frames of a recording are there, bool of shape (n,).
    """

    def __init__(self, shape: tuple[int, ...]):
        self.frames, self.known = np.zeros(shape, np.uint8), np.zeros(shape[0], bool)

    def add(self, places: np.ndarray, batch: np.ndarray) -> None:
        """Keep the frames of a batch (T, B, C, H, W), but for recordings with a count beyond a byte."""
        fits = batch.max((0, 2, 3, 4)) <= np.iinfo(np.uint8).max
        self.frames[places[fits]] = batch[:, fits].swapaxes(0, 1)
        self.known[places[fits]] = True


@functools.lru_cache(maxsize=2)
def _kept_frames(identity: tuple, shape: tuple[int, ...], framing: tuple) -> _Kept:
    """Return what is kept of the frames of the packed file with that identity."""
    return _Kept(shape)


def _float32(stored: np.ndarray) -> torch.Tensor:
    """Return stored frames (B, T, C, H, W) as a contiguous float32 tensor (T, B, C, H, W)."""
    if stored.dtype != np.uint8:  # torch knows few unsigned types
        stored = stored.astype(np.float32)
    frames = torch.from_numpy(stored).transpose(0, 1)
    return torch.empty(frames.shape).copy_(frames)  # float32 and contiguous in one pass


def collated(samples: Sequence[tuple]) -> tuple[torch.Tensor, ...]:
    """Return the batch of samples from a `FrameDataset`, or from a subset or the like of one; see `loaders`."""
    if isinstance(samples, Samples):
        return samples.batch
    frames, labels, *lengths = zip(*samples, strict=True)
    batch = torch.zeros(max(map(len, frames)), len(frames), *frames[0].shape[1:])
    for position, recording in enumerate(frames):
        batch[: len(recording), position] = recording
    return batch, torch.tensor(labels), *map(torch.tensor, lengths)
