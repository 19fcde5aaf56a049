"""Loaders of frames for training, validation and test."""

from collections.abc import Sequence
from os import PathLike

import numpy as np
import torch
from torch.utils.data import DataLoader, DistributedSampler

from . import _checks
from ._catalogue import load


def loaders(
    name: str,
    *,
    batch_size: int = 32,
    time_bins: int = 10,
    root: str | PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.1,
    seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    num_workers: int = 0,
) -> tuple[DataLoader, DataLoader | None, DataLoader]:
    """Make the loaders of a data set's frames.

    Each gives batches ``(frames, labels)``: event counts, float32 of shape (T, B, C, H, W), and int64 of
    shape (B,). T is `time_bins`, equal parts of each recording's own duration; C is polarity, OFF then ON.
    Frames are computed once, in this call, and kept in memory.

    The training order is a function of `seed` and epoch alone: call ``train.sampler.set_epoch(epoch)`` before
    each epoch, or every epoch has the order of epoch 0. Validation and test keep the set's order. No loader
    draws from torch's global random stream.

    Args:
        name: one of `names`.
        batch_size: recordings in a batch, >= 1; the last batch may have fewer.
        time_bins: frames of a recording, >= 1.
        root: as in `load`.
        download: as in `load`.
        val_fraction: the stratified share of the training recordings that validation takes, within [0, 1);
            with 0 there is no validation loader.
        seed: of the training order, the choice of the validation part and the folds, within [0, 2**32 - 1].
        fold: which fold is the test part, from 0 to folds - 1; only with `folds`.
        folds: pool both splits and divide them into so many stratified folds, >= 2; only with `fold`.
        num_workers: processes that load, >= 0; 0 is this process.

    Returns:
        (train, val, test); val is None when val_fraction is 0.

    Raises:
        ValueError: an argument is out of range, or the set has too few recordings for the division asked for.
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
        >>> train, val, test = loaders("nmnist", root=folder.name, time_bins=4, val_fraction=0)
        >>> frames, labels = next(iter(test))
        >>> frames.shape, frames.dtype, labels
        (torch.Size([4, 2, 2, 34, 34]), torch.float32, tensor([2, 7]))
        >>> folder.cleanup()
    """
    from ._frames import FrameDataset

    batch_size = _checks.integer("batch_size", batch_size, 1)
    time_bins = _checks.integer("time_bins", time_bins, 1)
    val_fraction = _checks.fraction("val_fraction", val_fraction)
    seed = _checks.integer("seed", seed, 0, 2**32 - 1)
    num_workers = _checks.integer("num_workers", num_workers, 0)
    if (fold is None) != (folds is None):
        raise ValueError(f"fold and folds: expected both or neither, came fold={fold!r} and folds={folds!r}")

    if folds is None:
        pool = load(name, "train", root=root, download=download)
        test_pool = load(name, "test", root=root, download=download)
        trained, tested = np.arange(len(pool)), np.arange(len(test_pool))
    else:
        folds = _checks.integer("folds", folds, 2)
        fold = _checks.integer("fold", fold, 0, folds - 1)
        pool = test_pool = load(name, "all", root=root, download=download)
        trained, tested = _fold(pool.targets, fold, folds, seed)
    trained, validated = _without_validation(pool.targets, trained, val_fraction, seed)

    def loader(frames: FrameDataset, sampler: DistributedSampler | None = None) -> DataLoader:
        return DataLoader(
            frames,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            collate_fn=_collate,
            # Without an own stream every pass advances the global one, and resuming is not exact.
            generator=torch.Generator().manual_seed(seed),
        )

    train = FrameDataset(pool, trained, time_bins)
    # The sampler draws from seed + epoch: spaced apart, so that no two seeds share the order of any epoch.
    order = DistributedSampler(train, num_replicas=1, rank=0, shuffle=True, seed=seed << 20)
    val = loader(FrameDataset(pool, validated, time_bins)) if len(validated) else None
    return loader(train, order), val, loader(FrameDataset(test_pool, tested, time_bins))


def _fold(targets: np.ndarray, fold: int, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (train, test) indices of one of k stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    rarest = np.unique(targets, return_counts=True)[1].min()
    if folds > rarest:
        raise ValueError(f"folds: expected at most {rarest}, the recordings of the rarest class, came {folds}")
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(targets, targets))[fold]


def _without_validation(
    targets: np.ndarray, pool: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices in `pool` as (train, validation), stratified by their targets."""
    if val_fraction == 0:
        return pool, pool[:0]
    from sklearn.model_selection import train_test_split

    try:
        train, val = train_test_split(pool, test_size=val_fraction, stratify=targets[pool], random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"val_fraction: expected a share that puts recordings of every class into both parts of the "
            f"{len(pool)} training recordings, came {val_fraction}; 0 goes without validation"
        ) from error
    return np.sort(train), np.sort(val)


def _collate(samples: Sequence[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack (counts, label) pairs to frames (T, B, C, H, W) float32 and labels (B,) int64."""
    frames, labels = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(frames, axis=1).astype(np.float32)), torch.tensor(labels)
