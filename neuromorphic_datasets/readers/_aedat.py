"""AEDAT 2.0, 3.1 (https://docs.inivation.com/software/software-advanced-usage/file-formats/) and 4.

Tonic's readers of the older versions raise for every file or swap x and y; faery reads only version 4.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._events import Events, RecordingError
from .._packages import needs
from ._recording import Clock, Losses, Options, Stream, body, cuts, whole_words

_SIZES = {
    "DVS128": (128, 128),
    "DAVIS128": (128, 128),
    "DAVIS240": (240, 180),
    "DAVIS346": (346, 260),
    "DAVIS640": (640, 480),
}
_PACKET_HEADER = struct.Struct("<hhiiiiii")
_POLARITY = 1
_MAGIC_4 = b"#!AER-DAT4.0\r\n"


def _sensor(name: str) -> tuple[int, int, int] | None:
    """Return the size of the sensor whose name a chip's or source's name starts with."""
    for sensor, size in _SIZES.items():
        if name.upper().startswith(sensor):
            return (*size, 2)
    return None


def read_2(path: Path, options: Options) -> Stream:
    """Read the polarity events of a DVS128 or DAVIS; frames, inertial and external events are left out.

    Addresses are converted to jAER's orientation: columns from the left, rows from the top. The caller's sensor size
    determines the camera if the header does not.
    """
    lines, offset, data = body(path, b"#")
    tick = next((match[1] for line in lines if (match := re.search(r"tick is (.+)", line))), "1 us")
    if tick != "1 us":
        raise RecordingError(f"{path}: expected ticks of 1 us, got {tick}")
    chip, size = _chip(path, lines, options.sensor_size)

    def pieces(losses: Losses) -> Iterator[Events]:
        count, clock = whole_words(path, len(data), 8, offset, options, losses), Clock(32)
        words = data[: 8 * count].view(">u4").reshape(-1, 2)
        for part in cuts(count, options.piece):
            address, time = words[part].T.astype(np.int64)
            t = clock.unwrapped(time)
            if chip.upper().startswith("DVS128"):
                address, t = _of_dvs128(path, address, t, offset + 8 * part.start, options, losses)
                chosen = address >> 15 == 0
                x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1
            else:
                chosen = (address >> 31 == 0) & (address >> 10 & 1 == 0)
                x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
            from_left, from_top = size[0] - 1 - x, size[1] - 1 - y
            yield Events.compact(from_left[chosen], from_top[chosen], t[chosen], p[chosen])

    return Stream(size, pieces, data)


def _of_dvs128(
    path: Path, address: np.ndarray, t: np.ndarray, offset: int, options: Options, losses: Losses
) -> tuple[np.ndarray, np.ndarray]:
    """Return addresses and times without those that a DVS128 does not send, which are faults."""
    # Bit 15 marks external events, bit 31 those of the software; a DVS128 sets no bit between them.
    foreign = (address >> 31 == 0) & (address >> 16 > 0)
    if not foreign.any():
        return address, t
    event = int(foreign.argmax())
    reason = (
        f"byte {offset + 8 * event}: expected an address of a DVS128, below 2**16, got {address[event]:#x}; is it from "
        "another camera?"
    )
    if not options.lenient:
        raise RecordingError(f"{path}: {reason}")
    losses.add(int(foreign.sum()), reason)
    return address[~foreign], t[~foreign]


def _chip(path: Path, lines: list[str], sensor_size: tuple[int, int, int] | None) -> tuple[str, tuple[int, int, int]]:
    """Return the camera that the header names, or else the one of the caller's size, and its size."""
    named = [line.split("AEChip:")[1].split(".")[-1].strip() for line in lines if "AEChip:" in line]
    if not named:
        named = [sensor for sensor, size in _SIZES.items() if sensor_size is not None and size == sensor_size[:2]]
    if not named:
        sizes = ", ".join(f"{(*size, 2)} for a {sensor}" for sensor, size in _SIZES.items() if sensor != "DAVIS128")
        raise RecordingError(
            f"{path}: expected a line '# AEChip: NAME' in the header, got none, so its camera is unknown; "
            f"set sensor_size to its size: {sizes}",
            "sensor_size",
        )
    size = _sensor(named[0])
    if size is None:
        raise RecordingError(f"{path}: expected a chip {sorted(_SIZES)}, got {named[0]}")
    # A sensor_size may exceed the camera's, but that of a camera with other addresses contradicts the name.
    davis = {other.startswith("DAVIS") for other, sides in _SIZES.items() if sensor_size and sides == sensor_size[:2]}
    if davis and named[0].upper().startswith("DAVIS") not in davis:
        raise RecordingError(f"{path}: expected sensor_size {size}, as the file names a {named[0]}, got {sensor_size}")
    return named[0], size


def read_3(path: Path, options: Options) -> Stream:
    """Read the valid polarity events of AEDAT 3.1, a piece for each packet."""
    lines, offset, data = body(path, b"#")
    if "#!AER-DAT3.1" not in lines[:1] or "#!END-HEADER" not in lines:
        raise RecordingError(
            f"{path}: expected a header of AEDAT 3.1 up to #!END-HEADER, got {len(lines)} lines from {lines[:1]} on"
        )
    layout = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("#Format:")), None)
    if layout != "RAW":
        raise RecordingError(f"{path}: expected a line '#Format: RAW' in the header, got format {layout}")
    names = {int(match[1]): match[2] for line in lines if (match := re.match(r"#Source (\d+): (\S+)", line))}
    sources = {source for source, _, _ in _packets(path, data, offset, options, Losses())}
    if len(sources) > 1:
        raise RecordingError(f"{path}: expected the events of one camera, got sources {sorted(sources)}")

    def pieces(losses: Losses) -> Iterator[Events]:
        for _, packet, overflow in _packets(path, data, offset, options, losses):
            word, t = packet[:, 0].astype(np.int64), packet[:, 1].astype(np.int64) + (overflow << 31)
            valid = word & 1 == 1
            x, y, p = word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, word >> 1 & 1
            yield Events.compact(x[valid], y[valid], t[valid], p[valid])

    return Stream(_sensor(names.get(min(sources, default=0), "")), pieces, data)


def _packets(
    path: Path, data: np.ndarray, offset: int, options: Options, losses: Losses
) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yield the source, the words (n, 2) and the overflows of the clock of each packet of polarity events."""
    position = 0
    while position < len(data):
        header = data[position : position + _PACKET_HEADER.size].tobytes()
        reason = "the file ends within a packet's header"
        if len(header) == _PACKET_HEADER.size:
            kind, source, event_bytes, _, overflow, capacity, number, _ = _PACKET_HEADER.unpack(header)
            start, end = position + len(header), position + len(header) + event_bytes * capacity
            reason = ""
            if not 0 <= number <= capacity or event_bytes < 1 or end > len(data):
                reason = (
                    f"expected a packet within the file, got {number} of {capacity} events of {event_bytes} bytes, "
                    f"{len(data) - start} bytes before the end"
                )
            elif kind == _POLARITY and event_bytes != 8:
                reason = f"expected 8 bytes per event, got {event_bytes}"
        if reason:
            if not options.lenient:
                raise RecordingError(f"{path}: byte {offset + position}: {reason}")
            losses.add(1, f"byte {offset + position}: {reason}; the rest of the file is left out")
            return
        if kind == _POLARITY:
            yield source, data[start : start + 8 * number].view("<u4").reshape(-1, 2), overflow
        position = end


def read_4(path: Path, options: Options) -> Stream:
    """Read the events of AEDAT 4 through faery, a piece for each packet."""
    with needs("aedat"):
        import faery

    _check_description(path)
    try:
        width, height = faery.events_stream_from_file(path, file_type="aedat").dimensions()
    except BaseException as error:
        raise _named(path, 0, error) from None

    def pieces(losses: Losses) -> Iterator[Events]:
        count = 0
        try:
            for packet in faery.events_stream_from_file(path, file_type="aedat"):
                yield Events.compact(packet["x"], packet["y"], packet["t"].astype(np.int64), packet["p"])
                count += len(packet)
        except BaseException as error:
            fault = _named(path, count, error)
            if not options.lenient:
                raise fault from None
            losses.add(1, f"{fault}; the rest of the file is left out")

    return Stream((width, height, 2), pieces)


def _check_description(path: Path) -> None:
    """Raise RecordingError unless the header of AEDAT 4 holds text, as faery ends the process on any other bytes."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<I", file.read(len(_MAGIC_4) + 4)[len(_MAGIC_4) :])
            header = file.read(size)
        # A FlatBuffers table, whose third field is where the text lies.
        (table,) = struct.unpack_from("<I", header)
        fields = table - struct.unpack_from("<i", header, table)[0]
        field = table + struct.unpack_from("<H", header, fields + 8)[0]
        text = field + struct.unpack_from("<I", header, field)[0]
        (length,) = struct.unpack_from("<I", header, text)
        header[text + 4 : text + 4 + length].decode()
    except struct.error:
        raise RecordingError(f"{path}: byte {len(_MAGIC_4)}: expected a header of AEDAT 4, got other bytes") from None
    except UnicodeDecodeError as error:
        at = len(_MAGIC_4) + 8 + text + error.start
        got = error.object[error.start]
        raise RecordingError(f"{path}: byte {at}: expected a header in UTF-8, got {got:#x}") from None


def _named(path: Path, count: int, error: BaseException) -> RecordingError:
    """Return what faery raises, plain Exceptions and other BaseExceptions, as a RecordingError."""
    if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError | GeneratorExit | RecordingError):
        raise error
    return RecordingError(f"{path}: after event {count}: {error}")
