"""Recordings as text: CSV of any kind, and the rpg group's events.txt."""

import contextlib
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from .._events import SET_UNIT, Events, RecordingError
from ._columns import by_field, events_of, unit_of
from ._recording import Losses, Options, Stream

_METAVISION = "xypt"
_RPG = "txyp"


@dataclass(frozen=True)
class _Head:
    """What the lines before the first event say.

    Attributes:
        lines: their number.
        first: the line of the first event.
        names: of the columns, if there are any.
        separator: of the columns; None is any blanks.
        sensor_size: as stated, or None.
        columns: the order of the columns of a format that has no names.
        named: the line of the names.
    """

    lines: int
    first: str
    names: tuple[str, ...] | None
    separator: str | None
    sensor_size: tuple[int, int, int] | None
    columns: str | None


def read(path: Path, options: Options) -> Stream:
    """Read lines of whole numbers, separated by commas, semicolons or blanks; times are in µs unless they say so."""
    head = _head(path)
    if not head.first:
        raise RecordingError(f"{path}: expected at least one event, got none")
    unit = None
    if head.names is not None:
        place, unit = by_field(path, head.names)
        order = {field: head.names.index(name) for field, name in place.items()}
    else:
        columns = options.columns or head.columns
        if columns is None:
            raise RecordingError(
                f"{path}: expected column names in line 1, got {head.first[:80]!r}; add them, or set columns",
                "columns",
            )
        order = {field: columns.index(field) for field in columns}
        if columns == head.columns == _RPG and not options.time_unit and "." in head.first.split(head.separator)[0]:
            unit = "s"
    unit = unit_of(path, unit, options)
    count = len(head.names or order)

    def pieces(losses: Losses) -> Iterator[Events]:
        number = 0
        for table in _tables(path, head, count, unit != "us", options, losses):
            if not table.size:  # blank lines
                continue
            if table.shape[1] != count:
                raise RecordingError(f"{path}: expected {count} columns, got {table.shape[1]}")
            columns = {field: table[:, place] for field, place in order.items()}
            yield events_of(path, columns, unit, options, losses, number)
            number += len(table)

    return Stream(head.sensor_size, pieces)


def has_numbers(path: Path) -> bool:
    """Return whether a text has a line that may be an event."""
    with contextlib.suppress(RecordingError):
        return bool(re.fullmatch(r"[-+.\deE,; \t]+", _head(path).first))
    return False


def lacks_names(path: Path) -> bool:
    """Return whether no line names the columns."""
    return _head(path).names is None


def _head(path: Path) -> _Head:
    names, size, columns, lines, line = None, None, None, 0, ""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            text = line.strip()[:1000]
            if text.startswith("%"):
                size, columns = _geometry(text) or size, _METAVISION
            elif text.startswith("#"):
                names = names or _commented(text)
            elif names is None and re.search(
                "[A-Za-z]", re.sub(r"(?<=[\d.])[eE](?=[+-]?\d)|\bnan\b|\binf\b", "", text)
            ):
                names, size = _named(path, _cells(text), size)
            elif path.suffix.lower() == ".txt" and size is None and re.fullmatch(r"\d+\s+\d+", text):
                width, height = map(int, text.split())
                size = width, height, 2
            elif text:
                break
            lines += 1
        else:
            line = ""
    if path.suffix.lower() == ".txt" and columns is None:
        columns = _RPG
    return _Head(lines, line.strip(), names, _separator(line), size, columns)


def _separator(line: str) -> str | None:
    return next((sign for sign in (",", ";") if sign in line), None)


def _cells(text: str) -> list[str]:
    cells = [cell.strip().strip("\"'").strip() for cell in text.split(_separator(text))]
    return cells if cells[-1] else cells[:-1]  # a separator at the end


def _geometry(text: str) -> tuple[int, int, int] | None:
    """Return the sensor's size of Metavision's "%geometry:1280,720"."""
    match = re.match(r"%\s*geometry\W*(\d+)\D+(\d+)", text)
    return (int(match[1]), int(match[2]), 2) if match else None


def _commented(text: str) -> tuple[str, ...] | None:
    """Return the names in a comment, as np.savetxt writes them; None if it is another one."""
    cells = _cells(text.lstrip("# "))
    with contextlib.suppress(RecordingError):
        by_field(Path(), cells)
        return tuple(cells)
    return None


def _named(
    path: Path, cells: list[str], size: tuple[int, int, int] | None
) -> tuple[tuple[str, ...], tuple[int, int, int] | None]:
    """Return the names of the columns, and the sensor's size if given as in x@320, y@240."""
    parts = [cell.partition("@") for cell in cells]
    names = tuple(name.strip() for name, _, _ in parts)
    place, _ = by_field(path, names)
    fields = {name: field for field, name in place.items()}
    sizes = {fields.get(name, name): side for (_, _, side), name in zip(parts, names, strict=True) if side}
    if sizes and not (set(sizes) == {"x", "y"} and all(side.isdecimal() for side in sizes.values())):
        raise RecordingError(f"{path}: expected the sensor's size as x@WIDTH and y@HEIGHT, got {sizes}")
    return names, (int(sizes["x"]), int(sizes["y"]), 2) if sizes else size


def _tables(
    path: Path, head: _Head, columns: int, as_floats: bool, options: Options, losses: Losses
) -> Iterator[np.ndarray]:
    """Yield the rows of a file, piece by piece."""
    if options.piece is None and not options.lenient:
        yield _numbers(path, path, head, columns, as_floats, head.lines)
        return
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        number = head.lines
        for _ in islice(file, number):
            pass
        while lines := list(islice(file, options.piece)):
            try:
                yield _numbers(path, lines, head, columns, as_floats, number)
            except RecordingError:
                if not options.lenient:
                    raise
                yield _readable(lines, number, head.separator, columns, losses)
            number += len(lines)


def _numbers(
    path: Path, source: Path | list[str], head: _Head, columns: int, as_floats: bool, number: int
) -> np.ndarray:
    """Read a table of integers, or of floats; those that are not times in other units have to be whole.

    It starts after `number` lines of the file, which a source of lines lacks.
    """

    def load(dtype: type) -> np.ndarray:
        skipped = number if source is path else 0
        return np.loadtxt(
            source, dtype, comments=None, delimiter=head.separator, skiprows=skipped, ndmin=2, encoding="utf-8-sig"
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
                whole = (table == np.trunc(table)) & (np.abs(table) < 1 << 53)  # beyond, floats are rounded
                if as_floats or whole.all():
                    return table
            fault, remedy = _first_fault(path, source, head.separator, columns, as_floats, number) or (
                f"expected integers: {error}",
                None,
            )
            raise RecordingError(f"{path}: {fault}", remedy) from None


def _first_fault(
    path: Path, source: Path | list[str], separator: str | None, columns: int, as_floats: bool, number: int
) -> tuple[str, str | None] | None:
    """Name the first line that is not so many numbers, whole ones unless floats are allowed, and the remedy, if any.

    Return None if there is no such line.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        lines = source if isinstance(source, list) else islice(file, number, None)
        for place, line in enumerate(lines, number + 1):
            try:
                row = [float(cell) for cell in line.strip().split(separator)]
            except ValueError:
                row = []
            is_exact = as_floats or all(value.is_integer() and abs(value) < 1 << 53 for value in row)
            if line.strip() and (len(row) != columns or not is_exact):
                kind = "numbers" if as_floats else "whole numbers"
                has_fractions = len(row) == columns and all(map(math.isfinite, row))
                hint, remedy = (SET_UNIT, "time_unit") if has_fractions else ("", None)
                return f"line {place}: expected {columns} {kind}, got {line.strip()[:80]!r}{hint}", remedy
    return None


def _readable(lines: list[str], number: int, separator: str | None, columns: int, losses: Losses) -> np.ndarray:
    """Return the rows of lines that are so many numbers."""
    rows = []
    for place, line in enumerate(lines):
        cells = line.strip().split(separator)
        try:
            row = [float(cell) for cell in cells]
        except ValueError:
            row = []
        if len(row) == columns:
            rows.append(row)
        elif line.strip():
            losses.add(1, f"line {number + place + 1}: expected {columns} numbers, got {line.strip()[:80]!r}")
    return np.array(rows, np.float64).reshape(-1, columns)
