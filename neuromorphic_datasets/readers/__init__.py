"""Readers of event-camera recordings in their file formats.

`read_events` reads any of them and recognises the format by the content. `FORMATS` lists the file name endings.
"""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import _checks
from .._events import LATEST, Events, Recording, RecordingError
from ._columns import UNITS
from ._recording import Losses, Options, Stream, checked, joined

__all__ = ["FORMATS", "RecordingError", "read_events", "read_recording"]

FORMATS = (
    ".bin", ".dat", ".raw", ".aedat", ".aedat4", ".es", ".csv", ".txt", ".npy", ".npz", ".h5", ".hdf5",
)  # fmt: skip
"""File name endings of recordings."""


def options(
    *,
    sensor_size: tuple[int, int, int] | None = None,
    columns: str | None = None,
    time_unit: str | None = None,
    place: str | None = None,
    clock_tolerance: int = 0,
    on_error: str = "raise",
    piece: int | None = None,
) -> Options:
    """Return the options of a reader, checked.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if time_unit is not None and time_unit not in UNITS:
        raise ValueError(f"time_unit: expected None or one of {UNITS}, got {time_unit!r}")
    if place is not None and not isinstance(place, str):
        raise TypeError(f"place: expected a name or None, got {place!r}")
    if on_error not in ("raise", "drop"):
        raise ValueError(f"on_error: expected 'raise' or 'drop', got {on_error!r}")
    return Options(
        None if sensor_size is None else _checks.sensor_size(sensor_size),
        _checks.columns(columns),
        time_unit,
        place,
        _checks.integer("clock_tolerance", clock_tolerance, 0, LATEST),
        on_error == "drop",
        piece,
    )


def read_events(
    path: str | os.PathLike,
    *,
    sensor_size: tuple[int, int, int] | None = None,
    columns: str | None = None,
    time_unit: str | None = None,
    place: str | None = None,
    clock_tolerance: int = 0,
    on_error: str = "raise",
) -> np.ndarray:
    r"""Read a recording.

    The format is recognised by the content, or by the name for .bin, .csv and .txt, which have no signature:

    ========== ===============================================================================
    .raw       Prophesee EVT 2.0, 2.1 and 3.0
    .dat       Prophesee DAT, versions 1 and 2
    .es        Event Stream 2, DVS events
    .aedat     AEDAT 2.0 (DVS128 and DAVIS, as jAER shows them) and 3.1 (RAW)
    .aedat4    AEDAT 4, through faery
    .bin       N-MNIST and N-Caltech101
    .csv       numbers, with the names of the columns before them; Metavision's x, y, p, t after %geometry
    .txt       the same, or without names t, x, y, p, in seconds if the first time has a decimal point
    .npy .npz  NumPy arrays: one with fields or with four columns, or one for each column
    .h5 .hdf5  HDF5 with x, y, t and p, at the top, in `events` or in `CD/events`, or MVSEC's tables
    ========== ===============================================================================

    Wrapped-around times are unwrapped. Rows count from the top. Tables of a sensor of one row have no y.

    Args:
        path: the file.
        sensor_size: (width, height, polarities) that every event has to fit; None checks against the size that
            the file states, if any. It also determines the camera of an AEDAT 2.0 file that does not name it:
            (128, 128, 2) is a DVS128, (240, 180, 2), (346, 260, 2) and (640, 480, 2) are DAVIS. A file that names a
            DVS128 is refused with the size of a DAVIS.
        columns: for tables without names: the order of the columns, such as "txyp" or "txp".
        time_unit: "s", "ms", "us" or "ns", the unit of a table's times; None is what the file states, such as
            `timestamp_us`, else µs.
        place: for HDF5 with events in several places: the group or data set to read.
        clock_tolerance: times that step back by at most so many µs stand still instead.
        on_error: how to treat faulty events: "raise" an error, or "drop" them and warn with their number. Of events in
            disorder the fewest are dropped.

    Returns:
        Structured array of `EVENT_DTYPE`: x, y, t (µs, never descending) and p (1 is ON); without y for a sensor of
        one row. It has at least one event.

    Raises:
        FileNotFoundError: there is no such file.
        RecordingError: a ValueError that names the file, and the byte or event of the fault; also for a file without
            events, or of an unknown format.
        ValueError, TypeError: an argument is malformed, or has no effect on the file.

    Example:
        >>> import pathlib, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = pathlib.Path(folder.name, "recording.csv")
        >>> _ = path.write_text("t,x,y,p\n10,3,4,1\n25,3,5,0\n")
        >>> read_events(path)["t"]
        array([10, 25])
        >>> folder.cleanup()
    """
    chosen = options(
        sensor_size=sensor_size,
        columns=columns,
        time_unit=time_unit,
        place=place,
        clock_tolerance=clock_tolerance,
        on_error=on_error,
    )
    check_effects(Path(path), chosen)
    recording = read_recording(Path(path), chosen)
    if recording.dropped:
        warnings.warn(f"{path}: faults dropped: {recording.dropped}; the first: {recording.fault}", stacklevel=2)
    return recording.events.structured()


def read_recording(path: Path, chosen: Options | None = None) -> Recording:
    """Read a recording together with the sensor size that its file states, if any.

    Args:
        path: the file.
        chosen: as `options` returns them.

    Returns:
        A `Recording`; its `sensor_size` is the one that the file states, whatever the options.

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
    chosen = chosen or Options()
    losses = Losses(lenient=chosen.lenient)
    stream, pieces = pieces_of(path, chosen, losses)
    events = joined(list(pieces))
    if not len(events):
        lost = f"; {losses.described()}" if losses.count else ""
        raise RecordingError(f"{path}: expected at least one event, got none{lost}")
    return Recording(events, stream.sensor_size, losses.count, losses.first)


def rechecked(path: Path, recording: Recording, chosen: Options) -> Recording:
    """Return what a reader of its own has read, checked as all recordings are.

    Raises:
        RecordingError: as in `read_events`.
    """
    losses = Losses(recording.dropped, recording.fault)
    stream = Stream(recording.sensor_size, lambda _: iter([recording.events]))
    events = joined(list(checked(path, stream, chosen, losses)))
    if not len(events):
        raise RecordingError(f"{path}: expected at least one event, got none")
    return Recording(events, recording.sensor_size, losses.count, losses.first)


def read_array(events: np.ndarray, sensor_size: tuple[int, int, int] | None) -> Recording:
    """Return a user's structured array without its faulty events.

    Raises:
        TypeError, ValueError: it has no fields of events, or no event is left.
    """
    from ._arrays import stream_of

    losses, chosen = Losses(lenient=True), Options(sensor_size, lenient=True)
    kept = joined(list(checked(Path("events"), stream_of(events, chosen), chosen, losses)))
    if not len(kept):
        raise ValueError(
            f"events: expected one or more valid ones, got none; the first fault: {losses.first or 'none'}"
        )
    return Recording(kept, None, losses.count, losses.first)


def pieces_of(path: Path, chosen: Options, losses: Losses) -> tuple[Stream, Iterator[Events]]:
    """Return a recording that is being read, and its checked pieces."""
    stream = _reader(path)(path, chosen)
    return stream, checked(path, stream, chosen, losses)


def check_effects(path: Path, chosen: Options) -> None:
    """Raise ValueError if an option has no effect on a file."""
    kinds = {"columns": "a table without column names", "time_unit": "a table", "place": "an HDF5 file"}
    for name in kinds.keys() - effective(path):
        value = getattr(chosen, name)
        if value is not None:
            raise ValueError(f"{name}: expected None, as {path} is not {kinds[name]}, got {value!r}")


def effective(path: Path) -> set[str]:
    """Return which of columns, time_unit and place may have an effect on a file."""
    from . import _arrays, _text

    reader = _reader(path)
    if reader is _arrays.read_hdf5:
        return {"columns", "time_unit", "place"}
    if reader is _arrays.read_npz:
        return {"columns", "time_unit"}
    lacking = {_text.read: _text.lacks_names, _arrays.read_npy: _arrays.npy_lacks_names}
    if reader not in lacking:
        return set()
    return {"time_unit", "columns"} if lacking[reader](path) else {"time_unit"}


def with_effect(path: Path, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the arguments of `read_events` that have an effect on a file, of columns, time_unit and place."""
    limited = {"columns", "time_unit", "place"}
    given = {name: value for name, value in reading.items() if value is not None}
    unused = limited - effective(path) if limited & given.keys() else set()
    return {name: value for name, value in given.items() if name not in unused}


def reads_in_pieces(path: Path) -> bool:
    """Return whether the format of a file can be read in constant memory."""
    from . import _arrays

    return _reader(path) is not _arrays.read_npz


def may_be_recording(path: Path) -> bool:
    """Return whether a file with one of the endings may be a recording; a .txt with other text than numbers is not."""
    from . import _text

    return path.suffix.lower() != ".txt" or _text.has_numbers(path)


def _reader(path: Path) -> Callable[[Path, Options], Stream]:
    """Choose the reader by the first bytes of a file or by its name."""
    from . import _aedat, _arrays, _event_stream, _nmnist, _prophesee, _text

    if not path.is_file():
        state = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{path}: expected a file, got {state}")
    with open(path, "rb") as file:
        start = file.read(4096)
    if not start:
        raise RecordingError(f"{path}: the file is empty")
    is_text = path.suffix.lower() in (".csv", ".txt")
    for signature, reader in (
        (b"Event Stream", _event_stream.read),
        (b"#!AER-DAT4", _aedat.read_4),
        (b"#!AER-DAT3", _aedat.read_3),
        (b"#!AER-DAT2", _aedat.read_2),
        (b"\x93NUMPY", _arrays.read_npy),
        (b"PK\x03\x04", _arrays.read_npz),
        (b"\x89HDF\r\n\x1a\n", _arrays.read_hdf5),
        (b"%", _text.read if is_text else _prophesee.read),
    ):
        if start.startswith(signature):
            return reader
    by_name = {".bin": _nmnist.read, ".csv": _text.read, ".txt": _text.read}
    if path.suffix.lower() not in by_name or (is_text and b"\0" in start):
        raise RecordingError(
            f"{path}: expected a recording ({' '.join(FORMATS)}), got a file that starts with {start[:12]!r}"
        )
    return by_name[path.suffix.lower()]
