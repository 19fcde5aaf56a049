"""Images seen by a simulated event camera that makes N-MNIST's three saccades (Orchard et al. 2015).

* Scene: an image's pixel is a uniform square tile of so many sensor pixels; around the image is nothing. The lens blurs
  it with a Gaussian of standard deviation `BLUR_PX`. The darkest light is `DARKEST` of the brightest.
* Motion: three straight legs of `LEG_US` between the corners `PATH_PX` of a triangle, back to its start. Along each leg
  the image moves with the minimum-jerk profile 10 s^3 - 15 s^4 + 6 s^5, at rest at both ends.
* Sensor: an `EventCamera`; `neuromorphic_datasets._event_camera` has the pixel model. The scene is rendered every
  `STEP_US`, and event times are interpolated in between.

Constants, with units:

=============  =======================================  ==============================================
`BLUR_PX`      0.6 sensor pixels                        standard deviation of the optical blur
`DARKEST`      0.1 of the brightest light               light of full ink, or of black
`LEG_US`       100 000 µs                               duration of one of the three legs
`STEP_US`      1000 µs                                  time between rendered frames
`PATH_PX`      (0, 0) (3.5, 7) (7, 0) (0, 0) pixels     corners (x, y) of the image's path
=============  =======================================  ==============================================

Every recording depends only on its image, its number, the camera and these constants: each has its own stream of noise,
and all share the mismatch, which belongs to the sensor.
"""

import os
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from . import _cache
from ._event_camera import EventCamera
from ._events import Events, Recording

BLUR_PX = 0.6
DARKEST = 0.1
LEG_US = 100_000
STEP_US = 1000
PATH_PX = ((0.0, 0.0), (3.5, 7.0), (7.0, 0.0), (0.0, 0.0))
REACH_PX = 7
"""How far an image moves, in sensor pixels."""
# Recordings simulated together: enough to keep NumPy busy, few enough for the processor's cache.
_BATCH = 32
# For fewer recordings, starting processes takes longer than simulating.
_FEW = 200
GREY = np.array([0.299, 0.587, 0.114])
"""The shares of red, green and blue in grey, ITU-R BT.601."""


def model() -> tuple:
    """Return what determines recordings besides images and camera; the first number grows when the model changes."""
    return 1, BLUR_PX, DARKEST, LEG_US, STEP_US, PATH_PX, GREY.tolist()


class Scene(NamedTuple):
    """How images are shown: the side of a pixel in sensor pixels, and whether values are ink on paper, or light."""

    tile_px: float
    is_ink: bool


def recorded(images: np.ndarray, recordings: Sequence[int], camera: EventCamera, scene: Scene) -> list[np.ndarray]:
    """Return the events of images, (n, rows, columns) of values within [0, 1], whose numbers select their noise."""
    times = range(0, 3 * LEG_US + 1, STEP_US)
    frames = (_seen(images, camera, scene, *position(time)) for time in times)
    return camera.record(times, frames, recordings)


def position(time_us: float) -> tuple[float, float]:
    """Return the image's offset (x, y) from the sensor's centre at a time, in sensor pixels."""
    leg = min(int(time_us // LEG_US), 2)
    s = time_us / LEG_US - leg
    progress = s**3 * (10 + s * (6 * s - 15))
    start, end = np.array(PATH_PX[leg]), np.array(PATH_PX[leg + 1])
    middle = (np.min(PATH_PX, axis=0) + np.max(PATH_PX, axis=0)) / 2
    x, y = start + progress * (end - start) - middle
    return x, y


def _seen(images: np.ndarray, camera: EventCamera, scene: Scene, x: float, y: float) -> np.ndarray:
    """Return the light on the sensor, (n, height, width)."""
    rows = _lens(images.shape[1], camera.height, y, scene.tile_px)
    columns = _lens(images.shape[2], camera.width, x, scene.tile_px)
    seen = (1 - DARKEST) * (rows @ images @ columns.T)
    return 1 - seen if scene.is_ink else DARKEST + seen


def _lens(tiles: int, pixels: int, offset: float, tile_px: float) -> np.ndarray:
    """Return each tile's share of each sensor pixel's light along one axis, of shape (pixels, tiles).

    A tile blurred by a Gaussian is a difference of two error functions: smooth in the offset, and never
    negative.
    """
    from scipy.special import ndtr

    pixel = np.arange(pixels) - (pixels - 1) / 2
    edge = (np.arange(tiles + 1) - tiles / 2) * tile_px + offset
    return np.diff(ndtr((edge - pixel[:, None]) / BLUR_PX), axis=1)


class Batches(Dataset):
    """The recordings of images, in batches that are simulated together.

    Args:
        pixels: (n, rows, columns) or (n, channels, rows, columns), one channel or three, which become grey.
        white: the value that becomes 1.
        camera, scene: as in `recorded`.
        first: the number of the first image, from which on recordings are numbered.
    """

    def __init__(self, pixels: np.ndarray, white: float, camera: EventCamera, scene: Scene, first: int = 0):
        self._pixels, self._white, self._camera, self._scene, self._first = pixels, white, camera, scene, first

    def __len__(self) -> int:
        return -(-len(self._pixels) // _BATCH)

    def __getitem__(self, position: int) -> list[np.ndarray]:
        part = self._pixels[position * _BATCH : (position + 1) * _BATCH] / self._white
        if part.ndim == 4:
            part = np.tensordot(part, GREY, (1, 0)) if part.shape[1] == 3 else part[:, 0]
        start = self._first + position * _BATCH
        return recorded(part, range(start, start + len(part)), self._camera, self._scene)


def write(file: BinaryIO, name: str, labels: np.ndarray, batches: Batches, num_workers: int | None) -> None:
    """Simulate all recordings, in parallel, into a packed file.

    Args:
        file: the open file.
        name: of the set, for the progress bar and messages.
        labels: one per recording.
        batches: the recordings.
        num_workers: processes; None is one per core, and none besides this one for few recordings.

    Raises:
        ValueError: an image gives no event, naming it.
    """
    from ._progress import bar

    workers = num_workers if num_workers is not None else (os.cpu_count() or 1) if len(labels) >= _FEW else 0
    loader = DataLoader(batches, batch_size=None, num_workers=workers, collate_fn=_unchanged)
    writer, number = _cache.Writer(file, (batches._camera.width, batches._camera.height, 2)), 0
    with bar(total=len(labels), desc=f"simulating {name}", unit="recording") as progress:
        for made in loader:
            for events in made:
                try:
                    writer.add(Recording(Events.of(events)), int(labels[number]), number)
                except ValueError as error:
                    raise ValueError(f"{name}, image {number}: {error}") from None
                number += 1
            progress.update(len(made))
    writer.finish()


def _unchanged(batch: list[np.ndarray]) -> list[np.ndarray]:
    return batch
