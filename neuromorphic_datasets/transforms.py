"""Transforms of events: to frames, voxel grids and time surfaces, and augmentations.

All are frozen and can be pickled. A transform takes events and is passed to `load` or `EventFolder`; an augmentation
takes events and a NumPy generator and is passed to `loaders`, which seeds the generator for each recording and epoch.
Events are structured arrays of x, y, t (µs, ascending) and p (0 or 1); none of these modifies its input.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from . import _checks
from ._frames import to_frames

__all__ = ["Augment", "DropEvents", "Flip", "Roll", "TimeJitter", "TimeSurface", "ToFrames", "VoxelGrid"]


@dataclass(frozen=True)
class ToFrames:
    """Counts of the events in each time slice, polarity and pixel.

    Args:
        sensor_size, n_time_bins, time_window, overlap, include_incomplete: as in `to_frames`, whose errors the call
            raises.
        start_time, end_time, remainder, dtype: likewise; ``remainder="drop"`` gives the frames of Tonic's ToFrame.

    The result is that of `to_frames`: (frames, polarities, height, width) of `dtype`, by default int16.

    Example:
        >>> events = np.array([(1, 0, 5, 1), (0, 0, 7, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> ToFrames((2, 1, 2), time_window=2)(events).shape
        (2, 2, 1, 2)
    """

    sensor_size: tuple[int, int, int]
    n_time_bins: int | None = None
    time_window: float | None = None
    overlap: float = 0
    include_incomplete: bool = False
    start_time: float | None = None
    end_time: float | None = None
    remainder: str = "keep"
    dtype: DTypeLike = np.int16

    def __call__(self, events: np.ndarray) -> np.ndarray:
        return to_frames(events, **vars(self))


@dataclass(frozen=True)
class VoxelGrid:
    """A voxel grid with bilinear weights in time, by Tonic's ToVoxelGrid, on a copy of the events.

    Args:
        sensor_size: (width, height, 2).
        n_time_bins: the number of layers, >= 1.

    The result is float64 of shape (n_time_bins, 1, height, width); an OFF event counts as -1.

    Raises:
        ValueError: in the call, if there are no events or all have the same time, or as in `to_frames`.

    Reference:
        Zhu et al. 2019, "Unsupervised event-based learning of optical flow, depth, and egomotion", CVPR.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> VoxelGrid((2, 1, 2), 2)(events)[:, 0, 0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]
    """

    sensor_size: tuple[int, int, int]
    n_time_bins: int

    def __call__(self, events: np.ndarray) -> np.ndarray:
        from ._tonic import to_voxel_grid

        if len(events) == 0 or events["t"][-1] == events["t"][0]:
            raise ValueError(f"events: expected a duration longer than 0 µs, got {len(events)} events at one time")
        return to_voxel_grid(events, self.sensor_size, self.n_time_bins)


@dataclass(frozen=True)
class TimeSurface:
    """Time surfaces: how long ago each pixel last sent an event, decaying exponentially, by Tonic's ToTimesurface.

    Args:
        sensor_size: (width, height, polarities).
        dt: µs between two surfaces, > 0.
        tau: time constant of the decay, µs, > 0.

    The result is float64 of shape (surfaces, polarities, height, width), within [0, 1].

    Raises:
        ValueError, TypeError: in the call, if the events are invalid, as in `to_frames`.

    Reference:
        Lagorce et al. 2017, "HOTS: a hierarchy of event-based time-surfaces for pattern recognition", IEEE TPAMI
        39:1346.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> TimeSurface((2, 1, 2), dt=2, tau=5)(events).shape
        (2, 2, 1, 2)
    """

    sensor_size: tuple[int, int, int]
    dt: float
    tau: float

    def __call__(self, events: np.ndarray) -> np.ndarray:
        from ._tonic import to_time_surface

        return to_time_surface(events, self.sensor_size, self.dt, self.tau)


@dataclass(frozen=True)
class Augment:
    """A sequence of augmentations.

    Args:
        steps: callables that take events and a generator, and return events, in order.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> augment = Augment((Flip((2, 1, 2)), DropEvents(0.5)))
        >>> len(augment(events, np.random.default_rng(0))) <= 2
        True
    """

    steps: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...]

    def __call__(self, events: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        for step in self.steps:
            events = step(events, generator)
        return events


@dataclass(frozen=True)
class Flip:
    """A random exchange of left and right.

    Args:
        sensor_size: (width, height, polarities).
        probability: the probability of the exchange, within [0, 1].

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> Flip((2, 1, 2), probability=1.0)(events, np.random.default_rng(0))["x"]
        array([0, 1])
    """

    sensor_size: tuple[int, int, int]
    probability: float = 0.5

    def __post_init__(self):
        _checks.sensor_size(self.sensor_size)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: expected a number in [0, 1], got {self.probability!r}")

    def __call__(self, events: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if generator.random() >= self.probability:
            return events
        events = events.copy()
        events["x"] = self.sensor_size[0] - 1 - events["x"]
        return events


@dataclass(frozen=True)
class Roll:
    """A random shift of all events; those that leave the sensor are dropped, unless all of them would.

    Args:
        sensor_size: (width, height, polarities).
        pixels: the largest shift along either axis, an integer >= 0.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> rolled = Roll((34, 34, 2), pixels=3)(events, np.random.default_rng(0))
        >>> bool((abs(rolled["x"] - 1) <= 1 + 3).all()), bool((rolled["x"] >= 0).all())
        (True, True)
    """

    sensor_size: tuple[int, int, int]
    pixels: int

    def __post_init__(self):
        _checks.sensor_size(self.sensor_size)
        _checks.integer("pixels", self.pixels, 0)

    def __call__(self, events: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        width, height, _ = self.sensor_size
        dx, dy = generator.integers(-self.pixels, self.pixels, 2, endpoint=True)
        x, y = events["x"].astype(np.int64) + dx, events["y"].astype(np.int64) + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        if not inside.any():
            return events
        shifted = events[inside]
        shifted["x"], shifted["y"] = x[inside], y[inside]
        return shifted


@dataclass(frozen=True)
class DropEvents:
    """Random removal of events; at least one stays.

    Args:
        probability: the probability of removal per event, within [0, 1).

    Raises:
        TypeError, ValueError: it is not a number, or is out of range.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> thinner = DropEvents(0.9)(np.repeat(events, 500), np.random.default_rng(0))
        >>> 0 < len(thinner) < 200
        True
    """

    probability: float

    def __post_init__(self):
        _checks.fraction("probability", self.probability)

    def __call__(self, events: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        remaining = generator.random(len(events)) >= self.probability
        return events[remaining] if remaining.any() else events[:1]


@dataclass(frozen=True)
class TimeJitter:
    """Normal noise on the times, after which events are sorted again; times stay >= 0.

    Args:
        std_us: standard deviation of the noise, µs, >= 0.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    Example:
        >>> events = np.array([(1, 0, 0, 1), (0, 0, 4, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> jittered = TimeJitter(std_us=2.0)(np.repeat(events, 500), np.random.default_rng(0))
        >>> bool((np.diff(jittered["t"]) >= 0).all()), bool(jittered["t"].min() >= 0), len(set(jittered["t"])) > 2
        (True, True, True)
    """

    std_us: float

    def __post_init__(self):
        if not 0 <= self.std_us < np.inf:
            raise ValueError(f"std_us: expected a finite number >= 0, got {self.std_us!r}")

    def __call__(self, events: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        noise = np.rint(generator.normal(0, self.std_us, len(events))).astype(np.int64)
        jittered = events.copy()
        jittered["t"] = np.maximum(events["t"] + noise, min(0, int(events["t"].min(initial=0))))
        return jittered[np.argsort(jittered["t"], kind="stable")]
