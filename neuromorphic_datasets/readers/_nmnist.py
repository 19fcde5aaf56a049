"""The .bin files of N-MNIST and N-Caltech101 (Orchard et al. 2015): five bytes per event, read by Tonic."""

from pathlib import Path

import numpy as np

from .._events import RecordingError
from .._tonic import read_mnist_file
from ._recording import Recording, packed

_EVENT_BYTES = 5


def read(path: Path, **_: object) -> Recording:
    """Read a recording; the files do not state the sensor's size."""
    size = path.stat().st_size
    excess = size % _EVENT_BYTES
    if excess:
        raise RecordingError(f"{path}: byte {size - excess}: expected {_EVENT_BYTES} bytes per event, got {excess}")
    # A truncated download or a crash leaves zeros, which would pass for events of the first pixel.
    if not np.fromfile(path, np.uint8).any():
        raise RecordingError(f"{path}: all its {size} bytes are zero")
    events = read_mnist_file(path)
    return Recording(packed(events["x"], events["y"], events["t"], events["p"]))
