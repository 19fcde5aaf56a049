"""``saccade-digits``: real handwritten digits seen by a simulated event camera that makes N-MNIST's saccades.

Scikit-learn's 1797 digit scans (8x8 pixels of 0..16) are shown to `CAMERA`, of 34x34 pixels, as dark ink on bright
paper, a pixel as a tile of `TILE_PX` sensor pixels, so that a digit is 19.2 pixels high (an MNIST digit is 20 high).
Dark on bright gives the polarities of N-MNIST's files: OFF on the leading side of a moving stroke. The motion, the lens
and the camera are those of `neuromorphic_datasets._saccades`; thresholds are 0.25 of ln(light), with a mismatch of 0.04
of a threshold, the refractory time is 1000 µs, and background noise 0.3 events per pixel and second.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _cache, _saccades
from ._dataset import StoredDataset, digest, is_ours
from ._event_camera import EventCamera
from ._events import Recording
from ._splits import fixed_test_part

__all__ = ["CAMERA", "EventCamera", "SaccadeDigits", "simulate"]

TILE_PX = 2.4
CAMERA = EventCamera()
"""The simulated camera that records the digits."""
_SCENE = _saccades.Scene(TILE_PX, is_ink=True)


def simulate(
    images: np.ndarray, recordings: Sequence[int] | None = None, camera: EventCamera = CAMERA
) -> list[np.ndarray]:
    """Simulate the recordings of images.

    Args:
        images: scans of shape (n, rows, columns), values in [0, 16], any real dtype.
        recordings: a number >= 0 per image, which selects its noise; None numbers them from 0. The data set
            uses the number of the scan in ``sklearn.datasets.load_digits()``.
        camera: the sensor.

    Returns:
        The events of each image: structured arrays of x, y, t (µs, ascending, from 0 to 300 000) and p (1
        ON, 0 OFF), int64 each.

    Raises:
        ValueError: the shape or the values of `images` are invalid, or `recordings` differs in length.

    Example:
        >>> import numpy as np
        >>> bar = np.zeros((1, 8, 8))
        >>> bar[:, :, 3:5] = 16
        >>> [events] = simulate(bar)
        >>> events.dtype.names, bool((np.diff(events["t"]) >= 0).all()), bool(events["t"].max() < 300_000)
        (('x', 'y', 't', 'p'), True, True)
    """
    images = np.asarray(images, dtype=np.float64)
    if images.ndim != 3:
        raise ValueError(f"images: expected shape (n, rows, columns), got {images.shape}")
    if not ((images >= 0) & (images <= 16)).all():
        raise ValueError(f"images: expected values in [0, 16], got [{images.min()}, {images.max()}]")
    recordings = range(len(images)) if recordings is None else recordings
    if len(recordings) != len(images):
        raise ValueError(f"recordings: expected {len(images)} numbers, one per image, got {len(recordings)}")
    return _saccades.recorded(images / 16, recordings, camera, _SCENE)


class SaccadeDigits(StoredDataset):
    """The data set ``saccade-digits``; make it with ``neuromorphic_datasets.load("saccade-digits")``.

    All recordings are simulated on first use, in about ten seconds, into one file in the folder `root`.

    Args:
        split: "train" (1437 recordings), "test" (360) or "all".
        root: the folder of the file.
        transform: applied to the events, as in `load`.

    Example:
        Only the first recording of "all":

        >>> from sklearn.datasets import load_digits
        >>> [events] = simulate(load_digits().images[:1], recordings=[0])
        >>> len(events) > 1000, int(events["x"].max()) < CAMERA.width
        (True, True)
    """

    def __init__(self, split: str, root: Path, transform: Callable[[np.ndarray], Any] | None = None):
        from sklearn.datasets import load_digits

        scans = load_digits()
        train, test = fixed_test_part(scans.target, [*map(str, scans.target_names)])
        self._chosen = {"train": train, "test": test, "all": np.arange(len(scans.target))}[split]
        super().__init__(
            "saccade-digits",
            split,
            (CAMERA.width, CAMERA.height, 2),
            [str(digit) for digit in scans.target_names],
            scans.target[self._chosen],
            transform,
        )
        path = root / f"saccade-digits-{_fingerprint()}.pack"
        batches, labels = _saccades.Batches(scans.images, 16, CAMERA, _SCENE), scans.target
        self._pack = _cache.load_or_build(
            path, lambda file: _saccades.write(file, "saccade-digits", labels, batches, None)
        )

    @property
    def fingerprint(self) -> str:
        """Digits of the simulation's constants; empty for a subclass."""
        return _fingerprint() if is_ours(type(self)) else ""

    def read(self, position: int, lenient: bool = False) -> Recording:
        return Recording(self._pack.events(int(self._chosen[position])))

    def packed(self) -> tuple[_cache.Pack, np.ndarray]:
        return self._pack, self._chosen


def _fingerprint() -> str:
    """Return digits that differ for other constants, so that no stale file is ever read."""
    return digest((_saccades.model(), TILE_PX, CAMERA))
