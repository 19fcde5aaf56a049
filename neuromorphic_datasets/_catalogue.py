"""The data sets by name."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import _checks
from ._dataset import EventDataset

SPLITS = ("train", "test", "all")


# Imported where used: a set's readers bring in Tonic or scikit-learn, which take seconds to import.
def _open_nmnist(split: str, root: Path | None, download: bool, transform) -> EventDataset:
    from ._nmnist import NMNIST

    return NMNIST(split, root, download, transform)


def _open_saccade_digits(split: str, root: Path | None, download: bool, transform) -> EventDataset:
    from .saccade_digits import SaccadeDigits

    return SaccadeDigits(split, root, transform)


_OPENERS = {"nmnist": _open_nmnist, "saccade-digits": _open_saccade_digits}


def names() -> list[str]:
    """Return the names that `load` and `loaders` accept, sorted.

    Example:
        >>> names()
        ['nmnist', 'saccade-digits']
    """
    return sorted(_OPENERS)


def load(
    name: str,
    split: str = "train",
    *,
    root: str | PathLike | None = None,
    download: bool = False,
    transform: Callable[[np.ndarray], Any] | None = None,
) -> EventDataset:
    """Open a data set of event recordings.

    Args:
        name: one of `names`.
        split: "train", "test" or "all" (both).
        root: where the data are kept; None is this package's folder in the user's cache. For nmnist: the
            folder that holds Train/ and Test/, or its parent with NMNIST/ in it; a part of the set is enough.
            For saccade-digits: where its one cache file goes.
        download: whether to fetch data that are missing. saccade-digits is generated and never fetched.
        transform: applied to the events of each recording, for example a Tonic transform.

    Returns:
        A map-style data set of (events, label); `EventDataset` tells its attributes.

    Raises:
        ValueError: the name or split is unknown, or a data file is damaged.
        TypeError: an argument is of the wrong type.
        FileNotFoundError: the data are not there and `download` is False.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> digit = pathlib.Path(folder.name, "Train", "7")
        >>> digit.mkdir(parents=True)
        >>> _ = digit.joinpath("00001.bin").write_bytes(bytes([12, 30, 0x80, 0, 250]))
        >>> events, label = load("nmnist", "train", root=folder.name)[0]
        >>> events["x"], events["y"], events["t"], events["p"], label
        (array([12]), array([30]), array([250]), array([1]), 7)
        >>> folder.cleanup()
    """
    if name not in names():
        raise ValueError(f"name: expected one of {names()}, came {name!r}")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {list(SPLITS)}, came {split!r}")
    if not isinstance(download, bool):
        raise TypeError(f"download: expected True or False, came {download!r} of type {type(download).__name__}")
    if transform is not None and not callable(transform):
        raise TypeError(f"transform: expected a callable or None, came {transform!r}")
    return _OPENERS[name](split, _checks.folder("root", root), download, transform)
