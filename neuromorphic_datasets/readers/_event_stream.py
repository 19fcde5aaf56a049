"""Event Stream 2 (.es), https://github.com/neuromorphicsystems/event_stream.

event_stream and faery read it too, but take a truncated file for a whole recording.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._events import Events, RecordingError
from ._decoding import Format, decoded
from ._recording import Losses, Options, Stream

_HEADER = 20
_DVS = 1


def read(path: Path, options: Options) -> Stream:
    """Read the DVS events."""
    from .. import _kernels

    content = np.asarray(np.memmap(path, np.uint8, "r"))
    if len(content) < _HEADER:
        raise RecordingError(f"{path}: byte {len(content)}: expected a header of {_HEADER} bytes")
    if content[12] != 2:
        raise RecordingError(f"{path}: byte 12: expected version 2 of Event Stream, got {content[12]}")
    if content[15] != _DVS:
        raise RecordingError(f"{path}: byte 15: expected DVS events (type {_DVS}), got type {content[15]}")
    width, height = (int(side) for side in content[16:20].view("<u2"))
    form = Format(_kernels.event_stream, lambda data: len(data) // 5 + 1, np.dtype("u1"))
    size = width, height, 2

    def pieces(losses: Losses) -> Iterator[Events]:
        return decoded(path, form, content[_HEADER:], _HEADER, size, options, losses)

    return Stream(size, pieces, content)
