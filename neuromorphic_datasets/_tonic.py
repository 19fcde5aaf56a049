"""Data sets and transforms through Tonic.

Tonic's classes find and decode the recordings. They are kept from downloading, because they do not check what they
download; their order, that of the file system, is replaced by that of the names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ._dataset import StoredDataset, digest, fingerprint_of, is_ours
from ._events import Events, Recording, RecordingError
from ._packages import needs


@dataclass(frozen=True)
class Reading:
    """The way Tonic reads a set.

    Attributes:
        tonic_class: its class in ``tonic.datasets``.
        arguments: the arguments of the class for each split.
        labels: a function from Tonic's object to its labels, in Tonic's order.
        sort_by_label: whether to sort by label a set whose order is otherwise that of the file system.
    """

    tonic_class: str
    arguments: dict[str, dict[str, Any]]
    labels: Callable[[Any], Any] = attrgetter("targets")
    sort_by_label: bool = False


class TonicDataset(StoredDataset):
    """A data set that Tonic reads; `load` makes them."""

    sensor_size: tuple[int, int, int]

    def __init__(
        self,
        name: str,
        split: str,
        folder: Path,
        files: list[Path],
        sensor_size: tuple[int, int, int],
        reading: Reading,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        self._folder, self._reading, self.split = folder, reading, split
        self._process: int | None = None
        source = self._tonic()
        labels = np.asarray(reading.labels(source), np.int64)
        self._paths = list(map(str, source.data)) if _are_paths(source.data) else None
        keys = self._paths or (labels if reading.sort_by_label else np.arange(len(labels)))
        self._order = np.argsort(np.asarray(keys), kind="stable")
        classes = [name.decode() if isinstance(name, bytes) else str(name) for name in _classes(source)]
        super().__init__(name, split, sensor_size, classes, labels[self._order], transform)
        self._files = files

    @property
    def fingerprint(self) -> str:
        return digest([fingerprint_of(self._files), version("tonic")]) if is_ours(type(self)) else ""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None, "_process": None}

    def _tonic(self) -> Any:
        """Return Tonic's object, one per process because some hold open HDF5 files."""
        with needs("tonic"):
            import tonic.datasets

        if self._process != os.getpid():
            tonic_class = getattr(tonic.datasets, self._reading.tonic_class)
            with mock.patch.object(tonic_class, "_check_exists", lambda self: True):
                self._source = tonic_class(str(self._folder.parent), **self._reading.arguments[self.split])
            self._process = os.getpid()
        return self._source

    def identity(self, position: int) -> str:
        number = int(self._order[position])
        if not self._paths:
            return str(position)
        return f"{self.classes[self.targets[position]]}/{Path(self._paths[number]).name}"

    def read(self, position: int, lenient: bool = False) -> Recording:
        number = int(self._order[position])
        where = self._paths[number] if self._paths else f"{self._folder}: {self.split}, recording {number}"
        try:
            events = self._tonic()[number][0]
        except Exception as error:  # whatever Tonic, SciPy, h5py and NumPy raise over a damaged file
            raise RecordingError(f"{where}: {type(error).__name__}: {error}") from error
        return Recording(converted(events, self.sensor_size, where))


def _are_paths(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], str)


def _classes(source: Any) -> list:
    """Return the names of the classes; for N-TIDIGITS Tonic has only their map to labels."""
    return list(source.classes if hasattr(source, "classes") else source.class_map)


def class_names(tonic_class: str) -> tuple[str, ...]:
    """Return the names of the classes that one of Tonic's data sets states without its files."""
    with needs("tonic"):
        import tonic.datasets

    return tuple(map(str, getattr(getattr(tonic.datasets, tonic_class, None), "classes", ())))


def converted(events: np.ndarray, sensor_size: tuple[int, int, int], where: str) -> Events:
    """Return Tonic's events in columns, checked; sensors of one row have no y."""
    _, height, polarities = sensor_size
    events = events.reshape(-1)  # some of Tonic's arrays have shape (n, 1)
    if len(events) == 0:
        raise RecordingError(f"{where}: expected at least one event, got none")
    t = events["t"].astype(np.int64)
    # Tonic writes 1 as the only polarity, which its ToFrame turns into 0.
    p = np.zeros(len(t), np.int8) if polarities == 1 else events["p"]
    columns = Events(events["x"].astype(np.int64), events["y"].astype(np.int64) if height > 1 else None, t, p)
    if (np.diff(t) < 0).any():  # the publishers do not promise sorted arrays
        columns = columns[np.argsort(t, kind="stable")]
    try:
        return columns.on(sensor_size)
    except ValueError as error:
        raise RecordingError(f"{where}: {error}") from None


def to_voxel_grid(events: np.ndarray, sensor_size: tuple[int, int, int], n_time_bins: int) -> np.ndarray:
    """Call Tonic's ToVoxelGrid on a copy, because it writes -1 into the polarities."""
    with needs("tonic"):
        from tonic.transforms import ToVoxelGrid

    return ToVoxelGrid(sensor_size, n_time_bins)(Events.of(events).on(sensor_size).structured())


def to_time_surface(events: np.ndarray, sensor_size: tuple[int, int, int], dt: float, tau: float) -> np.ndarray:
    """Call Tonic's ToTimesurface."""
    with needs("tonic"):
        from tonic.transforms import ToTimesurface

    return ToTimesurface(sensor_size, dt=dt, tau=tau)(Events.of(events).on(sensor_size).structured())
