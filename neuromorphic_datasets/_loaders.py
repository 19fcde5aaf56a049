"""Loaders of frames for training, validation and test."""

import dataclasses
import functools
from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from . import _checks
from ._batches import loader
from ._cache import user_folder
from ._catalogue import info, load, names, refuse_place
from ._dataset import EventDataset
from ._frame_dataset import FrameDataset, collated
from ._frames import FramingError, check_remainder
from ._packing import check_on_error, pack
from ._sources import Source, opened
from ._splits import TEST_FRACTION, divided, fixed_test_part, fold_of
from .transforms import ToFrames

_N_TIME_BINS = 10


def loaders(
    name: Source,
    *,
    batch_size: int = 32,
    n_time_bins: int | None = None,
    time_window: float | None = None,
    remainder: str = "keep",
    layout: str = "dense",
    root: str | PathLike | None = None,
    cache: str | PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.1,
    train_fraction: float = 1.0,
    test_fraction: float | None = None,
    seed: int = 0,
    fold: int | None = None,
    folds: int | None = None,
    augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    on_error: str = "raise",
    num_workers: int = 0,
) -> tuple[DataLoader, DataLoader | None, DataLoader]:
    """Make the loaders of a data set's frames.

    Each gives batches ``(frames, labels)``: event counts, float32 of shape (T, B, C, H, W), and int64 of shape
    (B,). C is polarity, OFF then ON. With `n_time_bins`, T is that number: equal parts of each recording's own
    duration, its last event included. With `time_window`, the number of frames depends on the duration; within a batch
    shorter recordings are padded with zeros, and batches are ``(frames, labels, lengths)`` with int64 lengths of shape
    (B,).

    A loader's `dataset` is a map-style set of ``(frames, label)`` or ``(frames, label, length)``, frames of shape
    (T, C, H, W), for torch's own loaders, subsets and the like; ``collate_fn=train.collate_fn`` makes the batches above
    from them. Augmented recordings have the augmentation of epoch 0 there.

    The recordings are read once, in parallel, into one packed file per split, which is memory-mapped from then on and
    shared by all processes. It is rebuilt when a recording, a setting or this package changes, or when it is damaged.
    A data set of your own without a `fingerprint` is read each time, and its file is deleted with the last loader.

    The training order depends on `seed` and epoch alone, and so does every augmentation, for any number of workers:
    call ``train.sampler.set_epoch(epoch)`` before each epoch; otherwise every epoch is like epoch 0. Validation and
    test keep the set's order. No loader draws from torch's global random stream.

    Args:
        name: one of `names`, or data of your own: a data set, such as an `EventFolder` or `EventList`; (train, test) or
            (train, val, test) of data sets; a folder, as in `EventFolder`; or ``FILE.py:NAME`` or ``MODULE:NAME`` of a
            data set, a tuple of them, or a function that returns one. What is not divided yet is divided. A data set's
            transform is applied: a transform of events before they are counted, or `ToFrames` or the `time_window` or
            `n_time_bins` of an `EventFolder` in place of the arguments below.
        batch_size: recordings per batch, >= 1; the last batch may have fewer.
        n_time_bins: frames per recording, >= 1; 10 if neither it nor time_window is given.
        time_window: µs per frame, > 0.
        remainder: "keep" has every event in a frame; "drop" leaves out events at the end, as Tonic's ToFrame does.
        layout: "dense", or "sparse" for frames as rows in torch's CSR layout, of shape (T * B, C * H * W), time first,
            as `htaf_snn.nn.EventLinear` takes them; row t * B + b is frame t of recording b.
        root: as in `load`; only with a name.
        cache: the folder of the packed files; None is this package's folder in the user's cache. It is not used for
            sets that are already packed, saccade-digits, random-manifolds and `EventFolder`.
        download: as in `load`; only with a name.
        val_fraction: the stratified fraction of the training recordings used for validation, within [0, 1);
            with 0 there is no validation loader. Sets with a validation part of their own use that instead.
        train_fraction: the stratified fraction of the other training recordings that is trained on, within (0, 1].
        test_fraction: the stratified fraction of a data set used for the test, the same for every seed, within [0, 1);
            None is 0.2. Only with data of your own that are not divided, and without folds, which determine the test
            part. Pieces of one recording stay in one part, see `cut`.
        seed: seed of the training order, the augmentations, the validation part and the folds, in [0, 2**32 - 1].
        fold: the fold used as the test part, from 0 to folds - 1; only with `folds`.
        folds: pool all splits and divide them into this many stratified folds, >= 2; only with `fold`.
        augment: an augmentation of training recordings: takes events and a generator; see `transforms`.
        on_error: as in `EventFolder`.
        num_workers: loading processes, >= 0, kept between epochs; 0 loads in this process.

    Returns:
        (train, val, test); val is None when val_fraction is 0.

    Raises:
        ValueError: an argument is out of range or has no effect, the set has too few recordings for the requested
            division, classes are only in the test or validation part, or a recording is damaged, which the message
            names. While loading: the same for the results of transform and augment.
        TypeError: an argument is of the wrong type, or a data set overrides `__getitem__`, or its `ToFrames` overrides
            `__call__`, which would have no effect.
        FileNotFoundError: the data are missing and `download` is False.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for part in ("Train", "Test"):
        ...     for digit in "27":
        ...         path = pathlib.Path(folder.name, part, digit, "00001.bin")
        ...         path.parent.mkdir(parents=True)
        ...         _ = path.write_bytes(bytes([12, 30, 0x80, 0, 50, 12, 30, 0, 0, 250]))
        >>> place = {"root": folder.name, "cache": folder.name}
        >>> train, val, test = loaders("nmnist", **place, n_time_bins=4, val_fraction=0)
        >>> frames, labels = next(iter(test))
        >>> frames.shape, frames.dtype, labels
        (torch.Size([4, 2, 2, 34, 34]), torch.float32, tensor([2, 7]))
        >>> folder.cleanup()
    """
    make_loader = functools.partial(
        loader,
        batch_size=_checks.integer("batch_size", batch_size, 1),
        num_workers=_checks.integer("num_workers", num_workers, 0),
        seed=_checks.integer("seed", seed, 0, 2**32 - 1),
        collate=collated,
    )
    folder = _checks.folder("cache", cache) or user_folder()
    check_on_error(on_error)
    if isinstance(name, EventDataset) and name.packed() is not None and on_error != "raise":
        raise ValueError(f"on_error: expected 'raise', as {name.name} has been read already, got {on_error!r}")
    if not (isinstance(name, str) and name in names()):
        name = opened(name, names(), cache=folder, on_error=on_error)
    framing = _framing(name, n_time_bins, time_window, remainder)
    val_fraction = _checks.fraction("val_fraction", val_fraction)
    train_fraction = _checks.positive_fraction("train_fraction", train_fraction)
    folding = _folding(fold, folds)
    test_fraction = _test_fraction(name, test_fraction, folds)
    if layout not in ("dense", "sparse"):
        raise ValueError(f"layout: expected 'dense' or 'sparse', got {layout!r}")
    if augment is not None and not callable(augment):
        raise TypeError(f"augment: expected a callable or None, got {augment!r}")

    def frames(recordings: EventDataset, augmented: bool = False) -> FrameDataset:
        # Events that are changed as they are loaded, or counted sparsely, are not packed as frames.
        changed = augmented or recordings.transform is not None or layout == "sparse"
        bins = None if changed else framing.get("n_time_bins")
        packed, places = pack(recordings, folder, n_time_bins=bins, remainder=remainder, on_error=on_error)
        return FrameDataset(recordings, packed, places, framing, layout)

    pool, valid_pool, test_pool = _pools(name, root, download, folds, val_fraction)
    plain = frames(pool, augment is not None)
    tested = plain if test_pool is pool else frames(test_pool)
    validated = plain if valid_pool is None else frames(valid_pool)
    train_part, val_part, test_part = np.arange(len(plain)), np.arange(len(validated)), np.arange(len(tested))
    own_parts = _parts_of(pool, plain) if tested is plain else {}
    if folding is not None:
        train_part, test_part = fold_of(plain.targets, *folding, seed, plain.groups)
    elif own_parts:
        train_part, test_part = own_parts["train"], own_parts["test"]
    elif tested is plain:
        train_part, test_part = fixed_test_part(
            plain.targets, plain.classes, plain.groups, test_fraction, "test_fraction"
        )
    if "val" in own_parts and folding is None:
        val_part = own_parts["val"] if val_fraction else np.arange(0)
    elif validated is plain:
        train_part, val_part = divided(
            "val_fraction", plain.targets, train_part, val_fraction, seed, groups=plain.groups, classes=plain.classes
        )
    train_part, _ = divided(
        "train_fraction",
        plain.targets,
        train_part,
        1 - train_fraction,
        seed,
        train_fraction,
        plain.groups,
        classes=plain.classes,
    )
    trained, validated, tested = plain.only(train_part), validated.only(val_part), tested.only(test_part)
    _check_classes(trained, validation=validated, test=tested)
    return (
        make_loader(trained.augmented(augment, seed), shuffled=True),
        make_loader(validated) if len(val_part) else None,
        make_loader(tested),
    )


def _parts_of(recordings: EventDataset, frames: FrameDataset) -> dict[str, np.ndarray]:
    """Return the indices of the parts of a set that is already divided, checked."""
    parts = recordings.parts
    every = np.concatenate([*parts.values(), np.arange(0)])
    if parts and not {"train", "test"} <= set(parts) <= {"train", "val", "test"}:
        raise ValueError(f"parts: expected train, test and perhaps val, got {list(parts)}")
    if len(np.unique(every)) < len(every):
        raise ValueError(f"parts: expected no recording in two of {list(parts)}, got some")
    return {part: frames.places_of(numbers) for part, numbers in parts.items()}


def _framing(
    name: str | EventDataset, n_time_bins: int | None, time_window: float | None, remainder: str
) -> dict[str, Any]:
    """Return the arguments of `to_frames`, as the caller or the data set's transform sets them."""
    check_remainder(remainder)
    if n_time_bins is not None and time_window is not None:
        raise ValueError(f"n_time_bins and time_window: expected at most one, got {n_time_bins!r} and {time_window!r}")
    if isinstance(name, EventDataset) and isinstance(name.transform, ToFrames):
        transform = name.transform
        if type(transform).__call__ is not ToFrames.__call__:
            raise TypeError(
                f"transform: expected ToFrames or a transform of events, got {transform} with its own __call__"
            )
        if n_time_bins is not None or time_window is not None or remainder != "keep":
            raise FramingError(
                f"n_time_bins, time_window and remainder: expected none of them for a data set with frames of its own, "
                f"got {n_time_bins!r}, {time_window!r} and {remainder!r}; leave n_time_bins, time_window and ToFrames "
                "out of the data set"
            )
        if transform.sensor_size != name.sensor_size:
            raise ValueError(f"transform: expected frames of size {name.sensor_size}, got {transform}")
        options = {field.name: getattr(transform, field.name) for field in dataclasses.fields(ToFrames)}
        unused = ("sensor_size", "dtype")
        return {option: value for option, value in options.items() if value is not None and option not in unused}
    if time_window is not None:
        return {"time_window": _checks.positive("time_window", time_window), "remainder": remainder}
    bins = _checks.integer("n_time_bins", _N_TIME_BINS if n_time_bins is None else n_time_bins, 1)
    return {"n_time_bins": bins, "remainder": remainder}


def _test_fraction(name: str | EventDataset, fraction: float | None, folds: int | None) -> float:
    if fraction is not None and (folds is not None or not isinstance(name, EventDataset) or name.parts):
        raise ValueError(
            f"test_fraction: expected only with a data set of your own that has no parts, and without folds, got "
            f"{fraction!r}"
        )
    return _checks.fraction("test_fraction", TEST_FRACTION if fraction is None else fraction)


def _folding(fold: int | None, folds: int | None) -> tuple[int, int] | None:
    if (fold is None) != (folds is None):
        raise ValueError(f"fold and folds: expected both or neither, got fold={fold!r} and folds={folds!r}")
    if folds is None:
        return None
    folds = _checks.integer("folds", folds, 2)
    return _checks.integer("fold", fold, 0, folds - 1), folds


def _check_classes(trained: FrameDataset, **others: FrameDataset) -> None:
    """Raise ValueError if a class is in validation or test but not in training."""
    for part, frames in others.items():
        untrained = [frames.classes[label] for label in np.setdiff1d(frames.targets, trained.targets)]
        if untrained:
            raise ValueError(f"name: expected every class of the {part} part in training, got none of {untrained}")


def _pools(
    name: str | EventDataset, root: str | PathLike | None, download: bool, folds: int | None, val_fraction: float
) -> tuple[EventDataset, EventDataset | None, EventDataset]:
    """Return the sets to choose training, validation and test recordings from; None stands for the first."""
    if isinstance(name, EventDataset):
        refuse_place(root, download)
        if type(name).__getitem__ is not EventDataset.__getitem__:
            raise TypeError(
                f"name: expected a data set that changes its recordings in `events` or `transform`, got a "
                f"{type(name).__name__} with its own __getitem__, which loaders do not call"
            )
        return name, None, name
    if folds is not None:
        pool = load(name, "all", root=root, download=download)
        return pool, None, pool
    open_split = functools.partial(load, name, root=root, download=download)
    val = open_split("val") if val_fraction and "val" in info(name).splits else None
    return open_split("train"), val, open_split("test")
