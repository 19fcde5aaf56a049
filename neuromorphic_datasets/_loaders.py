"""Loaders of frames for training, validation and test."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from . import _checks
from ._cache import Pack, user_folder
from ._catalogue import info, load
from ._dataset import EventDataset
from ._frames import to_frames
from ._packing import pack, remainder_of

_TIME_BINS = 10


def loaders(
    name: str | EventDataset,
    *,
    batch_size: int = 32,
    time_bins: int | None = None,
    time_window: float | None = None,
    root: str | PathLike | None = None,
    cache: str | PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    on_error: str = "raise",
    num_workers: int = 0,
) -> tuple[DataLoader, DataLoader | None, DataLoader]:
    """Make the loaders of a data set's frames.

    Each gives batches ``(frames, labels)``: event counts, float32 of shape (T, B, C, H, W), and int64 of shape
    (B,). C is polarity, OFF then ON. With `time_bins` T is that number: equal parts of each recording's own
    duration. With `time_window` recordings have as many frames as they last; shorter ones of a batch are filled
    up with zeros, and batches are ``(frames, labels, lengths)`` with int64 lengths of shape (B,).

    The recordings are read once, in parallel, into one packed file a split, which is memory-mapped from then on,
    by all processes together. It is made anew when a recording, the number of bins or this package changes, or
    when it is damaged.

    The training order is a function of `seed` and epoch alone, and so is every augmentation, for any number of
    workers: call ``train.sampler.set_epoch(epoch)`` before each epoch, or every epoch is like epoch 0. Validation
    and test keep the set's order. No loader draws from torch's global random stream.

    Args:
        name: one of `names`, or a data set, such as an `EventFolder`, which is divided.
        batch_size: recordings in a batch, >= 1; the last batch may have fewer.
        time_bins: frames of a recording, >= 1; 10 if neither it nor time_window is given.
        time_window: µs in a frame, > 0.
        root: as in `load`.
        cache: the folder of the packed files; None is this package's folder in the user's cache.
        download: as in `load`.
        val_fraction: the stratified share of the training recordings that validation takes, within [0, 1);
            with 0 there is no validation loader. Sets with a "valid" split of their own use that instead.
        test_fraction: the stratified share of a data set given in place of a name that the test takes.
        seed: of the training order, augmentations, the choice of the parts and the folds, in [0, 2**32 - 1].
        fold: which fold is the test part, from 0 to folds - 1; only with `folds`.
        folds: pool all splits and divide them into so many stratified folds, >= 2; only with `fold`.
        augment: changes the events of a training recording: takes them and a generator; see `transforms`.
        on_error: what a damaged recording does: "raise" its error, or "skip" it with a warning that counts.
        num_workers: processes that load, >= 0, kept between epochs; 0 is this process.

    Returns:
        (train, val, test); val is None when val_fraction is 0.

    Raises:
        ValueError: an argument is out of range, the set has too few recordings for the division asked for, or a
            recording is damaged.
        TypeError: an argument is of the wrong type.
        FileNotFoundError: the data are not there and `download` is False.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for part in ("Train", "Test"):
        ...     for digit in "27":
        ...         path = pathlib.Path(folder.name, part, digit, "00001.bin")
        ...         path.parent.mkdir(parents=True)
        ...         _ = path.write_bytes(bytes([12, 30, 0x80, 0, 50, 12, 30, 0, 0, 250]))
        >>> place = {"root": folder.name, "cache": folder.name}
        >>> train, val, test = loaders("nmnist", **place, time_bins=4, val_fraction=0)
        >>> frames, labels = next(iter(test))
        >>> frames.shape, frames.dtype, labels
        (torch.Size([4, 2, 2, 34, 34]), torch.float32, tensor([2, 7]))
        >>> folder.cleanup()
    """
    options = {
        "batch_size": _checks.integer("batch_size", batch_size, 1),
        "num_workers": _checks.integer("num_workers", num_workers, 0),
        "seed": _checks.integer("seed", seed, 0, 2**32 - 1),
    }
    time_bins, time_window = _time(time_bins, time_window)
    val_fraction = _checks.fraction("val_fraction", val_fraction)
    test_fraction = _checks.fraction("test_fraction", test_fraction)
    fold, folds = _folding(fold, folds)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: expected 'raise' or 'skip', came {on_error!r}")
    cache = _checks.folder("cache", cache) or user_folder()

    def frames(recordings: EventDataset, augmented=None) -> FrameDataset:
        bins = None if augmented else time_bins
        packed, places = pack(recordings, cache, n_time_bins=bins, on_error=on_error)
        return FrameDataset(recordings, packed, places, time_bins, time_window, augmented, seed)

    pool, valid_pool, test_pool = _pools(name, root, download, folds, val_fraction)
    plain = frames(pool)
    tested = plain if test_pool is pool else frames(test_pool)
    validated = plain if valid_pool is None else frames(valid_pool)
    train_part, test_part = np.arange(len(plain)), np.arange(len(tested))
    if folds is not None:
        train_part, test_part = _fold(plain.targets, fold, folds, seed)
    elif tested is plain:
        train_part, test_part = divided("test_fraction", plain.targets, train_part, test_fraction, seed)
    val_part = np.arange(len(validated))
    if validated is plain:
        train_part, val_part = divided("val_fraction", plain.targets, train_part, val_fraction, seed)
    trained = frames(pool, augment) if augment else plain
    return (
        loader(trained.only(train_part), **options, shuffled=True),
        loader(validated.only(val_part), **options) if len(val_part) else None,
        loader(tested.only(test_part), **options),
    )


def _time(time_bins: int | None, time_window: float | None) -> tuple[int | None, float | None]:
    if time_bins is not None and time_window is not None:
        raise ValueError(f"time_bins and time_window: expected at most one, came {time_bins!r} and {time_window!r}")
    if time_window is not None:
        return None, _checks.positive("time_window", time_window)
    return _checks.integer("time_bins", _TIME_BINS if time_bins is None else time_bins, 1), None


def _folding(fold: int | None, folds: int | None) -> tuple[int | None, int | None]:
    if (fold is None) != (folds is None):
        raise ValueError(f"fold and folds: expected both or neither, came fold={fold!r} and folds={folds!r}")
    if folds is None:
        return None, None
    folds = _checks.integer("folds", folds, 2)
    return _checks.integer("fold", fold, 0, folds - 1), folds


def loader(frames: Dataset, *, batch_size: int, num_workers: int, seed: int, shuffled: bool = False) -> DataLoader:
    """Return a loader of a set that makes whole batches, `__getitems__`."""
    return DataLoader(
        frames,
        batch_size=batch_size,
        sampler=_Order(frames, seed) if shuffled else None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_as_it_is,
        # Without an own stream every pass advances the global one, and resuming is not exact.
        generator=torch.Generator().manual_seed(seed),
    )


def _pools(
    name: str | EventDataset, root, download: bool, folds: int | None, val_fraction: float
) -> tuple[EventDataset, EventDataset | None, EventDataset]:
    """Return the sets that training, validation and test recordings are chosen from; None is the first."""
    if isinstance(name, EventDataset):
        return name, None, name
    if folds is not None:
        pool = load(name, "all", root=root, download=download)
        return pool, None, pool
    places = {"root": root, "download": download}
    valid = load(name, "valid", **places) if val_fraction and "valid" in info(name).splits else None
    return load(name, "train", **places), valid, load(name, "test", **places)


class FrameDataset(Dataset):
    """Recordings as frames, made from a packed file batch by batch.

    Indexing with a list of indices, or of (epoch, index) pairs, gives a batch; see `loaders`.

    Attributes:
        targets: the labels, int64 of shape (n,).
        classes: the names of the classes, by label.
        sensor_size: (width, height, polarities).
    """

    def __init__(
        self,
        recordings: EventDataset,
        packed: Pack,
        places: np.ndarray,
        time_bins: int | None,
        time_window: float | None,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        seed: int = 0,
    ):
        kept = places >= 0
        self._packed, self._places = packed, places[kept]
        self.targets, self.classes = recordings.targets[kept], recordings.classes
        self.sensor_size = packed.sensor_size
        self._time = {"n_time_bins": time_bins, "time_window": time_window}
        self._augment, self._seed = augment, seed

    def only(self, chosen: np.ndarray) -> "FrameDataset":
        """Return a set of some of the recordings, by index."""
        part = object.__new__(FrameDataset)
        part.__dict__.update(self.__dict__, _places=self._places[chosen], targets=self.targets[chosen])
        return part

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        """Return one recording without the dimension of the batch."""
        frames, labels, *lengths = self.__getitems__([index])
        return frames[:, 0], labels[0], *lengths

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> tuple[torch.Tensor, ...]:
        """Return a batch, which may be empty; this is what torch's loader calls."""
        pairs = [index if isinstance(index, tuple) else (0, int(index)) for index in indices]
        numbers = [index for _, index in pairs]
        labels = torch.from_numpy(self.targets[numbers])
        if self._packed.shape is not None:
            frames = torch.from_numpy(self._packed.frames()[self._places[numbers]].astype(np.float32, copy=False))
            return frames.transpose(0, 1).contiguous(), labels
        made = [self._frames(epoch, index) for epoch, index in pairs]
        lengths = [len(frames) for frames in made]
        steps = max(lengths, default=self._time["n_time_bins"] or 0)
        batch = np.zeros((steps, len(made), *self.sensor_size[::-1]), np.float32)
        for position, frames in enumerate(made):
            batch[: len(frames), position] = frames
        if self._time["time_window"] is None:
            return torch.from_numpy(batch), labels
        return torch.from_numpy(batch), labels, torch.tensor(lengths)

    def _frames(self, epoch: int, index: int) -> np.ndarray:
        """Return the counts of one recording, (T, C, H, W)."""
        events = self._packed.events(int(self._places[index]))
        if self._augment is not None:
            stream = np.random.SeedSequence(self._seed, spawn_key=(epoch, int(self._places[index])))
            events = self._augment(events, np.random.default_rng(stream))
        bins = self._time["n_time_bins"]
        remainder = "keep" if bins is None else remainder_of(events["t"], bins)
        return to_frames(events, self.sensor_size, **self._time, remainder=remainder, dtype=np.float32)


class _Order(DistributedSampler):
    """The training order of an epoch; each index comes with the epoch, of which workers would not learn otherwise."""

    def __init__(self, frames: FrameDataset, seed: int):
        # The sampler draws from seed + epoch: spaced apart, so that no two seeds share the order of any epoch.
        super().__init__(frames, num_replicas=1, rank=0, shuffle=True, seed=seed << 20)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())


def _as_it_is(batch: Any) -> Any:
    return batch


def _fold(targets: np.ndarray, fold: int, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (train, test) indices of one of k stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    rarest = np.unique(targets, return_counts=True)[1].min()
    if folds > rarest:
        raise ValueError(f"folds: expected at most {rarest}, the recordings of the rarest class, came {folds}")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(targets, targets))[fold]


def divided(
    argument: str, targets: np.ndarray, pool: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in `pool` as two parts, the second a stratified `fraction`, each ascending."""
    if fraction == 0:
        return pool, pool[:0]
    from sklearn.model_selection import train_test_split

    try:
        train, rest = train_test_split(pool, test_size=fraction, stratify=targets[pool], random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"{argument}: expected a share that puts recordings of every class into both parts of the "
            f"{len(pool)} training recordings, came {fraction}; 0 goes without"
        ) from error
    return np.sort(train), np.sort(rest)
