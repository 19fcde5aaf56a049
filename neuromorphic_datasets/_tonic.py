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

from ._dataset import EventDataset, digest, fingerprint_of, is_ours
from ._events import EVENT_DTYPE, RecordingError, columns, on_sensor


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


class TonicDataset(EventDataset):
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
        import tonic.datasets

        if self._process != os.getpid():
            tonic_class = getattr(tonic.datasets, self._reading.tonic_class)
            with mock.patch.object(tonic_class, "_check_exists", lambda self: True):
                self._source = tonic_class(str(self._folder.parent), **self._reading.arguments[self.split])
            self._process = os.getpid()
        return self._source

    def events(self, position: int) -> np.ndarray:
        number = int(self._order[position])
        where = self._paths[number] if self._paths else f"{self._folder}: {self.split}, recording {number}"
        try:
            events = self._tonic()[number][0]
        except Exception as error:  # whatever Tonic, SciPy, h5py and NumPy raise over a damaged file
            raise RecordingError(f"{where}: {type(error).__name__}: {error}") from error
        return converted(events, self.sensor_size, where)


def _are_paths(data: Any) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], str)


def _classes(source: Any) -> list:
    """Return the names of the classes; for N-TIDIGITS Tonic has only their map to labels."""
    return list(source.classes if hasattr(source, "classes") else source.class_map)


def class_names(tonic_class: str) -> tuple[str, ...]:
    """Return the names of the classes that one of Tonic's data sets states without its files."""
    import tonic.datasets

    return tuple(map(str, getattr(getattr(tonic.datasets, tonic_class, None), "classes", ())))


def converted(events: np.ndarray, sensor_size: tuple[int, int, int], where: str) -> np.ndarray:
    """Return Tonic's events as `EVENT_DTYPE`, checked; sets of sound get y = 0."""
    events = events.reshape(-1)  # some of Tonic's arrays have shape (n, 1)
    result = np.zeros(len(events), EVENT_DTYPE)
    for name in set(events.dtype.names or ()) & {"x", "y", "t", "p"}:
        result[name] = events[name]
    if sensor_size[2] == 1:
        result["p"] = 0  # Tonic writes 1, which its ToFrame turns into 0
    if len(result) == 0:
        raise RecordingError(f"{where}: expected at least one event, got none")
    if (np.diff(result["t"]) < 0).any():  # the publishers do not promise sorted arrays
        result = result[np.argsort(result["t"], kind="stable")]
    width, height, polarities = sensor_size
    x, y, p = result["x"], result["y"], result["p"]
    off = (x < 0) | (x >= width) | (y < 0) | (y >= height) | (p < 0) | (p >= polarities)
    if off.any():
        event = int(off.argmax())
        raise RecordingError(
            f"{where}: event {event}: expected x < {width}, y < {height} and p < {polarities}, "
            f"got x={x[event]}, y={y[event]} and p={p[event]}"
        )
    return result


def read_mnist_file(path: Path) -> np.ndarray:
    """Read the five-byte events of N-MNIST and N-Caltech101."""
    from tonic.io import read_mnist_file

    return read_mnist_file(path, dtype=EVENT_DTYPE)


def _checked(events: np.ndarray, sensor_size: tuple[int, int, int]) -> np.ndarray:
    """Return a copy as `EVENT_DTYPE`, checked as `to_frames` checks."""
    x, y, t, p = columns(events, sensor_size[2])
    p = on_sensor(x, y, p, sensor_size)
    copy = np.empty(len(t), EVENT_DTYPE)
    copy["x"], copy["y"], copy["t"], copy["p"] = x, y, t, p
    return copy


def to_voxel_grid(events: np.ndarray, sensor_size: tuple[int, int, int], n_time_bins: int) -> np.ndarray:
    """Call Tonic's ToVoxelGrid on a copy, because it writes -1 into the polarities."""
    from tonic.transforms import ToVoxelGrid

    return ToVoxelGrid(sensor_size, n_time_bins)(_checked(events, sensor_size))


def to_time_surface(events: np.ndarray, sensor_size: tuple[int, int, int], dt: float, tau: float) -> np.ndarray:
    """Call Tonic's ToTimesurface."""
    from tonic.transforms import ToTimesurface

    return ToTimesurface(sensor_size, dt=dt, tau=tau)(_checked(events, sensor_size))
