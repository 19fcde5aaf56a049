"""Recordings as arrays: NumPy's .npy and .npz, and HDF5."""

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._events import LATEST, Events, RecordingError
from .._packages import needs
from ._columns import by_field, events_of, unit_of
from ._recording import Losses, Options, Stream, cuts

# The filter of Prophesee's HDF5 files, which hdf5plugin lacks.
_ECF = 0x8ECF
# MVSEC has tables of x, y, seconds and polarity, one for each camera.
_MVSEC = ("davis/left/events", "davis/right/events")


def _stream(path: Path, columns: Mapping[str, Any], unit: str, options: Options, offset: int = 0) -> Stream:
    """Return a stream of arrays, or what can be sliced into arrays, by field."""

    def pieces(losses: Losses) -> Iterator[Events]:
        for part in cuts(len(columns["t"]), options.piece):
            taken = {field: column[part] for field, column in columns.items()}
            events = events_of(path, taken, unit, options, losses, part.start)
            if offset and len(events) and max(abs(events.t.min() + offset), abs(events.t.max() + offset)) > LATEST:
                raise RecordingError(f"{path}: expected times within 2**56 µs with t_offset, got an offset of {offset}")
            yield replace(events, t=events.t + offset) if offset else events

    return Stream(None, pieces)


def _of_table(path: Path, table: Any, options: Options) -> dict[str, Any]:
    """Return the columns of a table without names."""
    if options.columns is None:
        raise RecordingError(
            f"{path}: expected an array with the fields x, y, t and p, got {table.dtype} of shape {table.shape}; "
            "set columns if it has four columns",
            "columns",
        )
    if table.ndim != 2 or table.shape[1] != len(options.columns):
        raise RecordingError(f"{path}: expected {len(options.columns)} columns, got an array of shape {table.shape}")
    return {field: _Column(table, options.columns.index(field)) for field in options.columns}


class _Column:
    """A column of a table, which reads only the rows that it is asked for."""

    def __init__(self, table: Any, key: int | str):
        self._table, self._key = table, key

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._table[rows][self._key] if isinstance(self._key, str) else self._table[rows][:, self._key]


def _of_fields(path: Path, table: Any, options: Options) -> tuple[dict[str, Any], str]:
    """Return the columns of a table with fields, and the unit of its times."""
    if table.ndim != 1:
        raise RecordingError(f"{path}: expected one dimension, got shape {table.shape}")
    _refuse_columns(path, options)
    place, unit = by_field(path, table.dtype.names)
    return {field: _Column(table, name) for field, name in place.items()}, unit_of(path, unit, options)


def stream_of(events: np.ndarray, options: Options) -> Stream:
    """Return a stream of a user's structured array; TypeError if it is none."""
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not {"x", "t", "p"} <= set(names) or events.ndim != 1 or np.ma.isMaskedArray(events):
        Events.of(events)  # says what it is
    columns = {field: events[field] for field in "xytp" if field in names}
    return _stream(Path("events"), columns, "us", options)


def _refuse_columns(path: Path, options: Options) -> None:
    """Raise ValueError if the caller orders columns that have names."""
    if options.columns is not None:
        raise ValueError(f"columns: expected None, as {path} names its columns, got {options.columns!r}")


def read_npy(path: Path, options: Options) -> Stream:
    """Read a structured array, or one of four columns in the order of the options."""
    table = _load(path)
    if table.dtype.names is None:
        stream = _stream(path, _of_table(path, table, options), unit_of(path, None, options), options)
    else:
        stream = _stream(path, *_of_fields(path, table, options), options)
    return replace(stream, content=table)


def npy_lacks_names(path: Path) -> bool:
    """Return whether the array has no fields."""
    return _load(path).dtype.names is None


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises almost anything over a damaged header
        raise RecordingError(f"{path}: not a complete NumPy array: {error}") from error


def read_npz(path: Path, options: Options) -> Stream:
    """Read arrays named as columns, or a single structured array."""
    try:
        # NumPy leaves a damaged archive open that it has opened itself.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise RecordingError(f"{path}: not a complete NumPy archive: {error}") from error
    if len(arrays) == 1:
        [table] = arrays.values()
        if table.dtype.names is None:
            return _stream(path, _of_table(path, table, options), unit_of(path, None, options), options)
        return _stream(path, *_of_fields(path, table, options), options)
    _refuse_columns(path, options)
    place, unit = by_field(path, arrays)
    columns = {field: arrays[name] for field, name in place.items()}
    shapes = {field: column.shape for field, column in columns.items()}
    if len(set(shapes.values())) > 1 or columns["t"].ndim != 1:
        raise RecordingError(f"{path}: expected columns of one length, got {shapes}")
    return _stream(path, columns, unit_of(path, unit, options), options)


def read_hdf5(path: Path, options: Options) -> Stream:
    """Read x, y, t and p: data sets of a group, fields of a data set, or MVSEC's table; DSEC's `t_offset` is added."""
    with needs("hdf5"):
        import h5py

    with _damage(path), h5py.File(path, "r") as file:
        name = _place(path, file, options)
        offset = file["t_offset"][()] if "t_offset" in file else 0
    if np.ndim(offset) or np.asarray(offset).dtype.kind not in "iu" or not abs(int(offset)) < LATEST:
        raise RecordingError(f"{path}: expected t_offset to be an integer within 2**56, in µs, got {offset}")

    def pieces(losses: Losses) -> Iterator[Events]:
        with _damage(path), h5py.File(path, "r") as file:
            columns, unit = _of_hdf5(path, file[name], options)
            yield from _stream(path, columns, unit, options, offset=int(offset)).pieces(losses)

    return Stream(None, pieces)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (RecordingError, GeneratorExit):
        raise
    except Exception as error:  # h5py raises almost anything over a damaged file
        raise RecordingError(f"{path}: not a complete HDF5 file: {error}") from error


def _of_hdf5(path: Path, place: Any, options: Options) -> tuple[dict[str, Any], str]:
    """Return the columns of a group or a data set, and the unit of its times."""
    import h5py

    if isinstance(place, h5py.Group):
        _refuse_columns(path, options)
        fields, unit = by_field(path, place.keys())
        columns = {field: place[name] for field, name in fields.items()}
        _require_filters(path, columns.values())
        lengths = {field: column.shape for field, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise RecordingError(f"{path}: expected columns of one length, got {lengths}")
        return columns, unit_of(path, unit, options)
    _require_filters(path, [place])
    if place.dtype.names is not None:
        return _of_fields(path, place, options)
    if place.name.strip("/") in _MVSEC:
        if options.columns not in (None, "xytp"):
            raise ValueError(f"columns: expected 'xytp', as MVSEC has them, got {options.columns!r}")
        return _of_table(path, place, replace(options, columns="xytp")), unit_of(path, "s", options)
    return _of_table(path, place, options), unit_of(path, None, options)


def _place(path: Path, file: Any, options: Options) -> str:
    """Return the name of the single group or data set that holds events."""
    import h5py

    def holds_events(place: Any) -> bool:
        names = place.keys() if isinstance(place, h5py.Group) else place.dtype.names or ()
        with contextlib.suppress(RecordingError):
            return bool(by_field(path, names))
        return place.name.strip("/") in _MVSEC or (options.columns is not None and getattr(place, "ndim", 0) == 2)

    if options.place is not None:
        if options.place not in file:
            raise RecordingError(f"{path}: expected {options.place!r}, as place says, got {sorted(file)}", "given")
        return options.place
    candidates = ["CD/events", "events", *_MVSEC, "/"]
    found = [name for name in candidates if name in file and holds_events(file[name])]
    if len(found) != 1:
        got = f"in {found}; set place" if found else f"{sorted(file)}"
        raise RecordingError(
            f"{path}: expected x, y, t and p in one place, at the top, in events or in CD/events, got {got}",
            "place" if found else None,
        )
    return found[0]


def _require_filters(path: Path, tables: Iterable[Any]) -> None:
    """Raise if HDF5 lacks a filter of the data sets, which it would report as a read error."""
    from h5py import h5z

    for table in tables:
        pipeline = table.id.get_create_plist()
        for number in range(pipeline.get_nfilters()):
            code, _, _, name = pipeline.get_filter(number)
            if not h5z.filter_avail(code):
                with contextlib.suppress(ImportError):
                    importlib.import_module("hdf5plugin")  # registers its filters
            if not h5z.filter_avail(code):
                remedy = (
                    "build github.com/prophesee-ai/hdf5_ecf and name its folder in HDF5_PLUGIN_PATH"
                    if code == _ECF
                    else 'pip install ".[hdf5]"'
                )
                raise RecordingError(
                    f"{path}: {table.name} is compressed with the HDF5 filter {code} ({name.decode() or 'unnamed'}), "
                    f"which is not installed; {remedy}"
                )
