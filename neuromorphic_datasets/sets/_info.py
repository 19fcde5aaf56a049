"""The description of a data set, and the ways to open one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from .._class_folders import by_class
from .._dataset import EventDataset
from .._download import RemoteFile
from .._events import Recording, RecordingError
from .._files import FileDataset
from .._tonic import Reading, TonicDataset, class_names

DIGITS = tuple(str(digit) for digit in range(10))
TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}


@dataclass(frozen=True, kw_only=True)
class Info:
    """The description of a data set.

    Attributes:
        name: its name in this package.
        title: its name in the literature.
        sensor_size: (width, height, polarities); sound has height 1.
        n_classes: the number of classes.
        class_names: their names, where Tonic has none or different ones; see `classes`.
        splits: the publisher's parts; a set with only "all" is divided by `load`, always in the same way.
        licence: the licence that its publisher states.
        citation: authors, year, title.
        homepage: the page that describes it.
        files: the files to download; empty for a generated set.
        folder: the folder below root, named as in Tonic.
        patterns: the recordings of each split below the folder.
        note: further remarks.
        free: whether the recordings may be in root itself.
        open: the function that opens a split from the set's folder.
    """

    name: str
    title: str
    sensor_size: tuple[int, int, int]
    n_classes: int
    splits: tuple[str, ...]
    licence: str
    citation: str
    homepage: str
    files: tuple[RemoteFile, ...] = ()
    folder: str = ""
    patterns: dict[str, str] = field(default_factory=dict)
    note: str = ""
    free: bool = False
    class_names: tuple[str, ...] = ()
    open: "Opener" = field(repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if they are known only from the files."""
        return self.class_names or class_names(self.folder)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of the files."""
        return tuple(dict.fromkeys(urlparse(url).netloc for file in self.files for url in file.urls))

    @property
    def bytes(self) -> int | None:
        """The size of the download; None if a file's size is not known in advance."""
        sizes = [file.bytes for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


Opener = Callable[[Info, str, Path, Callable | None], EventDataset]


def figshare(number: int) -> tuple[str, ...]:
    """Return the URLs of a file of figshare, whose pages answer programs with an empty 202 where these deliver."""
    return (
        f"https://ndownloader.figshare.com/files/{number}",
        f"https://api.figshare.com/v2/file/download/{number}",
        f"https://figshare.com/ndownloader/files/{number}",
    )


def tonic(reading: Reading) -> Opener:
    """Return an opener of sets that Tonic reads."""

    def open_set(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
        files = sorted(folder.glob(info.patterns[split]))
        return TonicDataset(info.name, split, folder, files, info.sensor_size, reading, transform)

    return open_set


def class_folders(
    part: dict[str, str],
    endings: tuple[str, ...],
    classes: Sequence[str] | None = None,
    read: Callable[[Path], Recording] | None = None,
    skip: str = ".",
    partial: bool = False,
) -> Opener:
    """Return an opener of sets with one file per recording, in a folder for each class.

    `part` is the folder of each split, anywhere below the set's; files whose names start with `skip` are ignored. A
    class without files is an error, unless a part of the set is enough.
    """

    def open_set(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
        parent = next(iter(sorted(folder.rglob(part[split]))), folder) if part[split] else folder
        names = classes or sorted(path.name for path in parent.iterdir() if path.is_dir())
        files, labels, _ = by_class(parent, names, endings, skip)
        missing = [name for number, name in enumerate(names) if number not in set(labels)]
        if missing and not partial:
            raise RecordingError(f"{parent}: expected recordings of every class, got none of {missing}")
        return FileDataset(info.name, split, info.sensor_size, list(names), files, labels, read, transform)

    return open_set
