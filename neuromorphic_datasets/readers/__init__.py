"""Readers of event-camera recordings in their file formats.

`read_events` reads any of them and recognises the format by the content. `FORMATS` lists the file name endings.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .. import _checks
from .._events import Recording, RecordingError
from ._recording import checked

__all__ = ["FORMATS", "RecordingError", "read_events", "read_recording"]

FORMATS = (".bin", ".dat", ".raw", ".aedat", ".aedat4", ".es", ".csv", ".npy", ".h5", ".hdf5")
"""File name endings of recordings."""


def read_events(
    path: str | os.PathLike, *, sensor_size: tuple[int, int, int] | None = None, columns: str | None = None
) -> np.ndarray:
    r"""Read a recording.

    The format is recognised by the content, or by the name for .bin and .csv, which have no signature:

    ========== ===============================================================================
    .raw       Prophesee EVT 2.0 and 3.0
    .dat       Prophesee DAT, versions 1 and 2
    .es        Event Stream 2, DVS events
    .aedat     AEDAT 2.0 (DVS128 and DAVIS, as jAER shows them) and 3.1 (RAW)
    .aedat4    AEDAT 4, through faery
    .bin       N-MNIST and N-Caltech101
    .csv       numbers, with the names of the columns in the first line
    .npy       NumPy array, structured or with four columns
    .h5 .hdf5  HDF5 with x, y, t and p, at the top, in `events` or in `CD/events`
    ========== ===============================================================================

    Wrapped-around times are unwrapped. Rows count from the top.

    Args:
        path: the file.
        sensor_size: (width, height, polarities) that every event has to fit; None checks against the size that
            the file states, if any. It also determines the camera of an AEDAT 2.0 file that does not name it:
            (128, 128, 2) is a DVS128, (240, 180, 2), (346, 260, 2) and (640, 480, 2) are DAVIS. A file that names a
            DVS128 is refused with the size of a DAVIS.
        columns: for .csv without names and .npy without fields: the order of the columns, such as "txyp".

    Returns:
        Structured array of `EVENT_DTYPE`: x, y, t (µs, never descending) and p (1 is ON). It has at least one event.

    Raises:
        FileNotFoundError: there is no such file.
        RecordingError: a ValueError that names the file, and the byte or event of the fault; also for a file without
            events, or of an unknown format.
        ValueError, TypeError: sensor_size or columns is malformed, or columns is given for a file that is not a table,
            or that names its columns.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "recording.csv")
        >>> _ = path.write_text("t,x,y,p\n10,3,4,1\n25,3,5,0\n")
        >>> read_events(path)["t"]
        array([10, 25])
        >>> folder.cleanup()
    """
    if sensor_size is not None:
        sensor_size = _checks.sensor_size(sensor_size)
    path = Path(path)
    if _checks.columns(columns) is not None and not _lacks_names(path):
        raise ValueError(f"columns: expected None, as {path} is not a table without column names, got {columns!r}")
    return read_recording(path, sensor_size, columns).events.structured()


def read_recording(
    path: Path, sensor_size: tuple[int, int, int] | None = None, columns: str | None = None
) -> Recording:
    """Read a recording together with the sensor size that its file states, if any.

    Args:
        path: the file.
        sensor_size: as in `read_events`.
        columns: as in `read_events`.

    Returns:
        A `Recording`; its `sensor_size` is the one that the file states, whatever the argument.

    Raises:
        FileNotFoundError, RecordingError: as in `read_events`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "recording.bin")
        ...     _ = path.write_bytes(bytes([12, 30, 0x80, 0, 250]))
        ...     recording = read_recording(path)
        >>> recording.sensor_size, recording.events.structured()[0].item()
        (None, (12, 30, 250, 1))
    """
    recording = _reader(path)(path, columns=columns, sensor_size=sensor_size)
    return checked(path, recording, sensor_size)


def _lacks_names(path: Path) -> bool:
    """Return whether the file is a table whose columns the caller has to name."""
    from . import _tables

    lacking = {_tables.read_csv: _tables.csv_lacks_names, _tables.read_npy: _tables.npy_lacks_names}
    reader = _reader(path)
    return reader in lacking and lacking[reader](path)


def _reader(path: Path) -> Callable[..., Recording]:
    """Choose the reader by the first bytes of a file or by its name; readers ignore keywords that they do not need."""
    from . import _aedat, _event_stream, _nmnist, _prophesee, _tables

    if not path.is_file():
        state = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{path}: expected a file, got {state}")
    with open(path, "rb") as file:
        start = file.read(4096)
    if not start:
        raise RecordingError(f"{path}: the file is empty")
    for signature, reader in (
        (b"Event Stream", _event_stream.read),
        (b"#!AER-DAT4", _aedat.read_4),
        (b"#!AER-DAT3", _aedat.read_3),
        (b"#!AER-DAT2", _aedat.read_2),
        (b"\x93NUMPY", _tables.read_npy),
        (b"\x89HDF\r\n\x1a\n", _tables.read_hdf5),
        (b"%", _prophesee.read),
    ):
        if start.startswith(signature):
            return reader
    by_name = {".bin": _nmnist.read, ".csv": _tables.read_csv}
    if path.suffix.lower() not in by_name:
        raise RecordingError(
            f"{path}: expected a recording ({' '.join(FORMATS)}), got a file that starts with {start[:12]!r}"
        )
    return by_name[path.suffix.lower()]
