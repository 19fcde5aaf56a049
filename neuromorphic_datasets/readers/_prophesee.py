"""Prophesee's RAW files in EVT 2.0 and 3.0, and DAT files.

Formats: https://docs.prophesee.ai/stable/data/encoding_formats/ and .../data/file_formats/.
expelliarmus and faery read them too, but take a damaged file for a whole recording, or do not return.
"""

import re
import warnings
from pathlib import Path

import numpy as np

from .._events import Events, Recording, RecordingError
from ._recording import body, empty, unwrapped

# Upper bound of the sensor's sides for files that state no geometry.
_LARGEST = 2048


def read(path: Path, **_: object) -> Recording:
    """Read a file whose text starts with %: RAW if its header names an encoding, else DAT."""
    lines, offset, data = body(path, b"%")
    header = {key: value for line in lines for key, value in re.findall(r"^%\s*(\S*)\s*(.*)", line)}
    if header.get("endianness", "little") != "little":
        raise RecordingError(f"{path}: expected little-endian words, got {header['endianness']}")
    encoding = _encoding(header)
    if encoding is None and "Version" in header:
        return _read_dat(path, header, offset, data)
    if encoding not in ("2.0", "3.0"):
        raise RecordingError(
            f"{path}: expected a header with the encoding EVT 2.0 or EVT 3.0, or that of a DAT file, got "
            + (f"EVT {encoding}" if encoding else f"{len(lines)} lines of text without it")
        )
    return _read_evt(path, encoding, _geometry(header), offset, data)


def _encoding(header: dict[str, str]) -> str | None:
    """Return "2.0", "3.0" or another number from either notation, or None."""
    if "evt" in header:
        return header["evt"]
    match = re.match(r"EVT(\d)(\d)?", header.get("format", ""))
    return f"{match[1]}.{match[2] or 0}" if match else None


def _geometry(header: dict[str, str]) -> tuple[int, int, int] | None:
    """Return the sensor's size from "geometry 1280x720" or "format EVT3;height=720;width=1280", or None."""
    sides = re.findall(r"\d+", header.get("geometry", ""))
    if len(sides) != 2:
        sides = [
            *re.findall(r"width=(\d+)", header.get("format", "")),
            *re.findall(r"height=(\d+)", header.get("format", "")),
        ]
    return (int(sides[0]), int(sides[1]), 2) if len(sides) == 2 else None


def _read_evt(
    path: Path, encoding: str, sensor_size: tuple[int, int, int] | None, offset: int, data: np.ndarray
) -> Recording:
    from .. import _kernels

    word = np.dtype("<u2" if encoding == "3.0" else "<u4")
    excess = len(data) % word.itemsize
    if excess:
        raise RecordingError(
            f"{path}: byte {offset + len(data) - excess}: expected words of {word.itemsize} bytes to the end, "
            f"got {excess} more"
        )
    words = np.asarray(data).view(word)
    width, height = sensor_size[:2] if sensor_size else (_LARGEST, _LARGEST)
    size, decode = (_kernels.evt3_size(words), _kernels.evt3) if encoding == "3.0" else (len(words), _kernels.evt2)
    events = empty(size)
    count, fault, position, untimed = decode(words, width, height, *vars(events).values())
    if fault:
        raise RecordingError(
            f"{path}: byte {offset + position * word.itemsize} (after event {count}): {_kernels.FAULTS[fault]}"
        )
    if untimed and count:
        warnings.warn(f"{path}: {untimed} words of events before the first word of time are left out", stacklevel=2)
    return Recording(events[:count], sensor_size)


def _read_dat(path: Path, header: dict[str, str], offset: int, data: np.ndarray) -> Recording:
    if len(data) < 2:
        raise RecordingError(f"{path}: byte {offset}: the file ends where the type of its events is expected")
    version, kind, size = header["Version"], int(data[0]), int(data[1])
    if version not in ("1", "2"):
        raise RecordingError(f"{path}: expected version 1 or 2 of DAT, got {version!r}")
    if kind not in (0, 12) or size != 8:
        raise RecordingError(
            f"{path}: byte {offset}: expected events of type 0 or 12 in 8 bytes, got type {kind} in {size} bytes"
        )
    excess = (len(data) - 2) % 8
    if excess:
        raise RecordingError(f"{path}: byte {offset + len(data) - excess}: expected 8 bytes per event, got {excess}")
    t, address = np.asarray(data[2:]).view("<u4").reshape(-1, 2).T.astype(np.int64)
    if version == "1":
        x, y, p = address & 0x1FF, address >> 9 & 0xFF, address >> 17 & 1
    else:
        x, y, p = address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28
    if p.size and p.max() > 1:
        event = int((p > 1).argmax())
        raise RecordingError(
            f"{path}: byte {offset + 2 + 8 * event} (event {event}): expected polarity 0 or 1, got {p[event]}"
        )
    sides = header.get("Width", ""), header.get("Height", "")
    sensor_size = (int(sides[0]), int(sides[1]), 2) if all(side.isdigit() for side in sides) else None
    return Recording(Events.compact(x, y, unwrapped(t, 32), p), sensor_size)
