"""Recordings as tables: CSV, NumPy and HDF5."""

import contextlib
import importlib
import re
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._events import Events, Recording, RecordingError

_NAMES = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
_FIELDS = {name: field for field, names in _NAMES.items() for name in names}
# The filter of Prophesee's HDF5 files, which hdf5plugin lacks.
_ECF = 0x8ECF


def read_csv(path: Path, *, columns: str | None, **_: object) -> Recording:
    """Read lines of four whole numbers, separated by commas, semicolons or blanks; times are in µs."""
    first, named = _first_line(path), not csv_lacks_names(path)
    separator = next((sign for sign in (",", ";") if sign in first), None)
    fields: Sequence[str] | None
    # np.savetxt puts a # before the names.
    fields, sensor_size = _heading(path, first.removeprefix("#").split(separator)) if named else (columns, None)
    if fields is None:
        raise RecordingError(f"{path}: expected column names in line 1, got {first[:80]!r}; add them, or set columns")
    table = _whole_numbers(path, separator, int(named))
    if table.size == 0:
        raise RecordingError(f"{path}: expected at least one event, got none")
    return _from_columns(path, _by_field(path, table, fields), sensor_size)


def _whole_numbers(path: Path, separator: str | None, skipped: int) -> np.ndarray:
    """Read a table of integers, or of floats that are whole."""

    def load(dtype: type) -> np.ndarray:
        return np.loadtxt(
            path, dtype, comments=None, delimiter=separator, skiprows=skipped, ndmin=2, encoding="utf-8-sig"
        )

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "loadtxt: input contained no data")
        # NumPy 1 and early 2 truncate 1.5 to 1 with this warning.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return load(np.int64)
        except (ValueError, DeprecationWarning) as error:
            with contextlib.suppress(ValueError):
                table = load(np.float64)
                if ((table == np.trunc(table)) & (np.abs(table) < 1 << 53)).all():  # beyond, floats are rounded
                    return table
            raise RecordingError(f"{path}: expected integers: {error} (rows are counted without the names)") from None


def csv_lacks_names(path: Path) -> bool:
    """Return whether the first line is an event."""
    return re.search("[A-Za-z]", re.sub(r"(?<=[\d.])[eE](?=[+-]?\d)", "", _first_line(path))) is None


def _first_line(path: Path) -> str:
    with open(path, "rb") as file:
        return file.readline(1000).decode("utf-8-sig", "replace").strip()


def _heading(path: Path, cells: list[str]) -> tuple[list[str], tuple[int, int, int] | None]:
    """Return the fields of the named columns, and the sensor's size if given as in x@320, y@240."""
    parts = [cell.strip().strip("\"'").strip().lower().partition("@") for cell in cells if cell.strip()]
    names = [name for name, _, _ in parts]
    _names_by_field(path, names)
    fields = [_FIELDS.get(name, name) for name in names]
    sizes = {field: size for field, (_, _, size) in zip(fields, parts, strict=True) if size}
    if sizes and not (set(sizes) == {"x", "y"} and all(size.isdecimal() for size in sizes.values())):
        raise RecordingError(f"{path}: expected the sensor's size as x@WIDTH and y@HEIGHT, got {sizes}")
    return fields, (int(sizes["x"]), int(sizes["y"]), 2) if sizes else None


def _names_by_field(path: Path, names: Collection[str]) -> dict[str, str]:
    """Return the column name of each of x, y, t and p."""
    known = [name for name in names if name in _FIELDS]
    if sorted(_FIELDS[name] for name in known) != list("ptxy"):
        raise RecordingError(f"{path}: expected columns x, y, t and p, one each, got {list(names)}")
    return {_FIELDS[name]: name for name in known}


def _by_field(path: Path, table: np.ndarray, fields: Sequence[str]) -> dict[str, np.ndarray]:
    if table.ndim != 2 or table.shape[1] != len(fields):
        raise RecordingError(f"{path}: expected {len(fields)} columns, got an array of shape {table.shape}")
    return {field: table[:, fields.index(field)] for field in "xytp"}


def read_npy(path: Path, *, columns: str | None, **_: object) -> Recording:
    """Read a structured array, or one of four columns in the order of `columns`."""
    table = _load_npy(path)
    names = table.dtype.names
    if names is not None:
        if table.ndim != 1:
            raise RecordingError(f"{path}: expected one dimension, got shape {table.shape}")
        return _from_columns(path, {field: table[name] for field, name in _names_by_field(path, names).items()})
    if columns is None:
        raise RecordingError(
            f"{path}: expected an array with the fields x, y, t and p, got {table.dtype} of shape {table.shape}; "
            "set columns if it has four columns"
        )
    return _from_columns(path, _by_field(path, table, columns))


def npy_lacks_names(path: Path) -> bool:
    """Return whether the array has no fields."""
    return _load_npy(path).dtype.names is None


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy raises almost anything over a damaged header
        raise RecordingError(f"{path}: not a complete NumPy array: {error}") from error


def read_hdf5(path: Path, **_: object) -> Recording:
    """Read x, y, t and p, data sets of a group or fields of a single data set; DSEC's `t_offset` is added."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            place = _place(path, file)
            if isinstance(place, h5py.Group):
                _require_filters(path, [place[name] for name in place if name in _FIELDS])
                fields = {field: place[name][()] for field, name in _names_by_field(path, place).items()}
            else:
                _require_filters(path, [place])
                table = place[()]
                fields = {field: table[name] for field, name in _names_by_field(path, place.dtype.names).items()}
            offset = file["t_offset"][()] if "t_offset" in file else 0
    except RecordingError:
        raise
    except Exception as error:  # h5py raises almost anything over a damaged file
        raise RecordingError(f"{path}: not a complete HDF5 file: {error}") from error
    if np.ndim(offset) or np.asarray(offset).dtype.kind not in "iu":
        raise RecordingError(f"{path}: expected t_offset to be an integer, in µs, got {offset}")
    recording = _from_columns(path, fields)
    events = replace(recording.events, t=recording.events.t + int(offset))
    return replace(recording, events=events)


def _place(path: Path, file: Any) -> Any:
    """Return the single group, or data set with fields, that holds events."""
    import h5py

    candidates = []
    for place in [*(file[name] for name in ("CD/events", "events") if name in file), file]:
        names = place.keys() if isinstance(place, h5py.Group) else place.dtype.names or ()
        if set("xytp") <= {_FIELDS.get(name) for name in names}:
            candidates.append(place)
    if len(candidates) != 1:
        places = f"in {[place.name for place in candidates]}" if candidates else f"{sorted(file)}"
        raise RecordingError(
            f"{path}: expected x, y, t and p in one place, at the top, in events or in CD/events, got {places}"
        )
    return candidates[0]


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
                    else "pip install hdf5plugin"
                )
                raise RecordingError(
                    f"{path}: {table.name} is compressed with the HDF5 filter {code} ({name.decode() or 'unnamed'}), "
                    f"which is not installed; {remedy}"
                )


def _from_columns(
    path: Path, fields: dict[str, np.ndarray], sensor_size: tuple[int, int, int] | None = None
) -> Recording:
    try:
        return Recording(Events.compact(**fields), sensor_size)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"{path}: {error}") from None
