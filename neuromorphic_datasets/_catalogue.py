"""Data sets by name: opening, downloading, checking and removing them."""

import re
import shutil
from collections.abc import Callable, Collection
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import _archive, _checks
from ._cache import user_folder
from ._dataset import EventDataset, Joined, Subset
from ._download import RemoteFile, fetch, is_right
from ._packing import pack
from ._sources import Source, opened
from ._splits import fixed_test_part, published_test_part
from .sets import SETS, Info

SPLITS = ("train", "val", "test", "all")


def names() -> list[str]:
    """Return the names that `info`, `load` and `loaders` accept, sorted.

    Example:
        >>> "nmnist" in names(), "saccade-digits" in names()
        (True, True)
    """
    return sorted(SETS)


def info(name: str) -> Info:
    """Describe a data set.

    Args:
        name: one of `names`.

    Returns:
        Sensor, classes, splits, files with their hosts and checksums, licence and citation; see `Info`.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> info("dvsgesture").sensor_size, info("dvsgesture").n_classes
        ((128, 128, 2), 11)
    """
    if name not in SETS:
        raise ValueError(f"name: expected one of {names()}, got {name!r}")
    return SETS[name]


def load(
    name: Source,
    split: str = "train",
    *,
    root: str | PathLike | None = None,
    download: bool = False,
    transform: Callable[[np.ndarray], Any] | None = None,
) -> EventDataset:
    """Open a data set of event recordings.

    Args:
        name: one of `names`, or data of your own, as in `loaders`.
        split: "train", "test" or "all" (every part), and for some sets "val". A set that is not divided is divided
            here: "test" is a fifth of each class, always the same; of published sets by the hashes of the names.
        root: the folder of the data; None is this package's folder in the user's cache. In it each set has the
            folder that Tonic would use, so that Tonic's downloads are found; for nmnist it may also be the folder
            that holds Train/ and Test/, and a part of the set is enough. For saccade-digits and random-manifolds it is
            the folder of the cache file.
        download: whether to fetch missing data. Generated sets are never fetched.
        transform: applied to the events of each recording, for example one of `transforms` or of Tonic.

    Returns:
        A map-style data set of (events, label), an `EventDataset`.

    Raises:
        ValueError: the name or split is unknown, a data file is damaged, or root or download is given for data of your
            own.
        TypeError: an argument is of the wrong type.
        FileNotFoundError: the data are missing and `download` is False.
        DownloadError: an OSError; the data could not be fetched. It says how to install them manually.

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
    if not isinstance(download, bool):
        raise TypeError(f"download: expected True or False, got {download!r} of type {type(download).__name__}")
    if transform is not None and not callable(transform):
        raise TypeError(f"transform: expected a callable or None, got {transform!r}")
    if not (isinstance(name, str) and name in SETS):
        whole = opened(name, names())
        refuse_place(root, download)
        return _own_part(whole, split, transform)
    entry = info(name)
    _check_split(split, entry.splits)
    root = _checks.folder("root", root) or user_folder()
    if split in entry.splits:
        return _open(entry, split, root, download, transform)
    if "all" in entry.splits:
        whole = _open(entry, "all", root, download, transform)
        identities = [whole.identity(position) for position in range(len(whole))]
        return _part(whole, split, *published_test_part(whole.targets, identities))
    if not entry.patterns:
        return entry.open(entry, "all", root, transform)
    return Joined([_open(entry, part, root, download, transform) for part in entry.splits])


def _check_split(split: str, parts: Collection[str]) -> None:
    expected = [known for known in SPLITS if known != "val" or "val" in parts]
    if split not in expected:
        raise ValueError(f"split: expected one of {expected}, got {split!r}")


def refuse_place(root: object, download: bool) -> None:
    """Raise ValueError if a root or a download is given for data of one's own."""
    if root is not None or download:
        raise ValueError(f"root and download: expected only with a name, got {root!r} and {download!r}")


def _own_part(whole: EventDataset, split: str, transform: Callable | None) -> EventDataset:
    """Return a part of a user's set, with a transform if it has none of its own."""
    _check_split(split, whole.parts)
    if split == "all":
        part = Subset(whole, split, np.arange(len(whole))) if transform is not None else whole
    elif whole.parts:
        part = Subset(whole, split, whole.parts[split])
    else:
        part = _part(whole, split, *fixed_test_part(whole.targets, whole.classes, whole.groups))
    if transform is not None:
        part._set_transform(transform)
    return part


def _open(entry: Info, split: str, root: Path, download: bool, transform: Callable | None) -> EventDataset:
    if not entry.patterns:
        return entry.open(entry, split, root, transform)
    return entry.open(entry, split, _prepared(entry, split, root, download), transform)


def _part(whole: EventDataset, split: str, train: np.ndarray, test: np.ndarray) -> EventDataset:
    """Return train or test of a set that is not divided."""
    return Subset(whole, split, train if split == "train" else test)


def _prepared(entry: Info, split: str, root: Path, download: bool) -> Path:
    """Return the folder of a split's recordings, fetched and unpacked first if need be."""
    own = root / entry.folder
    _unpack(entry, split, own)  # archives installed manually, or left by a killed process
    for folder in (root, own) if entry.free else (own,):
        if any(folder.glob(entry.patterns[split])):
            return folder
    if not download:
        raise FileNotFoundError(_missing(entry, split, root))
    for file in _files_of(entry, split):
        fetch(file, own)
    _unpack(entry, split, own)
    if not any(own.glob(entry.patterns[split])):
        raise FileNotFoundError(f"{own}: expected {entry.patterns[split]} in the download, got no such file")
    return own


def _files_of(entry: Info, split: str) -> list[RemoteFile]:
    return [file for file in entry.files if file.split in (split, "all")]


def _unpack(entry: Info, split: str, folder: Path) -> None:
    for file in _files_of(entry, split):
        archive = folder / file.name
        if archive.suffix not in (".zip", ".gz") or not archive.is_file():
            continue
        # Tonic leaves its archives beside the unpacked files.
        if _archive.is_cut_short(archive) or not any(folder.glob(file.pattern or entry.patterns[split])):
            if not is_right(archive, file):
                raise ValueError(
                    f"{archive}: expected {file.bytes or 'any number of'} bytes with MD5 {file.md5}, got another file"
                )
            _archive.unpack(archive, file.md5)


def _missing(entry: Info, split: str, root: Path) -> str:
    if not root.exists():
        state = "a folder that does not exist"
    else:
        state = "a folder without any" if root.is_dir() else "a file"
    lines = [
        f"root: expected {entry.title} as {entry.patterns[split]} in {root / entry.folder}, got {state} ({root}); "
        "pass download=True (htaf-snn train: --download) to fetch it, or the folder of a copy, or install it manually:"
    ]
    for file in _files_of(entry, split):
        target = root / entry.folder / file.name
        lines += [f"  from {file.urls[0]}", f"  to   {target}", f"  MD5  {file.md5 or 'not fixed'}"]
    return "\n".join(lines)


def download(name: str, *, root: str | PathLike | None = None) -> Path:
    """Fetch and unpack all missing parts of a data set.

    Args:
        name: one of `names`.
        root: as in `load`.

    Returns:
        The set's folder.

    Raises:
        ValueError: the name is unknown, or an archive is damaged.
        DownloadError: an OSError; a file could not be fetched. It says how to install it manually.

    Example:
        A simulated set needs no download; for other sets the folder is filled.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     download("saccade-digits", root=folder) == Path(folder)
        True
    """
    entry = info(name)
    root = _checks.folder("root", root) or user_folder()
    for split in entry.splits if entry.patterns else ():
        _prepared(entry, split, root, download=True)
    return root / entry.folder


def cache(
    name: str,
    *,
    n_time_bins: int | None = None,
    root: str | PathLike | None = None,
    cache: str | PathLike | None = None,
    on_error: str = "raise",
) -> list[Path]:
    """Pack a data set's recordings ahead of time; `loaders` does the same when it is first called.

    Args:
        name: one of `names`.
        n_time_bins: the number of frames per recording that `loaders` will make, with every event, >= 1; None packs
            events.
        root: as in `load`.
        cache: the folder of the packed files; None is this package's folder in the user's cache.
        on_error: how to treat damaged recordings: "raise" an error, or "skip" them and warn with their number.

    Returns:
        The packed files.

    Raises:
        ValueError: an argument is out of range, or a recording is damaged.
        FileNotFoundError: the data are missing.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for part in ("Train", "Test"):
        ...     digit = Path(folder.name, part, "7")
        ...     digit.mkdir(parents=True)
        ...     _ = digit.joinpath("00001.bin").write_bytes(bytes([12, 30, 0x80, 0, 250]))
        >>> [path.suffix for path in cache("nmnist", root=folder.name, cache=folder.name)]
        ['.pack', '.pack']
        >>> folder.cleanup()
    """
    if n_time_bins is not None:
        n_time_bins = _checks.integer("n_time_bins", n_time_bins, 1)
    folder = _checks.folder("cache", cache) or user_folder()
    splits = ("train", "test") if info(name).splits == ("all",) else info(name).splits
    parts = [load(name, split, root=root) for split in splits]
    packs = [pack(part, folder, n_time_bins=n_time_bins, on_error=on_error)[0].path for part in parts]
    return list(dict.fromkeys(packs))


def verify(name: str, *, root: str | PathLike | None = None) -> list[str]:
    """Check a copy: every file against its checksum or, in a manually installed copy, every recording by reading it.

    Args:
        name: one of `names`.
        root: as in `load`.

    Returns:
        The faults, one string each; empty if there are none.

    Raises:
        ValueError: the name is unknown.
        FileNotFoundError: there is no copy.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for part in ("Train", "Test"):
        ...     digit = Path(folder.name, part, "7")
        ...     digit.mkdir(parents=True)
        ...     _ = digit.joinpath("00001.bin").write_bytes(bytes([12, 30, 0x80, 0, 250]))
        >>> verify("nmnist", root=folder.name)
        []
        >>> _ = digit.joinpath("00002.bin").write_bytes(b"torn")
        >>> [fault] = verify("nmnist", root=folder.name)
        >>> fault.removeprefix(str(digit))
        '/00002.bin: byte 0: expected words of 5 bytes to the end, got 4 more'
        >>> folder.cleanup()
    """
    from ._progress import bar

    entry = info(name)
    root = _checks.folder("root", root) or user_folder()
    manifests = [_archive.manifest_path(root / entry.folder / file.name) for file in entry.files]
    if manifests and all(manifest.is_file() for manifest in manifests):
        damaged = [manifest.parent / name for manifest in manifests for name in _archive.damaged_files(manifest)]
        return [f"{path}: missing or changed" for path in damaged]
    faults = []
    for split in _present_splits(entry, root):
        recordings = load(name, split, root=root)
        for position in bar(range(len(recordings)), desc=f"reading {name} {split}", unit="recording", delay=1):
            try:
                recordings.events(position)
            except (OSError, ValueError) as error:
                faults.append(str(error))
    return faults


def _present_splits(entry: Info, root: Path) -> list[str]:
    """Return the splits that have recordings, at least one."""
    if not entry.patterns:
        return list(entry.splits)
    present = [
        split
        for split in entry.splits
        if any(any(folder.glob(entry.patterns[split])) for folder in (root, root / entry.folder))
    ]
    if not present:
        raise FileNotFoundError(_missing(entry, entry.splits[0], root))
    return present


def clear(name: str, *, root: str | PathLike | None = None) -> list[Path]:
    """Delete this package's files of a data set: packed caches, and downloaded and unpacked files.

    A manually installed copy, which lacks the list of files that unpacking leaves, is kept.

    Args:
        name: one of `names`.
        root: as in `load`.

    Returns:
        The deleted paths.

    Raises:
        ValueError: the name is unknown.

    Example:
        >>> clear("nmnits")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: name: expected one of ['asldvs', ..., got 'nmnits'
    """
    entry = info(name)
    root = _checks.folder("root", root) or user_folder()
    splits = "|".join({*entry.splits, "all"})
    own = re.compile(rf"{re.escape(name)}(-({splits}))?-[0-9a-f]{{16}}(\..+)?\.pack(\..+)?")
    doomed = [path for place in {root, user_folder()} for path in place.glob("*.pack*") if own.fullmatch(path.name)]
    folder = root / entry.folder
    if entry.folder and any(_archive.manifest_path(folder / file.name).is_file() for file in entry.files):
        doomed.append(folder)
    for path in doomed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [path for path in doomed if path.suffix != ".lock"]
