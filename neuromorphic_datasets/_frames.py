"""From events to frames, on the CPU and on a torch device."""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import DTypeLike

from . import _checks
from ._events import Events

if TYPE_CHECKING:
    import torch
_MOST_WINDOWS = 1 << 26  # 18 hours in milliseconds; their bounds alone take a gigabyte.


class FramingError(ValueError):
    """A data set that makes frames itself is asked for other frames.

    Attributes:
        remedy: "own_frames", as of a `RecordingError`, for a message that knows another way to ask for frames.
    """

    remedy = "own_frames"


def to_frames(
    events: np.ndarray,
    sensor_size: tuple[int, int, int],
    *,
    n_time_bins: int | None = None,
    time_window: float | None = None,
    overlap: float = 0,
    include_incomplete: bool = False,
    start_time: float | None = None,
    end_time: float | None = None,
    remainder: str = "keep",
    dtype: DTypeLike = np.int16,
) -> np.ndarray:
    """Count the events of each time slice, polarity and pixel.

    Every event is in a frame. With ``remainder="drop"`` the frames equal ``tonic.transforms.ToFrame(sensor_size, ...)``
    with the same arguments bit for bit, but are made faster, and `events` stays unchanged, which ToFrame modifies for
    sensors of one polarity. ToFrame leaves out events at the end: those of the last, incomplete part of a bin or
    window, and always the last event. Its counts wrap around at 32 768. From no events, ToFrame makes float64 frames
    with width and height exchanged; here they have the usual dtype and shape, and are zero.

    Args:
        events: a structured array of x, y, t (µs, ascending) and p (all 0 or 1, or all -1 or 1), of any numeric types
            that hold whole numbers; y may be missing.
        sensor_size: (width, height, polarities). With one polarity all events have to be of the same one.
        n_time_bins: the number of frames, equal parts of the recording's duration; this or time_window.
        time_window: the length of a frame, µs, > 0; one more frame holds what remains at the end.
        overlap: with "drop": the overlap of neighbouring frames; with time_window in µs, < time_window; with
            n_time_bins as a fraction of a bin, within [0, 1).
        include_incomplete: with "drop" and time_window: whether to make a frame of what remains at the end.
        start_time: with time_window: where the first frame starts, µs; None is the first event.
        end_time: with "drop" and time_window: where the recording ends, µs; None is the last event.
        remainder: "keep" has every event in a frame, from start_time on; "drop" leaves out the same events as ToFrame.
        dtype: the type of the counts: an integer type, float32 or float64.

    Returns:
        Array of shape (frames, polarities, height, width), or (frames, polarities, width) for events without y.

    Raises:
        ValueError: an argument is out of range, an event is off the sensor, a number is not whole, times descend, or
            with "keep" a count does not fit into `dtype`.
        TypeError: an argument is of the wrong type.

    Example:
        >>> events = np.array([(1, 0, 5, 1), (0, 0, 7, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> to_frames(events, (2, 1, 2), n_time_bins=2).tolist()
        [[[[0, 0]], [[0, 1]]], [[[1, 0]], [[0, 0]]]]
        >>> to_frames(events, (2, 1, 2), n_time_bins=2, remainder="drop").sum().item()
        1
    """
    width, height, polarities = _checks.sensor_size(sensor_size)
    columns = Events.of(events)
    starts, ends = slices(
        columns.t, n_time_bins, time_window, overlap, include_incomplete, start_time, end_time, remainder
    )
    frames = np.zeros((len(starts), polarities, height, width), dtype)
    count(columns, starts, ends, frames, wraps=remainder == "drop")
    return frames if columns.y is not None else frames[:, :, 0]


def count(events: Events, starts: np.ndarray, ends: np.ndarray, frames: np.ndarray, wraps: bool = False) -> np.ndarray:
    """Add events [starts[i], ends[i]) to ``frames[i]``, zeros of shape (frames, polarities, height, width); return it.

    Args:
        events: in columns, which need not be on the sensor.
        starts, ends: as `slices` returns them.
        frames: of a dtype that `to_frames` accepts, not necessarily contiguous.
        wraps: whether counts beyond the dtype wrap around.

    Raises:
        ValueError: an event is off the sensor, or a count does not fit into the dtype.
    """
    from . import _kernels

    _, polarities, height, width = frames.shape
    most = _most(frames.dtype)
    channels = events.channels(polarities)
    wrong = _kernels.count(events.x, events.rows(), channels, starts, ends, frames, most, wraps)
    if wrong >= 0:
        events.on((width, height, polarities))
        raise ValueError(f"dtype: expected one that holds the counts, got {frames.dtype}: a count exceeds {most}")
    return frames


def batch_to_frames(
    recordings: Sequence[np.ndarray],
    sensor_size: tuple[int, int, int],
    *,
    n_time_bins: int,
    remainder: str = "keep",
    device: "str | torch.device" = "cpu",
) -> "torch.Tensor":
    """Make the frames of a whole batch on a device, such as a GPU; only the events are copied to it.

    The counts equal those of `to_frames`.

    Args:
        recordings: structured arrays as for `to_frames`; any of them may be empty.
        sensor_size: (width, height, polarities).
        n_time_bins: the number of frames per recording.
        remainder: as in `to_frames`.
        device: where to count.

    Returns:
        float32 tensor of shape (n_time_bins, len(recordings), polarities, height, width) on `device`.

    Raises:
        ValueError: as `to_frames`.

    Example:
        >>> events = np.array([(1, 0, 5, 1), (0, 0, 7, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> batch_to_frames([events, events[:0]], (2, 1, 2), n_time_bins=2).shape
        torch.Size([2, 2, 2, 1, 2])
    """
    import torch

    width, height, polarities = _checks.sensor_size(sensor_size)
    n_time_bins = _checks.integer("n_time_bins", n_time_bins, 1)
    pixels, lengths, shift = [np.zeros(0, np.int32)], [], width * height * polarities
    for events in recordings:
        columns = Events.of(events).on((width, height, polarities))
        starts, ends = slices(columns.t, n_time_bins, remainder=remainder)
        framed = columns[starts[0] : ends[-1]]
        rows = framed.p.astype(np.int32) * height + framed.rows()
        pixels.append((rows * width + framed.x).astype(np.int32))
        lengths.append(ends - starts)
    counts = torch.from_numpy(np.array(lengths, np.int64).reshape(len(recordings), n_time_bins)).to(device)
    # Frame f of recording b is block f * B + b of the result.
    blocks = torch.arange(counts.numel(), device=device).view(n_time_bins, len(recordings)).T.reshape(-1)
    cells = torch.repeat_interleave(blocks, counts.reshape(-1)) * shift
    cells += torch.from_numpy(np.concatenate(pixels)).to(device)
    frames = torch.bincount(cells, minlength=counts.numel() * shift)
    return frames.view(n_time_bins, len(recordings), polarities, height, width).to(torch.float32)


def _most(dtype: DTypeLike) -> np.generic:
    """Return the largest count up to which a type represents every count."""
    kind = np.dtype(dtype)
    if kind.kind in "iu" and kind.isnative:
        return kind.type(np.iinfo(kind).max)
    if kind not in (np.float32, np.float64):
        raise TypeError(f"dtype: expected an integer type, float32 or float64, got {dtype!r}")
    return kind.type(1 << np.finfo(kind).nmant + 1)


def slices(
    t: np.ndarray,
    n_time_bins: int | None = None,
    time_window: float | None = None,
    overlap: float = 0,
    include_incomplete: bool = False,
    start_time: float | None = None,
    end_time: float | None = None,
    remainder: str = "keep",
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each frame's events start and end, by the arguments of `to_frames`; with "drop" as in Tonic."""
    if (n_time_bins is None) == (time_window is None):
        raise ValueError(f"n_time_bins and time_window: expected one of them, got {n_time_bins!r} and {time_window!r}")
    check_remainder(remainder)
    if remainder == "keep" and (overlap or include_incomplete or end_time is not None):
        raise ValueError(
            f"overlap, include_incomplete and end_time: expected only with remainder='drop', got {overlap!r}, "
            f"{include_incomplete!r} and {end_time!r}"
        )
    if time_window is None:
        n_time_bins = _checks.integer("n_time_bins", n_time_bins, 1)
        # An integer keeps the edges integers.
        overlap = _checks.fraction("overlap", overlap) or 0
        if include_incomplete or start_time is not None or end_time is not None:
            raise ValueError("include_incomplete, start_time and end_time: expected only with time_window")
        return _bins(t, n_time_bins, overlap, remainder)
    for name, value in (("time_window", time_window), ("overlap", overlap)):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name}: expected a number of µs, got {value!r}")
    for name, time in (("start_time", start_time), ("end_time", end_time)):
        if time is not None and (isinstance(time, bool) or not isinstance(time, Real) or not np.isfinite(time)):
            raise TypeError(f"{name}: expected a finite number of µs or None, got {time!r}")
    if not 0 <= overlap < time_window < np.inf:
        raise ValueError(f"time_window: expected more than overlap >= 0, got {time_window!r} and {overlap!r}")
    if len(t) == 0:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    start = t[0] if start_time is None else start_time
    duration = (t[-1] if end_time is None else end_time) - start
    stride = time_window - overlap
    if remainder == "keep":
        starts = window_starts(stride, 0, max(int(duration // stride) + 2, 1))
        return _between(t - start, starts[: max(np.searchsorted(starts, duration, "right"), 1)])
    rounded = np.ceil if include_incomplete else np.floor
    n_frames = int(rounded((duration - time_window) / stride) + 1)
    starts = window_starts(stride, 0, max(n_frames, 1)) + start
    return np.searchsorted(t, starts), np.searchsorted(t, starts + time_window)


def window_starts(length: float, first: int, last: int) -> np.ndarray:
    """Return the times, since the start of a recording, at which windows number `first` to `last` - 1 start.

    Raises:
        ValueError: there are more windows than memory is meant to hold, as where a length is in seconds.
    """
    if last - first > _MOST_WINDOWS:
        raise ValueError(f"time_window: expected at most {_MOST_WINDOWS} windows of a recording, got {last - first}")
    return np.arange(first, last) * length


def check_remainder(value: str) -> None:
    """Raise ValueError unless `value` is one of the two treatments of a recording's end."""
    if value not in ("keep", "drop"):
        raise ValueError(f"remainder: expected 'keep' or 'drop', got {value!r}")


def _bins(t: np.ndarray, n_time_bins: int, overlap: float, remainder: str) -> tuple[np.ndarray, np.ndarray]:
    if len(t) == 0:
        return np.zeros(n_time_bins, np.int64), np.zeros(n_time_bins, np.int64)
    if remainder == "keep":
        # Bin i starts at ceil(i * duration / n_time_bins), computed without a product that could overflow.
        quotient, rest = divmod(int(t[-1]) - int(t[0]) + 1, n_time_bins)
        bins = np.arange(n_time_bins)
        return _between(t, int(t[0]) + bins * quotient - (-bins * rest // n_time_bins))
    window = (t[-1] - t[0]) // n_time_bins * (1 + overlap)
    starts = np.arange(n_time_bins) * (window * (1 - overlap)) + t[0]
    return np.searchsorted(t, starts), np.searchsorted(t, starts + window)


def _between(t: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return contiguous slices, the last of which reaches to the end."""
    cuts = np.empty(len(starts) + 1, np.int64)
    cuts[:-1], cuts[-1] = t.searchsorted(starts), len(t)
    return cuts[:-1], cuts[1:]
