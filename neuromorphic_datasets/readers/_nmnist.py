"""The .bin files of N-MNIST and N-Caltech101 (Orchard et al. 2015).

Five bytes per event: x, y, a bit of polarity and 23 bits of time. A row of 240 is no event but 2**13 µs on the clock.
"""

from pathlib import Path

import numpy as np

from .._events import Events, Recording, RecordingError

_EVENT_BYTES = 5
_OVERFLOW_ROW = 240
_OVERFLOW_US = 1 << 13


def read(path: Path, **_: object) -> Recording:
    """Read a recording; the files do not state the sensor's size."""
    content = np.fromfile(path, np.uint8)
    excess = len(content) % _EVENT_BYTES
    if excess:
        raise RecordingError(
            f"{path}: byte {len(content) - excess}: expected {_EVENT_BYTES} bytes per event, got {excess}"
        )
    # A truncated download or a crash leaves zeros, which would pass for events of the first pixel.
    if not content.any():
        raise RecordingError(f"{path}: all its {len(content)} bytes are zero")
    x, y, high, middle, low = content.reshape(-1, _EVENT_BYTES).T.astype(np.int64)
    is_event = y != _OVERFLOW_ROW
    t = ((high & 0x7F) << 16 | middle << 8 | low) + np.cumsum(~is_event) * _OVERFLOW_US
    return Recording(Events.compact(x[is_event], y[is_event], t[is_event], high[is_event] >> 7))
