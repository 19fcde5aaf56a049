"""Any images as events."""

import hashlib
import math
from os import PathLike
from typing import Any

import numpy as np

from . import _cache, _checks, _saccades, images
from ._dataset import StoredDataset, digest, is_ours
from ._event_camera import EventCamera
from ._events import Recording


def as_events(
    source: "images.Source | images.Images",
    *,
    pixel: float = 1.0,
    camera: EventCamera | None = None,
    cache: str | PathLike | None = None,
    num_workers: int | None = None,
    **loading: Any,
) -> Any:
    """Return images as recordings of a simulated event camera that makes N-MNIST's three saccades.

    Bright places are bright on the sensor, and around an image it is dark. Colours become grey. A recording depends on
    its image, its place in the set and the arguments only. All are simulated on first use, in parallel, and kept.

    Args:
        source: an `images.Images`; or what `images.load` takes, of which every part is returned.
        pixel: the side of an image's pixel, in sensor pixels, > 0.
        camera: the sensor, not smaller than the image; None has the size that the image needs with its motion.
        cache: the folder of the packed files; None is this package's folder in the user's cache.
        num_workers: simulating processes, >= 0; None is one per core.
        loading: root, download and resize, as in `images.load`.

    Returns:
        A data set of recordings, or (train, test) or (train, val, test) of them; `loaders` takes each.

    Raises:
        ValueError, TypeError, FileNotFoundError: as `images.load`, or an argument is out of range.

    Example:
        >>> import tempfile
        >>> bar = np.zeros((1, 1, 12, 12), np.uint8)
        >>> bar[..., 4:6] = 255
        >>> folder = tempfile.TemporaryDirectory()
        >>> recordings = as_events(images.Images(bar, [0], ["bar"]), cache=folder.name)
        >>> events, label = recordings[0]
        >>> recordings.sensor_size, len(events) > 100, bool((np.diff(events["t"]) >= 0).all())
        ((19, 19, 2), True, True)
        >>> folder.cleanup()
    """
    pixel = _checks.positive("pixel", pixel)
    if num_workers is not None:
        num_workers = _checks.integer("num_workers", num_workers, 0)
    if isinstance(source, images.Images):
        if loading:
            raise TypeError(f"expected no {', '.join(loading)} with images in memory")
        return Simulated(source, "images", "all", pixel, camera, cache, num_workers)
    parts = images.parts(source, **loading)
    name = source if isinstance(source, str) and source in images.names() else "images"
    made, first = [], 0
    for part in ("train", "val", "test"):
        if part in parts:
            made.append(Simulated(parts[part], name, part, pixel, camera, cache, num_workers, first))
            first += len(parts[part])
    return tuple(made)


class Simulated(StoredDataset):
    """A set of images as recordings; `as_events` makes it."""

    def __init__(
        self,
        shown: "images.Images",
        name: str,
        split: str,
        pixel: float,
        camera: EventCamera | None,
        cache: str | PathLike | None,
        num_workers: int | None,
        first: int = 0,
    ):
        channels, height, width = shown.images.shape[1:]
        if channels not in (1, 3):
            raise ValueError(f"images: expected one channel or three, got {channels}")
        sides = [math.ceil(side * pixel) for side in (width, height)]
        camera = camera or EventCamera(*(side + _saccades.REACH_PX for side in sides))
        if type(camera) is not EventCamera:  # the file is known by the camera's values, not by its code
            raise TypeError(f"camera: expected an EventCamera, got a {type(camera).__name__}")
        if camera.width < sides[0] or camera.height < sides[1]:
            raise ValueError(
                f"camera: expected one of at least {sides[0]} x {sides[1]} pixels, as the image, got {camera}"
            )
        super().__init__(
            f"{name}-as-events", split, (camera.width, camera.height, 2), shown.classes, shown.targets.numpy()
        )
        pixels, scene = shown.pixels, _saccades.Scene(pixel, is_ink=False)
        content = hashlib.sha256(pixels.tobytes()).hexdigest(), pixels.shape, pixels.dtype.str
        self._digest = digest((_saccades.model(), content, self.targets.tolist(), scene, camera, first))
        folder = _checks.folder("cache", cache) or _cache.user_folder()
        batches = _saccades.Batches(pixels, shown.white, camera, scene, first)
        self._pack = _cache.load_or_build(
            folder / f"{self.name}-{split}-{self._digest}.pack",
            lambda file: _saccades.write(file, self.name, self.targets, batches, num_workers),
        )

    @property
    def fingerprint(self) -> str:
        return self._digest if is_ours(type(self)) else ""

    def read(self, position: int, lenient: bool = False) -> Recording:
        return Recording(self._pack.events(position))

    def packed(self) -> tuple[_cache.Pack, np.ndarray]:
        return self._pack, np.arange(len(self))
