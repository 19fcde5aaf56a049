"""A simulated event camera (dynamic vision sensor).

Each pixel works alone, as in Lichtsteiner et al. 2008:

* It sees the natural logarithm of the light intensity and stores one reference level.
* When the level has risen above the reference by the pixel's ON threshold, it sends an ON event; when it has
  fallen below by the OFF threshold, an OFF event.
* It is then held in reset, blind, for the refractory time, and stores the level at the end of the reset.
  Without refractory time that is the level of the event itself, so a change of k thresholds gives k events.
* Thresholds differ between pixels (mismatch): a property of the sensor, the same in every recording.

Between two frames the logarithm is assumed to change linearly, and an event is placed at the time at which
that line crosses the threshold. Background (shot) noise is a separate Poisson process for every pixel, with
ON and OFF events equally likely; a noise event does not change the pixel's reference.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import _checks
from ._events import EVENT_DTYPE

# Seed streams: one for the sensor, and one for each recording.
_SENSOR, _RECORDING = 0, 1


@dataclass(frozen=True)
class EventCamera:
    """The parameters of a sensor.

    Attributes:
        width: columns, >= 1.
        height: rows, >= 1.
        threshold_on: mean ON threshold, change of ln(intensity), >= 0.001.
        threshold_off: mean OFF threshold, change of ln(intensity), >= 0.001.
        mismatch: standard deviation of the pixels' thresholds relative to their mean, within [0, 0.3].
        refractory_us: time in reset after an event, µs, >= 0.
        noise_hz: background events per pixel and second, >= 0.
        seed: seed of mismatch and noise, >= 0.

    Example:
        A pixel that brightens by two and a half thresholds in a millisecond sends two ON events.

        >>> camera = EventCamera(1, 1, threshold_on=0.25, mismatch=0, refractory_us=0, noise_hz=0)
        >>> frames = np.exp([[[[0.0]]], [[[0.625]]]])
        >>> [events] = camera.record([0, 1000], frames, [0])
        >>> events["t"], events["p"]
        (array([400, 800]), array([1, 1]))
    """

    width: int = 34
    height: int = 34
    threshold_on: float = 0.25
    threshold_off: float = 0.25
    mismatch: float = 0.04
    refractory_us: float = 1000.0
    noise_hz: float = 0.3
    seed: int = 0

    def __post_init__(self):
        for name, minimum in (("width", 1), ("height", 1), ("seed", 0)):
            _checks.integer(name, getattr(self, name), minimum)
        for name in ("threshold_on", "threshold_off"):
            if not 0.001 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}: expected a finite number >= 0.001, got {getattr(self, name)!r}")
        for name, maximum in (("mismatch", 0.3), ("refractory_us", np.inf), ("noise_hz", np.inf)):
            if not 0 <= getattr(self, name) <= maximum:
                raise ValueError(f"{name}: expected a number in [0, {maximum}], got {getattr(self, name)!r}")

    def thresholds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels' ON and OFF thresholds of ln(intensity), float64 of shape (height, width)."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_SENSOR,)))
        spread = self.mismatch * rng.standard_normal((2, self.height, self.width))
        # Three standard deviations, and mismatch <= 0.3, keep every threshold positive.
        scale = 1 + np.clip(spread, -3 * self.mismatch, 3 * self.mismatch)
        return self.threshold_on * scale[0], self.threshold_off * scale[1]

    def record(
        self, times_us: Sequence[float], frames: Iterable[np.ndarray], recordings: Sequence[int]
    ) -> list[np.ndarray]:
        """Record a batch of scenes.

        Args:
            times_us: the times of the frames, µs, ascending, two or more.
            frames: one array of light intensities per time, > 0 and finite, of shape (batch, height, width).
            recordings: a number >= 0 per scene; it selects the scene's noise.

        Returns:
            The events of each scene, a structured array (x, y, t in µs, p) sorted by time, then row and
            column. They depend on the scene, its number and the camera, but not on the rest of the batch.

        Raises:
            ValueError: times do not ascend, or the shape or intensities of a frame are not as described.
        """
        if len(times_us) < 2 or (np.diff(times_us) <= 0).any():
            raise ValueError(f"times_us: expected two or more ascending times, got {times_us!r}")
        signal = self._signal_events(times_us, frames, len(recordings))
        duration = (times_us[0], times_us[-1])
        return [
            self._merge(events, self._noise_events(duration, recording))
            for events, recording in zip(signal, recordings, strict=True)
        ]

    def _signal_events(
        self, times_us: Sequence[float], frames: Iterable[np.ndarray], batch: int
    ) -> list[tuple[np.ndarray, ...]]:
        """Return the (time, pixel, polarity) arrays of each scene, without noise."""
        on, off = (np.tile(threshold.ravel(), batch) for threshold in self.thresholds())
        levels = self._levels(times_us, frames, batch)
        pixels = _Pixels(on, off, self.refractory_us, *next(levels))
        fired = [events for time, level in levels for events in pixels.see(time, level)]
        if not fired:
            return [(np.empty(0), np.empty(0, np.int64), np.empty(0, bool))] * batch
        time, number, polarity = (np.concatenate(part) for part in zip(*fired, strict=True))
        scene, pixel = np.divmod(number, self.height * self.width)
        order = np.argsort(scene, kind="stable")
        ends = np.cumsum(np.bincount(scene, minlength=batch))[:-1]
        return list(zip(*(np.split(part[order], ends) for part in (time, pixel, polarity)), strict=True))

    def _levels(
        self, times_us: Sequence[float], frames: Iterable[np.ndarray], batch: int
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the time and the flat ln(intensity) of each frame."""
        for time, frame in zip(times_us, frames, strict=True):
            if frame.shape != (batch, self.height, self.width):
                raise ValueError(f"frames: expected shape {(batch, self.height, self.width)}, got {frame.shape}")
            if not (frame.min() > 0 and frame.max() < np.inf):
                raise ValueError(f"frames: expected intensities > 0 and finite, got {frame.min()} to {frame.max()}")
            yield float(time), np.log(frame, dtype=np.float64).ravel()

    def _noise_events(self, duration_us: tuple[float, float], recording: int) -> tuple[np.ndarray, ...]:
        """Return the (time, pixel, polarity) arrays of the background noise of one recording."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(_RECORDING, int(recording))))
        start, end = duration_us
        count = rng.poisson(self.noise_hz * self.width * self.height * (end - start) * 1e-6)
        return (
            rng.uniform(start, end, count),
            rng.integers(self.width * self.height, size=count),
            rng.random(count) < 0.5,
        )

    def _merge(self, *parts: tuple[np.ndarray, ...]) -> np.ndarray:
        """Join (time, pixel, polarity) arrays into one sorted array of events."""
        time, pixel, polarity = (np.concatenate(part) for part in zip(*parts, strict=True))
        # The sensor's clock counts whole microseconds.
        time = np.floor(time).astype(np.int64)
        order = np.lexsort((pixel, time))
        events = np.empty(len(order), EVENT_DTYPE)
        events["y"], events["x"] = np.divmod(pixel[order], self.width)
        events["t"] = time[order]
        events["p"] = polarity[order]
        return events


@dataclass
class _Pixels:
    """The state of n pixels; every array is flat, float64 of shape (n,).

    Between calls a pixel that is not in reset lies within its thresholds of its reference.
    """

    threshold_on: np.ndarray
    threshold_off: np.ndarray
    refractory_us: float
    time: float
    level: np.ndarray

    def __post_init__(self):
        self.reference = self.level.copy()
        self.free_from = np.full(len(self.level), -np.inf)

    def see(self, time: float, level: np.ndarray) -> list[tuple[np.ndarray, ...]]:
        """Advance to `time` (µs) and ln(intensity) `level`; return the events as (time, pixel, polarity)."""
        slope = (level - self.level) / (time - self.time)
        self._leave_reset(np.flatnonzero((self.free_from > self.time) & (self.free_from <= time)), slope)
        change = level - self.reference
        beyond = (change >= self.threshold_on) | (change <= -self.threshold_off)
        pixels = np.flatnonzero(beyond & (self.free_from <= time))
        fired = []
        while pixels.size:
            fired.append(self._fire(pixels, slope))
            pixels = pixels[self.free_from[pixels] <= time]
            self._leave_reset(pixels, slope)
            change = level[pixels] - self.reference[pixels]
            beyond = (change >= self.threshold_on[pixels]) | (change <= -self.threshold_off[pixels])
            pixels = pixels[beyond]
        self.time, self.level = time, level
        return fired

    def _leave_reset(self, pixels: np.ndarray, slope: np.ndarray) -> None:
        """Let `pixels` store the level at which they leave reset."""
        waited = self.free_from[pixels] - self.time
        self.reference[pixels] = self.level[pixels] + slope[pixels] * waited

    def _fire(self, pixels: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, ...]:
        """Put `pixels`, which cross a threshold by now, into reset; return (time, pixel, polarity)."""
        rising = slope[pixels] > 0
        crossed = np.where(rising, self.threshold_on[pixels], -self.threshold_off[pixels])
        crossed += self.reference[pixels]
        time = self.time + (crossed - self.level[pixels]) / slope[pixels]
        self.free_from[pixels] = time + self.refractory_us
        return time, pixels, rising
