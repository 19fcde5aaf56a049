"""Your own recordings as a data set: a folder for each class."""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from . import _checks
from ._cache import Pack, user_folder
from ._class_folders import all_by_class, divided_folders, loose_files, names_of, refuse_parts, warn_of
from ._dataset import digest
from ._events import Recording, RecordingError
from ._files import FileDataset
from ._packing import check_on_error, pack
from .readers import FORMATS, effective, may_be_recording, options, read_recording, with_effect
from .transforms import ToFrames

__all__ = ["EventFolder"]


class EventFolder(FileDataset):
    r"""Recordings of any format that `read_events` reads, in a folder for each class, at any depth below it.

    All of them are read once, when the data set is made, into one packed file, which is used from then on as long
    as the files do not change. `loaders` takes the data set in place of a name, and divides it.

    Args:
        root: the folder of the class folders, or of train/, test/ and perhaps val/ with the class folders in them;
            these names may be in any case, and val/ may be called validation/.
            Hidden files are left out; a warning counts other files that are not read.
        time_window: µs per frame, > 0; or
        n_time_bins: frames per recording, >= 1. With neither, indexing gives events.
        transform: applied to the events of each recording, in place of both.
        sensor_size: (width, height, polarities); None takes the size that the files state, which has to be the same in
            all, or, if they state none, the smallest sensor that all events fit on. It is required for AEDAT 2.0 files
            that do not name their camera; see `read_events`.
        columns, time_unit, place, clock_tolerance: as in `read_events`, for all files.
        on_error: how to treat damage: "raise" an error, "skip" damaged recordings, or "drop" faulty events, and
            recordings that cannot be read or of whose events more than a tenth are faulty; both with a warning of their
            number. With "drop" give sensor_size, too, as what is left of a damaged file may lie anywhere.
        cache: the folder of the packed file; None is this package's folder in the user's cache.

    Attributes:
        files: the paths of the recordings. To leave out or reorder recordings, set `files` and `targets` together. The
            other attributes are those of `EventDataset`.

    Raises:
        FileNotFoundError: there is no such folder, or no recording in it or in one of its class folders.
        ValueError: a recording is damaged, files state different sizes, an argument is out of range, or the folders
            are parts of a divided set with other names.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name in ("left", "right"):
        ...     pathlib.Path(folder.name, name).mkdir()
        ...     _ = pathlib.Path(folder.name, name, "a.csv").write_text("t,x@4,y@2,p\n0,3,1,1\n9,0,0,0\n")
        >>> recordings = EventFolder(folder.name, time_window=5, cache=folder.name)
        >>> frames, label = recordings[1]
        >>> recordings.classes, recordings.sensor_size, frames.shape, label
        (['left', 'right'], (4, 2, 2), (2, 2, 2, 4), 1)
        >>> folder.cleanup()
    """

    def __init__(
        self,
        root: str | PathLike,
        *,
        time_window: float | None = None,
        n_time_bins: int | None = None,
        transform: Callable[[np.ndarray], Any] | None = None,
        sensor_size: tuple[int, int, int] | None = None,
        columns: str | None = None,
        time_unit: str | None = None,
        place: str | None = None,
        clock_tolerance: int = 0,
        on_error: str = "raise",
        cache: str | PathLike | None = None,
    ):
        if sum(option is not None for option in (time_window, n_time_bins, transform)) > 1:
            raise ValueError("time_window, n_time_bins and transform: expected at most one of them")
        check_on_error(on_error)
        self._on_error = on_error
        self._options = options(
            sensor_size=sensor_size,
            columns=columns,
            time_unit=time_unit,
            place=place,
            clock_tolerance=clock_tolerance,
        )
        folder = _checks.folder("root", root)
        if folder is None or not folder.is_dir():
            state = "a file" if folder is not None and folder.is_file() else "none"
            raise FileNotFoundError(f"root: expected a folder of class folders, got {state} at {root}")
        classes, files, labels = _listed(folder)
        for name, value in (("columns", columns), ("time_unit", time_unit), ("place", place)):
            if value is not None and not any(name in effective(file) for file in files):
                raise ValueError(f"{name}: expected None, as it has no effect on a file of {folder}, got {value!r}")
        super().__init__(folder.name, "all", self._options.sensor_size, classes, files, labels)
        self._root = folder
        try:
            self._packed, places = pack(self, _checks.folder("cache", cache) or user_folder(), on_error=on_error)
        except RecordingError as error:
            if on_error != "raise" or error.remedy:
                raise
            raise RecordingError(f'{error}; on_error="skip" leaves such files out', "on_error") from None
        self._places = {file: int(place) for file, place in zip(self.files, places, strict=True) if place >= 0}
        self.files, self.targets = list(self._places), self.targets[places >= 0]
        self.sensor_size = self._packed.sensor_size
        if time_window is not None or n_time_bins is not None:
            transform = ToFrames(self._packed.sensor_size, n_time_bins=n_time_bins, time_window=time_window)
        self._set_transform(transform)

    @property
    def fingerprint(self) -> str:
        files = super().fingerprint
        return files and digest([files, self._options])

    @property
    def reading(self) -> dict[str, Any]:
        given = {name: getattr(self._options, name) for name in ("columns", "time_unit", "place", "clock_tolerance")}
        chosen = {name: value for name, value in given.items() if value}
        return chosen | ({"on_error": "drop"} if self._on_error == "drop" else {})

    @property
    def parts(self) -> dict[str, np.ndarray]:
        names = np.array([file.relative_to(self._root).parts[0] for file in self.files])
        return {part: np.flatnonzero(names == own.name) for part, own in divided_folders(self._root).items()}

    def recording(self, position: int, lenient: bool = False) -> Recording:
        """Return a recording as read from its file."""
        file = self.files[position]
        given = {name: getattr(self._options, name) for name in ("columns", "time_unit", "place")}
        used: dict[str, Any] = dict.fromkeys(given) | with_effect(file, given)
        chosen = replace(self._options, sensor_size=self.sensor_size, lenient=lenient, **used)
        return read_recording(file, chosen)

    def read(self, position: int, lenient: bool = False) -> Recording:
        if not hasattr(self, "_places"):
            return self.recording(position, lenient)
        return Recording(self._packed.events(self._place(self.files[position])))

    def events(self, position: int) -> np.ndarray:
        return self._packed.events(self._place(self.files[position])).structured()

    def packed(self) -> tuple[Pack, np.ndarray] | None:
        return (self._packed, np.array([*map(self._place, self.files)])) if hasattr(self, "_places") else None

    def _place(self, file: Path) -> int:
        if file not in self._places:
            raise ValueError(f"files: expected only recordings that were read when the folder was opened, got {file}")
        return self._places[file]


def _listed(folder: Path) -> tuple[list[str], list[Path], list[int]]:
    """Return the classes, the files and their labels of a folder of class folders, or of one with parts of them."""
    parts = divided_folders(folder)
    if not parts:
        classes = names_of(folder)
        refuse_parts(folder, classes, "name them train, test and, if there is one, val, without other folders")
        return classes, *all_by_class(folder, classes, FORMATS, "recordings", may_be_recording)
    warn_of(folder, loose_files(folder))
    classes = names_of(parts["train"])
    files: list[Path] = []
    labels: list[int] = []
    for part in parts.values():
        own = names_of(part)
        if unknown := sorted(set(own) - set(classes)):
            raise ValueError(f"{part}: expected only classes that are in {parts['train']}, got {unknown}")
        found, numbers = all_by_class(part, own, FORMATS, "recordings", may_be_recording)
        files += found
        labels += [classes.index(own[number]) for number in numbers]
    return classes, files, labels
