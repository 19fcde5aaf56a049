"""``saccade-digits``: real handwritten digits seen by a simulated event camera that makes N-MNIST's saccades.

Scene: scikit-learn's 1797 digit scans (8x8 pixels of 0..16) are shown to the camera as dark ink on bright
paper, and it views each in three saccades, as in N-MNIST (Orchard et al. 2015). Dark on bright gives the
polarities of N-MNIST's files: OFF on the leading side of a moving stroke.

* Paper: a scan's pixel is a uniform square tile of `TILE_PX` sensor pixels, 19.2 pixels for the whole digit
  (an MNIST digit is 20 high). The lens blurs it with a Gaussian of standard deviation `BLUR_PX`. Light is 1
  from blank paper, `INK_LEVEL` from a wide area of full ink, and proportional in between.
* Motion: three straight legs of `LEG_US` between the corners `PATH_PX` of a triangle, back to its start.
  Along each leg the image moves with the minimum-jerk profile 10 s^3 - 15 s^4 + 6 s^5, at rest at both ends.
* Sensor: `CAMERA`, an `EventCamera` of 34x34 pixels; `neuromorphic_datasets._event_camera` has the pixel
  model. The scene is rendered every `STEP_US`, and event times are interpolated in between.

Constants, with units:

=============  =======================================  ==============================================
`TILE_PX`      2.4 sensor pixels                        side of one of a scan's pixels
`BLUR_PX`      0.6 sensor pixels                        standard deviation of the optical blur
`INK_LEVEL`    0.1 of blank paper's light               light of full ink
`LEG_US`       100 000 µs                               duration of one of the three legs
`STEP_US`      1000 µs                                  time between rendered frames
`PATH_PX`      (0, 0) (3.5, 7) (7, 0) (0, 0) pixels     corners (x, y) of the image's path
`CAMERA`       thresholds 0.25 and 0.25 of ln(light)    contrast for an ON and an OFF event
..             mismatch 0.04 of a threshold             standard deviation between pixels
..             refractory time 1000 µs                  reset after an event
..             noise 0.3 events / (pixel s)             background activity
..             seed 0                                   seed of mismatch and noise
=============  =======================================  ==============================================

Every recording depends only on its scan, its number in scikit-learn's order and these constants: each has its
own stream of noise, and all share the mismatch, which belongs to the sensor.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import _cache
from ._dataset import StoredDataset, digest, is_ours
from ._event_camera import EventCamera
from ._events import Events, Recording
from ._splits import fixed_test_part

__all__ = ["CAMERA", "EventCamera", "SaccadeDigits", "simulate"]

TILE_PX = 2.4
BLUR_PX = 0.6
INK_LEVEL = 0.1
LEG_US = 100_000
STEP_US = 1000
PATH_PX = ((0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0))
CAMERA = EventCamera()

# Part of the cache file's name: increase it when the model changes other than by a constant above.
_MODEL_VERSION = 1
# Recordings simulated together: enough to keep NumPy busy, few enough for the processor's cache.
_BATCH = 32


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
    times = range(0, 3 * LEG_US + 1, STEP_US)
    frames = (_seen(images / 16, camera, *_position(time)) for time in times)
    return camera.record(times, frames, recordings)


def _position(time_us: float) -> tuple[float, float]:
    """Return the image's offset (x, y) from the sensor's centre at a time, in sensor pixels."""
    leg = min(int(time_us // LEG_US), 2)
    s = time_us / LEG_US - leg
    progress = s**3 * (10 + s * (6 * s - 15))
    start, end = np.array(PATH_PX[leg]), np.array(PATH_PX[leg + 1])
    middle = (np.min(PATH_PX, axis=0) + np.max(PATH_PX, axis=0)) / 2
    x, y = start + progress * (end - start) - middle
    return x, y


def _seen(ink: np.ndarray, camera: EventCamera, x: float, y: float) -> np.ndarray:
    """Return the light on the sensor, (n, height, width), of ink (n, rows, columns) within [0, 1]."""
    rows = _lens(ink.shape[1], camera.height, y)
    columns = _lens(ink.shape[2], camera.width, x)
    return 1 - (1 - INK_LEVEL) * (rows @ ink @ columns.T)


def _lens(tiles: int, pixels: int, offset: float) -> np.ndarray:
    """Return each tile's share of each sensor pixel's light along one axis, of shape (pixels, tiles).

    A tile blurred by a Gaussian is a difference of two error functions: smooth in the offset, and never
    negative.
    """
    from scipy.special import ndtr

    pixel = np.arange(pixels) - (pixels - 1) / 2
    edge = (np.arange(tiles + 1) - tiles / 2) * TILE_PX + offset
    return np.diff(ndtr((edge - pixel[:, None]) / BLUR_PX), axis=1)


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
        train, test = fixed_test_part(scans.target)
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
        self._pack = _cache.load_or_build(path, lambda file: _generate(file, scans.images, scans.target))

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
    return digest((_MODEL_VERSION, TILE_PX, BLUR_PX, INK_LEVEL, LEG_US, STEP_US, PATH_PX, CAMERA))


def _generate(file: BinaryIO, images: np.ndarray, targets: np.ndarray) -> None:
    """Simulate all recordings into a packed file."""
    from tqdm import tqdm

    writer = _cache.Writer(file, (CAMERA.width, CAMERA.height, 2))
    with tqdm(total=len(images), desc="simulating saccade-digits", unit="recording") as progress:
        for start in range(0, len(images), _BATCH):
            numbers = range(start, min(start + _BATCH, len(images)))
            for number, events in zip(numbers, simulate(images[numbers.start : numbers.stop], numbers), strict=True):
                writer.add(Recording(Events.of(events)), int(targets[number]), number)
            progress.update(len(numbers))
    writer.finish()
