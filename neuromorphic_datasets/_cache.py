"""Recordings packed into one memory-mapped file, safe against crashes, damage and concurrent processes.

A file consists of `_MAGIC`, one block per recording, an index (one entry per recording), a description as JSON, and a
trailer with the positions of these two, the CRC-32 of everything before it, and `_MAGIC`. A block holds either the
frames or the events of its recording. Events are columns: x, and y if they have rows, of one, two or four bytes each,
the time since the recording's first event in four or eight, the polarity in one bit. The trailer is written last, then
the file is renamed, so a file under its own name is complete.
"""

import contextlib
import json
import os
import shutil
import struct
import tempfile
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ._events import Events, Recording, RecordingError

_MAGIC = b"NDPACK3\n"
_TRAILER = struct.Struct("<QQI8s")
_INDEX = np.dtype(
    [(name, "<u1" if name == "t_bytes" else "<i8")
     for name in ("start", "count", "t0", "duration", "t_bytes", "label", "source")]
)  # fmt: skip
_CHUNK = 1 << 24
# Bounds of the coordinates while the sensor's size is unknown.
_ANY_SENSOR = (1 << 15, 1 << 15, 2)


def user_folder() -> Path:
    """Return this package's folder in the user's cache, which may not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("neuromorphic_datasets", appauthor=False))


@dataclass(frozen=True)
class Damage:
    """What a packed file lacks of the recordings, and why.

    Attributes:
        missing: the fault of the first recording that was left out, or "".
        dropped: the number of faulty events that were left out of others.
        fault: that of the first of them.
        enlarged: what says that recordings with such events alone make the sensor larger, or "".
    """

    missing: str = ""
    dropped: int = 0
    fault: str = ""
    enlarged: str = ""


class Pack:
    """A packed file, open for reading; pickled, it is reopened in the other process.

    Attributes:
        path: the file.
        identity: what tells it from another file of that name.
        sensor_size: (width, height, polarities).
        shape: (T, C, H, W) if the file holds frames, None if it holds events.
        labels: int64 of shape (n,).
        sources: the position of each recording in the packed data set, int64; damaged recordings may be missing.
        counts: the number of events of each recording, int64.
        durations: the time from the first to the last event of each recording, µs, int64.
        damage: what was left out.
        folder: the temporary folder of the file, if any, which lives as long as this object.
    """

    folder: "TemporaryFolder | None" = None

    def __init__(self, path: Path):
        self.path = path
        with open(path, "rb") as file:
            self._content = np.asarray(np.memmap(file, np.uint8, "r"))  # slices of a memmap take long
            status = os.fstat(file.fileno())
        self.identity = status.st_dev, status.st_ino, status.st_mtime_ns
        index, description, _, _ = _trailer(self._content)
        self._index = self._content[index:description].view(_INDEX)
        values = json.loads(self._content[description : -_TRAILER.size].tobytes())
        self._xy, self._dtype = np.dtype(values["xy"]), np.dtype(values["dtype"])
        self._has_rows = bool(values["has_rows"])
        width, height, polarities = values["sensor_size"]
        self.sensor_size: tuple[int, int, int] = (width, height, polarities)
        self.shape: tuple[int, ...] | None = tuple(values["shape"]) if values["shape"] else None
        self.damage = Damage(**values["damage"])
        self.labels, self.sources = self._index["label"].astype(np.int64), self._index["source"].astype(np.int64)
        self.counts, self.durations = self._index["count"].astype(np.int64), self._index["duration"].astype(np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.path,)

    def events(self, position: int, first: int = 0, last: int | None = None) -> Events:
        """Return the events of a recording, from number `first` to the one before `last`."""
        start, count, t0, _, t_bytes, _, _ = self._index[position].item()
        last = count if last is None else last
        side = self._xy.itemsize * count
        edges = list(accumulate((start, side, side * self._has_rows, t_bytes * count, -(-count // 8))))
        x, y, t, p = (self._content[edges[i] : edges[i + 1]] for i in range(4))
        times = t.view("<u8" if t_bytes == 8 else "<u4")[first:last].astype(np.int64)
        times += t0
        rows = y.view(self._xy)[first:last] if self._has_rows else None
        bits = np.unpackbits(p[first // 8 : -(-last // 8)])[first % 8 :][: last - first]
        return Events(x.view(self._xy)[first:last], rows, times, bits)

    def frames(self) -> np.ndarray:
        """Return all frames, (n, T, C, H, W), memory-mapped."""
        if self.shape is None:
            raise ValueError(f"{self.path}: expected frames, got events")
        shape = (len(self), *self.shape)
        size = int(np.prod(shape)) * self._dtype.itemsize
        return self._content[len(_MAGIC) : len(_MAGIC) + size].view(self._dtype).reshape(shape)

    def block_bytes(self) -> int:
        """Return the total size of the blocks."""
        return _trailer(self._content)[0] - len(_MAGIC)


class Writer:
    """A writer that appends blocks to a file; `finish` completes it.

    Args:
        file: the open file.
        sensor_size: (width, height, polarities); None takes the smallest sensor that holds all events.
    """

    def __init__(self, file: BinaryIO, sensor_size: tuple[int, int, int] | None):
        self._file, self._crc, self._position = file, 0, 0
        self._index: list[tuple[int, ...]] = []
        self._sensor_size, self._largest = sensor_size, (1, 1, 2)
        self._stated: tuple[int, int, int] | None = None
        self._has_rows: bool | None = None
        self._of_faultless: tuple[int, int] | None = None
        self._of_faulty: list[tuple[int, int, int]] = []
        self._xy = np.min_scalar_type(max((sensor_size or _ANY_SENSOR)[:2]) - 1).newbyteorder("<")
        self._write(_MAGIC)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._crc = zlib.crc32(data, self._crc)
        self._position += len(data)

    def add(self, recording: Recording, label: int, source: int) -> None:
        """Append a recording.

        Raises:
            TypeError, ValueError: it has no events, or they are off the sensor, or have y where the others have none.
        """
        stated = recording.sensor_size
        if self._sensor_size is None and stated and stated != (self._stated or stated):
            raise RecordingError(
                f"expected a sensor of size {self._stated}, as an earlier recording states, got {stated}; "
                "set sensor_size to one that holds both",
                "sensor_size",
            )
        width, height, polarities = self._sensor_size or stated or _ANY_SENSOR
        if not len(recording.events):
            raise ValueError("events: expected one or more, got none")
        self._check_rows(recording.events.y is not None, height)
        if (np.diff(recording.events.t) < 0).any():
            raise ValueError("events: expected ascending times, got others")
        events = recording.events.on((width, height, min(polarities, 2)))
        t0, duration = int(events.t[0]), int(events.t[-1]) - int(events.t[0])
        times = np.dtype("<u4" if duration < 1 << 32 else "<u8")
        size = (int(events.x.max()) + 1, int(events.rows().max()) + 1, 2)
        width, height, polarities = map(max, self._largest, size, stated or size)
        self._largest, self._stated = (width, height, polarities), self._stated or stated
        if recording.dropped:
            self._of_faulty.append((size[0], size[1], source))
        else:
            before = self._of_faultless or (1, 1)
            self._of_faultless = max(before[0], size[0]), max(before[1], size[1])
        self._index.append((self._position, len(events), t0, duration, times.itemsize, label, source))
        for side in (events.x, events.y):
            self._write(b"" if side is None else side.astype(self._xy).tobytes())
        self._write((events.t - t0).astype(times).tobytes() + np.packbits(events.p.astype(bool)).tobytes())

    def _check_rows(self, has_rows: bool, height: int) -> None:
        """Raise TypeError if events lack y, or have y where the others have none."""
        if not has_rows and self._sensor_size is not None and height > 1:
            raise TypeError(f"events: expected a field y, because the sensor has {height} rows, got none")
        if has_rows is not (has_rows if self._has_rows is None else self._has_rows):
            with_y, without = "events with a field y", "events without a field y"
            raise TypeError(
                f"events: expected {without if has_rows else with_y}, as in earlier recordings, got "
                f"{with_y if has_rows else without}"
            )
        self._has_rows = has_rows

    def enlarging(self) -> tuple[list[int], tuple[int, int], tuple[int, int]] | None:
        """Return which recordings with dropped events make the sensor larger than all others do, and its two sizes.

        None if no recording does, or if the size is given or stated.
        """
        if self._sensor_size or self._stated or self._of_faultless is None:
            return None
        width, height = self._of_faultless
        beyond = [source for right, bottom, source in self._of_faulty if right > width or bottom > height]
        return (beyond, self._largest[:2], self._of_faultless) if beyond else None

    def add_frames(self, frames: np.ndarray, count: int, duration: int, label: int, source: int) -> None:
        """Append the frames of a recording of so many events; all recordings share one shape and dtype."""
        self._index.append((self._position, count, 0, duration, 0, label, source))
        self._write(np.ascontiguousarray(frames).tobytes())

    def finish(
        self, shape: tuple[int, ...] | None = None, dtype: np.dtype | str = "u1", damage: Damage = Damage()
    ) -> None:
        """Write the index, the description and the trailer, and flush them to disk."""
        index = self._position
        self._write(np.array(self._index, _INDEX).tobytes())
        description = self._position
        size = self._sensor_size or self._largest
        values: dict[str, Any] = {"xy": self._xy.str, "has_rows": self._has_rows, "sensor_size": size}
        values |= {"shape": shape, "dtype": np.dtype(dtype).str, "damage": asdict(damage)}
        self._write(json.dumps(values).encode())
        self._file.write(_TRAILER.pack(index, description, self._crc, _MAGIC))
        self._file.flush()
        os.fsync(self._file.fileno())


def opened(path: Path) -> Pack | None:
    """Open a packed file, or return None if there is none or its checksum does not match."""
    return Pack(path) if _is_whole(path) else None


def load_or_build(path: Path, build: Callable[[BinaryIO], None]) -> Pack:
    """Open a packed file; let `build` write it first if it is missing or damaged.

    If several processes need the file at once, one builds it and the others wait.

    Args:
        path: the file.
        build: takes an open file and writes the complete contents to it.
    """
    # Files appear only by renaming, so reading needs no lock.
    packed = opened(path)
    if packed is not None:
        return packed
    with locked(path):
        packed = opened(path)
        if packed is not None:
            return packed
        if path.exists():
            warnings.warn(f"{path}: damaged (wrong checksum); rebuilding it", stacklevel=2)
        # A fixed name: the lock is held, and leftovers of a killed process are overwritten.
        partial = path.with_name(f"{path.name}.part")
        try:
            with open(partial, "wb") as file:
                build(file)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return Pack(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file; its folder is created if need be."""
    from filelock import FileLock

    _make_folder(path.parent)
    # Reentrant: the same process may take the lock again within.
    with FileLock(f"{path}.lock", is_singleton=True):
        yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{folder}: expected a folder that can be written: {error.strerror}") from None


class TemporaryFolder:
    """A new folder inside another, deleted by `delete`, with this object or when the process that created it ends."""

    def __init__(self, parent: Path, name: str):
        _make_folder(parent)
        self.path = Path(tempfile.mkdtemp(prefix=f"{name}-", suffix=".temporary", dir=parent))
        self.delete = weakref.finalize(self, _delete, self.path, os.getpid())


def _delete(folder: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked copy
        shutil.rmtree(folder, ignore_errors=True)


def _trailer(content: np.ndarray) -> tuple[int, int, int, bytes]:
    return _TRAILER.unpack(content[-_TRAILER.size :].data)


def _is_whole(path: Path) -> bool:
    """Return whether the file exists and its checksum matches."""
    if not path.is_file() or path.stat().st_size < len(_MAGIC) + _TRAILER.size:
        return False
    content = np.memmap(path, np.uint8, "r")
    index, description, checksum, magic = _trailer(content)
    body = content[: -_TRAILER.size]
    if magic != _MAGIC or not len(_MAGIC) <= index <= description <= len(body):
        return False
    crc = 0
    for start in range(0, len(body), _CHUNK):
        crc = zlib.crc32(body[start : start + _CHUNK].data, crc)
    return crc == checksum
