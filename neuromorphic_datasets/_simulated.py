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

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


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
        source: an `images.Images`; or what `images.load` takes, whose training and test part are both returned.
        pixel: the side of an image's pixel, in sensor pixels, > 0.
        camera: the sensor; None has the size that the image needs with its motion.
        cache: the folder of the packed files; None is this package's folder in the user's cache.
        num_workers: simulating processes, >= 0; None is one per core.
        loading: root, download and resize, as in `images.load`.

    Returns:
        A data set of recordings, or (train, test) of them; `loaders` takes either.

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
    train, test = images.load(source, **loading)
    name = source if isinstance(source, str) and source in images.names() else "images"
    return (
        Simulated(train, name, "train", pixel, camera, cache, num_workers),
        Simulated(test, name, "test", pixel, camera, cache, num_workers),
    )


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
    ):
        height, width = shown.images.shape[2:]
        sides = (math.ceil(side * pixel) + _saccades.REACH_PX for side in (width, height))
        camera = EventCamera(*sides) if camera is None else camera
        super().__init__(
            f"{name}-as-events", split, (camera.width, camera.height, 2), shown.classes, shown.targets.numpy()
        )
        content = hashlib.sha256(np.ascontiguousarray(shown.pixels).tobytes()).hexdigest()
        self._digest = digest((_saccades.model(), content, self.targets.tolist(), pixel, camera))
        folder = _checks.folder("cache", cache) or _cache.user_folder()
        scene = _saccades.Scene(pixel, is_ink=False)

        def light(part: range) -> np.ndarray:
            values = shown.pixels[part.start : part.stop] / shown.white
            return np.tensordot(values[:, :3], _GREY, (1, 0)) if values.shape[1] >= 3 else values[:, 0]

        self._pack = _cache.load_or_build(
            folder / f"{self.name}-{split}-{self._digest}.pack",
            lambda file: _saccades.write(file, self.name, self.targets, light, camera, scene, num_workers),
        )

    @property
    def fingerprint(self) -> str:
        return self._digest if is_ours(type(self)) else ""

    def read(self, position: int, lenient: bool = False) -> Recording:
        return Recording(self._pack.events(position))

    def packed(self) -> tuple[_cache.Pack, np.ndarray]:
        return self._pack, np.arange(len(self))
