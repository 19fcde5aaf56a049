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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def model() -> tuple:
    """Return what determines recordings besides images and camera; the first number grows when the model changes."""
    return 1, BLUR_PX, DARKEST, LEG_US, STEP_US, PATH_PX


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


def write(
    file: BinaryIO,
    name: str,
    labels: np.ndarray,
    images: Callable[[range], np.ndarray],
    camera: EventCamera,
    scene: Scene,
    num_workers: int | None,
) -> None:
    """Simulate all recordings, in parallel, into a packed file.

    Args:
        file: the open file.
        name: of the set, for the progress bar.
        labels: one per recording.
        images: returns the images of a range of numbers, within [0, 1], (n, rows, columns).
        camera, scene: as in `recorded`.
        num_workers: processes; None is one per core, and none besides this one for one batch.
    """
    from tqdm import tqdm

    numbers = [range(start, min(start + _BATCH, len(labels))) for start in range(0, len(labels), _BATCH)]
    workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    batches = DataLoader(
        _Batches(numbers, images, camera, scene),
        batch_size=None,
        num_workers=workers if len(numbers) > 1 else 0,
        collate_fn=_unchanged,
    )
    writer = _cache.Writer(file, (camera.width, camera.height, 2))
    with tqdm(total=len(labels), desc=f"simulating {name}", unit="recording") as progress:
        for batch, made in zip(numbers, batches, strict=True):
            for number, events in zip(batch, made, strict=True):
                writer.add(Recording(Events.of(events)), int(labels[number]), number)
            progress.update(len(batch))
    writer.finish()


@dataclass
class _Batches(Dataset):
    """The recordings of batches of images."""

    numbers: list[range]
    images: Callable[[range], np.ndarray]
    camera: EventCamera
    scene: Scene

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> list[np.ndarray]:
        batch = self.numbers[position]
        return recorded(self.images(batch), batch, self.camera, self.scene)


def _unchanged(batch: list[np.ndarray]) -> list[np.ndarray]:
    return batch
