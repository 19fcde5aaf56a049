"""The .bin files of N-MNIST and N-Caltech101 (Orchard et al. 2015).

Five bytes per event: x, y, a bit of polarity and 23 bits of time. A row of 240 is no event but 2**13 µs on the clock.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._events import Events, RecordingError
from ._recording import Losses, Options, Stream, cuts, whole_words

_EVENT_BYTES = 5
_OVERFLOW_ROW = 240
_OVERFLOW_US = 1 << 13


def read(path: Path, options: Options) -> Stream:
    """Read a recording; the files do not state the sensor's size."""
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    # A truncated download or a crash leaves zeros, which would pass for events of the first pixel.
    if not content.any():
        raise RecordingError(f"{path}: all its {len(content)} bytes are zero")

    def pieces(losses: Losses) -> Iterator[Events]:
        count, overflows = whole_words(path, len(content), _EVENT_BYTES, 0, options, losses), 0
        words = content[: count * _EVENT_BYTES].reshape(-1, _EVENT_BYTES)
        for part in cuts(len(words), options.piece):
            x, y, high, middle, low = words[part].T.astype(np.int64)
            is_event = y != _OVERFLOW_ROW
            passed = overflows + np.cumsum(~is_event)
            t = ((high & 0x7F) << 16 | middle << 8 | low) + passed * _OVERFLOW_US
            yield Events.compact(x[is_event], y[is_event], t[is_event], high[is_event] >> 7)
            overflows = int(passed[-1])

    return Stream(None, pieces, content)
