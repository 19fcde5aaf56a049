"""AEDAT 2.0, 3.1 (https://docs.inivation.com/software/software-advanced-usage/file-formats/) and 4.

Tonic's readers of the older versions raise for every file or swap x and y; faery reads only version 4.
"""

import re
import struct
from pathlib import Path

import numpy as np

from .._events import Events, Recording, RecordingError
from ._recording import body, unwrapped

_SIZES = {
    "DVS128": (128, 128),
    "DAVIS128": (128, 128),
    "DAVIS240": (240, 180),
    "DAVIS346": (346, 260),
    "DAVIS640": (640, 480),
}
_PACKET_HEADER = struct.Struct("<hhiiiiii")
_POLARITY = 1


def _sensor(name: str) -> tuple[int, int, int] | None:
    """Return the size of the sensor whose name a chip's or source's name starts with."""
    for sensor, size in _SIZES.items():
        if name.upper().startswith(sensor):
            return (*size, 2)
    return None


def read_2(path: Path, *, sensor_size: tuple[int, int, int] | None, **_: object) -> Recording:
    """Read the polarity events of a DVS128 or DAVIS; frames, inertial and external events are left out.

    Addresses are converted to jAER's orientation: columns from the left, rows from the top. `sensor_size` determines
    the camera if the header does not.
    """
    lines, offset, data = body(path, b"#")
    excess = len(data) % 8
    if excess:
        raise RecordingError(f"{path}: byte {offset + len(data) - excess}: expected 8 bytes per event, got {excess}")
    address, time = np.asarray(data).view(">u4").reshape(-1, 2).T.astype(np.int64)
    tick = next((match[1] for line in lines if (match := re.search(r"tick is (.+)", line))), "1 us")
    if tick != "1 us":
        raise RecordingError(f"{path}: expected ticks of 1 us, got {tick}")
    chip, size = _chip(path, lines, sensor_size)
    width, height = size[:2]
    if chip.upper().startswith("DVS128"):
        # Bit 15 marks external events, bit 31 those of the software; a DVS128 sets no bit between them.
        foreign = (address >> 31 == 0) & (address >> 16 > 0)
        if foreign.any():
            event = int(foreign.argmax())
            raise RecordingError(
                f"{path}: byte {offset + 8 * event}: expected an address of a DVS128, below 2**16, got "
                f"{address[event]:#x}; is it from another camera?"
            )
        chosen = address >> 15 == 0
        x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1
    else:
        chosen = (address >> 31 == 0) & (address >> 10 & 1 == 0)
        x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
    columns_from_left, rows_from_top = width - 1 - x, height - 1 - y
    events = Events.compact(columns_from_left[chosen], rows_from_top[chosen], unwrapped(time, 32)[chosen], p[chosen])
    return Recording(events, size)


def _chip(path: Path, lines: list[str], sensor_size: tuple[int, int, int] | None) -> tuple[str, tuple[int, int, int]]:
    """Return the camera that the header names, or else the one of the caller's size, and its size."""
    named = [line.split("AEChip:")[1].split(".")[-1].strip() for line in lines if "AEChip:" in line]
    if not named:
        named = [sensor for sensor, size in _SIZES.items() if sensor_size is not None and size == sensor_size[:2]]
    if not named:
        sizes = ", ".join(f"{(*size, 2)} for a {sensor}" for sensor, size in _SIZES.items() if sensor != "DAVIS128")
        raise RecordingError(
            f"{path}: expected a line '# AEChip: NAME' in the header, got none, so its camera is unknown; "
            f"pass its size as sensor_size: {sizes}"
        )
    size = _sensor(named[0])
    if size is None:
        raise RecordingError(f"{path}: expected a chip {sorted(_SIZES)}, got {named[0]}")
    # A sensor_size may exceed the camera's, but that of a camera with other addresses contradicts the name.
    davis = {other.startswith("DAVIS") for other, sides in _SIZES.items() if sensor_size and sides == sensor_size[:2]}
    if davis and named[0].upper().startswith("DAVIS") not in davis:
        raise RecordingError(f"{path}: expected sensor_size {size}, as the file names a {named[0]}, got {sensor_size}")
    return named[0], size


def read_3(path: Path, **_: object) -> Recording:
    """Read the valid polarity events of AEDAT 3.1."""
    lines, offset, data = body(path, b"#")
    if "#!AER-DAT3.1" not in lines[:1] or "#!END-HEADER" not in lines:
        raise RecordingError(
            f"{path}: expected a header of AEDAT 3.1 up to #!END-HEADER, got {len(lines)} lines from {lines[:1]} on"
        )
    layout = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("#Format:")), None)
    if layout != "RAW":
        raise RecordingError(f"{path}: expected a line '#Format: RAW' in the header, got format {layout}")
    names = {int(match[1]): match[2] for line in lines if (match := re.match(r"#Source (\d+): (\S+)", line))}
    sources, words, times = set(), [], []
    position = 0
    while position < len(data):
        header = data[position : position + _PACKET_HEADER.size].tobytes()
        if len(header) < _PACKET_HEADER.size:
            raise RecordingError(f"{path}: byte {offset + position}: the file ends within a packet's header")
        kind, source, event_bytes, _, overflow, capacity, number, _ = _PACKET_HEADER.unpack(header)
        start, end = position + len(header), position + len(header) + event_bytes * capacity
        if not 0 <= number <= capacity or event_bytes < 1 or end > len(data):
            raise RecordingError(
                f"{path}: byte {offset + position}: expected a packet within the file, got {number} of {capacity} "
                f"events of {event_bytes} bytes, {len(data) - start} bytes before the end"
            )
        if kind == _POLARITY:
            if event_bytes != 8:
                raise RecordingError(f"{path}: byte {offset + position}: expected 8 bytes per event, got {event_bytes}")
            sources.add(source)
            packet = data[start : start + 8 * number].view("<u4").reshape(-1, 2)
            words.append(packet[:, 0])
            times.append(packet[:, 1].astype(np.int64) + (overflow << 31))
        position = end
    word = np.concatenate(words).astype(np.int64) if words else np.zeros(0, np.int64)
    t = np.concatenate(times) if times else word
    valid = word & 1 == 1
    events = Events.compact((word >> 17 & 0x7FFF)[valid], (word >> 2 & 0x7FFF)[valid], t[valid], (word >> 1 & 1)[valid])
    if len(sources) > 1:
        raise RecordingError(f"{path}: expected the events of one camera, got sources {sorted(sources)}")
    return Recording(events, _sensor(names.get(min(sources, default=0), "")))


def read_4(path: Path, **_: object) -> Recording:
    """Read the events of AEDAT 4 through faery."""
    import faery

    packets = []
    try:
        stream = faery.events_stream_from_file(path, file_type="aedat")
        width, height = stream.dimensions()
        packets.extend(stream)
    # faery raises plain Exceptions, and its panics are other BaseExceptions.
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise RecordingError(f"{path}: after event {sum(map(len, packets))}: {error}") from None
    events = np.concatenate(packets) if packets else np.zeros(0, [(field, np.int64) for field in "xytp"])
    columns = Events.compact(events["x"], events["y"], events["t"].astype(np.int64), events["p"])
    return Recording(columns, (width, height, 2))
