"""Recordings as tables: CSV, NumPy and HDF5."""

import re
import warnings
from pathlib import Path

import numpy as np

from ._recording import Recording, RecordingError, packed

_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
_FIELDS = {name: field for field, names in _NAMES.items() for name in names}


def read_csv(path: Path, columns: str | None) -> Recording:
    """Read lines of four integers, with commas, semicolons or blanks between; times are µs."""
    with open(path, "rb") as file:
        first = file.readline(1000).decode("utf-8", "replace").strip()
    separator = next((sign for sign in (",", ";") if sign in first), None)
    named = re.search("[A-Za-z]", first) is not None
    fields, sensor_size = _heading(path, first.split(separator)) if named else (columns, None)
    if fields is None:
        raise RecordingError(f"{path}: expected names of columns in line 1, came {first[:80]!r}; or set columns")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")
            table = np.loadtxt(path, np.int64, delimiter=separator, skiprows=int(named), ndmin=2)
    except ValueError as error:
        raise RecordingError(f"{path}: expected integers: {error} (rows are counted without the names)") from None
    if table.size == 0:
        raise RecordingError(f"{path}: there are no events in it")
    return _from_columns(path, _by_field(path, table, fields), sensor_size)


def _heading(path: Path, cells: list[str]) -> tuple[list[str], tuple[int, int, int] | None]:
    """Return the fields that the names of columns stand for, and the sensor's size if given as in x@320, y@240."""
    cells = [cell.strip().lower().split("@") for cell in cells]
    fields = [_FIELDS.get(cell[0], cell[0]) for cell in cells]
    if not set("xytp") <= set(fields):
        raise RecordingError(f"{path}: expected columns x, y, t and p, came {[cell[0] for cell in cells]}")
    sizes = {field: int(cell[1]) for field, cell in zip(fields, cells, strict=True) if cell[1:] and cell[1].isdigit()}
    return fields, (sizes["x"], sizes["y"], 2) if {"x", "y"} <= set(sizes) else None


def _by_field(path: Path, table: np.ndarray, fields) -> dict[str, np.ndarray]:
    if table.ndim != 2 or table.shape[1] != len(fields):
        raise RecordingError(f"{path}: expected {len(fields)} columns, came an array of shape {table.shape}")
    return {field: table[:, fields.index(field)] for field in "xytp"}


def read_npy(path: Path, columns: str | None) -> Recording:
    """Read a structured array, or one of four columns in the order of `columns`."""
    try:
        table = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises nearly anything over a damaged header
        raise RecordingError(f"{path}: no whole NumPy array: {error}") from error
    if table.dtype.names is not None:
        if table.ndim != 1:
            raise RecordingError(f"{path}: expected one dimension, came shape {table.shape}")
        return _from_columns(path, _fields_of(path, table, table.dtype.names))
    if columns is None:
        raise RecordingError(
            f"{path}: expected an array with the fields x, y, t and p, came {table.dtype} of shape {table.shape}; "
            "for one of four columns set columns"
        )
    return _from_columns(path, _by_field(path, table, columns))


def read_hdf5(path: Path, columns: str | None) -> Recording:
    """Read x, y, t and p as data sets of a group or as the fields of one; DSEC's `t_offset` is added."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            places = [file[name] for name in ("CD/events", "events") if name in file] + [file]
            for place in places:
                names = place.keys() if isinstance(place, h5py.Group) else place.dtype.names or ()
                if set("xytp") <= {_FIELDS.get(name) for name in names}:
                    table = (
                        place[()]
                        if isinstance(place, h5py.Dataset)
                        else {name: place[name][()] for name in names if name in _FIELDS}
                    )
                    fields = _fields_of(path, table, names)
                    if "t_offset" in file:
                        fields["t"] = np.asarray(fields["t"], np.int64) + int(file["t_offset"][()])
                    return _from_columns(path, fields)
            raise RecordingError(
                f"{path}: expected x, y, t and p at the top, in events or in CD/events, came {sorted(file)}"
            )
    except RecordingError:
        raise
    except Exception as error:  # h5py raises nearly anything over a damaged file
        raise RecordingError(f"{path}: no whole HDF5 file: {error}") from error


def _fields_of(path: Path, table, names) -> dict[str, np.ndarray]:
    found = {_FIELDS[name]: table[name][()] for name in names if name in _FIELDS}
    if set(found) != set("xytp"):
        raise RecordingError(f"{path}: expected the fields x, y, t and p, came {list(names)}")
    return found


def _from_columns(path: Path, fields: dict[str, np.ndarray], sensor_size=None) -> Recording:
    """Make a recording of integer columns; polarities are 0 or -1 for OFF, 1 for ON."""
    fields = {field: np.asarray(column) for field, column in fields.items()}
    if len({column.shape for column in fields.values()}) > 1 or fields["t"].ndim != 1:
        shapes = {field: column.shape for field, column in fields.items()}
        raise RecordingError(f"{path}: expected columns of one length, came {shapes}")
    for field, (low, high) in {"x": (0, 1 << 15), "y": (0, 1 << 15), "t": (-(1 << 62), 1 << 62), "p": (-1, 2)}.items():
        column = fields[field]
        if column.dtype.kind not in "iubf":
            raise RecordingError(f"{path}: expected numbers as {field}, came {column.dtype}")
        wrong = ~((column >= low) & (column < high))
        if column.dtype.kind == "f":
            wrong |= column != np.trunc(column)
        if wrong.any():
            event = int(wrong.argmax())
            raise RecordingError(
                f"{path}: event {event}: expected an integer {field} in [{low}, {high - 1}], came {column[event]}"
            )
    return Recording(packed(fields["x"], fields["y"], fields["t"], fields["p"] > 0), sensor_size)
