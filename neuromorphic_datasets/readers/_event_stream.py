"""Event Stream 2 (.es), https://github.com/neuromorphicsystems/event_stream.

event_stream and faery read it too, but take a truncated file for a whole recording.
"""

from pathlib import Path

import numpy as np

from .._events import Recording, RecordingError
from ._recording import empty

_HEADER = 20
_DVS = 1


def read(path: Path, **_: object) -> Recording:
    """Read the DVS events."""
    from .. import _kernels

    content = np.memmap(path, np.uint8, "r")
    if len(content) < _HEADER:
        raise RecordingError(f"{path}: byte {len(content)}: expected a header of {_HEADER} bytes")
    if content[12] != 2:
        raise RecordingError(f"{path}: byte 12: expected version 2 of Event Stream, got {content[12]}")
    if content[15] != _DVS:
        raise RecordingError(f"{path}: byte 15: expected DVS events (type {_DVS}), got type {content[15]}")
    width, height = (int(side) for side in content[16:20].view("<u2"))
    data = content[_HEADER:]
    events = empty(len(data) // 5)
    count, fault, position = _kernels.event_stream(data, width, height, *vars(events).values())
    if fault:
        raise RecordingError(f"{path}: byte {_HEADER + position} (after event {count}): {_kernels.FAULTS[fault]}")
    return Recording(events[:count], (width, height, 2))
