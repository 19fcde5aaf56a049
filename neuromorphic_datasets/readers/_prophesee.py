"""Prophesee's RAW files with EVT 2.0, 2.1 and 3.0, and DAT files.

EVT is described at https://docs.prophesee.ai/stable/data/encoding_formats/index.html.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .._events import Events, RecordingError
from ._decoding import Format, decoded
from ._recording import Clock, Losses, Options, Stream, body, cuts, whole_words


def read(path: Path, options: Options) -> Stream:
    """Read a file whose text starts with %: RAW if its header names an encoding, else DAT."""
    lines, offset, data = body(path, b"%")
    header = {key: value for line in lines for key, value in re.findall(r"^%\s*(\S*)\s*(.*)", line)}
    encoding = _encoding(header)
    if encoding is None and "Version" in header:
        return _read_dat(path, header, offset, data, options)
    if encoding not in _FORMATS:
        raise RecordingError(
            f"{path}: expected a header with the encoding EVT 2.0, 2.1 or 3.0, or that of a DAT file, got "
            + (f"EVT {encoding}" if encoding else f"{len(lines)} lines of text without it")
        )
    order = _stated(header, "endianness")
    if order not in (None, "little", "legacy"):
        raise RecordingError(f"{path}: expected little-endian words, got {order}")
    return _read_evt(path, encoding, order, _geometry(path, header), offset, data, options)


def _encoding(header: dict[str, str]) -> str | None:
    """Return "2.0", "3.0" or another number from either notation, or None."""
    if "evt" in header:
        return header["evt"]
    match = re.match(r"EVT(\d)(\d)?", header.get("format", ""))
    return f"{match[1]}.{match[2] or 0}" if match else None


def _stated(header: dict[str, str], name: str) -> str | None:
    """Return a value from its own line, or from "format EVT3;height=720;width=1280"."""
    match = re.search(rf"\b{name}\s*=\s*([^;\s]+)", header.get("format", ""))
    return match[1] if match else header.get(name)


def _geometry(path: Path, header: dict[str, str]) -> tuple[int, int, int] | None:
    """Return the sensor's size, or None if the header does not say it."""
    if "geometry" in header:
        sides = re.findall(r"\d+", header["geometry"])
        return _size(path, sides if len(sides) == 2 else [f"geometry {header['geometry']}"])
    return _size(path, [side for name in ("width", "height") if (side := _stated(header, name))])


def _size(path: Path, sides: Sequence[str]) -> tuple[int, int, int] | None:
    """Return a sensor's size from its width and height; None if one of them is not said."""
    if not all(side.isdecimal() for side in sides):
        raise RecordingError(f"{path}: expected the sensor's width and height in the header, got {', '.join(sides)}")
    return (int(sides[0]), int(sides[1]), 2) if len(sides) == 2 else None


def _formats() -> dict[str, Format]:
    from .. import _kernels

    return {
        "2.0": Format(_kernels.evt2, len, np.dtype("<u4")),
        "2.1": Format(_kernels.evt21, _kernels.evt21_size, np.dtype("<u8")),
        "3.0": Format(_kernels.evt3, _kernels.evt3_size, np.dtype("<u2")),
    }


_FORMATS = ("2.0", "2.1", "3.0")


def _read_evt(
    path: Path,
    encoding: str,
    order: str | None,
    sensor_size: tuple[int, int, int] | None,
    offset: int,
    data: np.ndarray,
    options: Options,
) -> Stream:
    form = _formats()[encoding]

    def pieces(losses: Losses) -> Iterator[Events]:
        count = whole_words(path, len(data), form.word.itemsize, offset, options, losses)
        words = data[: count * form.word.itemsize].view(form.word)
        legacy = encoding == "2.1" and (order or _order(path, words)) == "legacy"
        return decoded(path, _legacy(form) if legacy else form, words, offset, sensor_size, options, losses)

    return Stream(sensor_size, pieces, data)


def _legacy(form: Format) -> Format:
    """Return EVT 2.1 whose words have their upper half first, as an IMX636 sends them."""

    def turned(words: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(words.view("<u4").reshape(-1, 2)[:, ::-1]).view("<u8").reshape(-1)

    return Format(lambda words, *rest: form.decode(turned(words), *rest), lambda w: form.size(turned(w)), form.word)


def _order(path: Path, words: np.ndarray) -> str:
    """Return the order of EVT 2.1 words whose header does not state it: only one has types of words that exist.

    Raises:
        RecordingError: both have, or none.
    """
    known, clocks = np.array([True, True]), np.array([False, False])
    for part in cuts(len(words), 1 << 20):
        types = words[part].view("<u4").reshape(-1, 2) >> 28
        known &= np.isin(types, (0, 1, 8, 10, 14, 15)).all(axis=0)
        clocks |= (types == 8).any(axis=0)
    upper_first, upper_last = (known & clocks).tolist()
    if upper_last == upper_first:
        raise RecordingError(
            f"{path}: expected endianness=little or endianness=legacy in the header of an EVT 2.1 file whose words do "
            "not show their order, got neither"
        )
    return "legacy" if upper_first else "little"


def _read_dat(path: Path, header: dict[str, str], offset: int, data: np.ndarray, options: Options) -> Stream:
    if len(data) < 2:
        raise RecordingError(f"{path}: byte {offset}: the file ends where the type of its events is expected")
    version, kind, size = header["Version"], int(data[0]), int(data[1])
    if version not in ("1", "2"):
        raise RecordingError(f"{path}: expected version 1 or 2 of DAT, got {version!r}")
    if kind not in (0, 12) or size != 8:
        raise RecordingError(
            f"{path}: byte {offset}: expected events of type 0 or 12 in 8 bytes, got type {kind} in {size} bytes"
        )
    sensor_size = _size(path, [header[name] for name in ("Width", "Height") if name in header])

    def pieces(losses: Losses) -> Iterator[Events]:
        count, clock = whole_words(path, len(data) - 2, 8, offset + 2, options, losses), Clock(32)
        words = data[2 : 2 + 8 * count].view("<u4").reshape(-1, 2)
        for part in cuts(len(words), options.piece):
            t, address = words[part].T.astype(np.int64)
            if version == "1":
                x, y, p = address & 0x1FF, address >> 9 & 0xFF, address >> 17 & 1
            else:
                x, y, p = address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28
            t, right = clock.unwrapped(t), p <= 1
            if not right.all():
                event = part.start + int(right.argmin())
                reason = f"byte {offset + 2 + 8 * event} (event {event}): expected polarity 0 or 1, got {p[~right][0]}"
                if not options.lenient:
                    raise RecordingError(f"{path}: {reason}")
                losses.add(int((~right).sum()), reason)
            yield Events.compact(x[right], y[right], t[right], p[right])

    return Stream(sensor_size, pieces, data)
