"""From events to frames, on the CPU and on a torch device."""

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from . import _checks

if TYPE_CHECKING:
    import torch


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
    remainder: str = "drop",
    dtype: np.dtype | str = np.int16,
) -> np.ndarray:
    """Count the events of each time slice, polarity and pixel.

    Equal bit for bit to ``tonic.transforms.ToFrame(sensor_size, ...)`` with the same arguments, faster, and
    without its change of `events` for sensors of one polarity. ToFrame leaves out events at the end: of the last,
    incomplete part of a bin or window, and always the last event. ``remainder="keep"`` has every event in a frame.
    ToFrame's counts wrap around at 32 768; choose another `dtype` for more. Of no events ToFrame makes float64
    frames with width and height exchanged; here they are as always, and all zero.

    Args:
        events: a structured array of x, y, t (µs, ascending) and p (0 or 1); y may be missing.
        sensor_size: (width, height, polarities). With one polarity all events have to be of one.
        n_time_bins: the number of frames, equal parts of the recording's duration in whole µs; this or
            time_window.
        time_window: the length of a frame, µs, > 0.
        overlap: with time_window by how many µs neighbours overlap, < time_window; with n_time_bins by which
            part of a bin, within [0, 1).
        include_incomplete: with time_window: whether to make a frame of what remains at the end.
        start_time: with time_window: where the first frame starts, µs; None is the first event.
        end_time: with time_window: where the recording ends, µs; None is the last event.
        remainder: "drop" as ToFrame does; "keep" needs overlap 0 and no end_time: with n_time_bins the bins are
            equal parts of the duration, end included, with time_window one more frame holds what remains.
        dtype: of the counts.

    Returns:
        Array of shape (frames, polarities, height, width), or (frames, polarities, width) of events without y.

    Raises:
        ValueError: an argument is out of range, an event is off the sensor, or times descend.
        TypeError: an argument is of the wrong type.

    Example:
        >>> events = np.array([(1, 0, 5, 1), (0, 0, 7, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> to_frames(events, (2, 1, 2), n_time_bins=2)[0].tolist()
        [[[0, 0]], [[0, 1]]]
        >>> [to_frames(events, (2, 1, 2), n_time_bins=2, remainder=how).sum().item() for how in ("drop", "keep")]
        [1, 2]
    """
    from . import _kernels

    width, height, polarities = _checks.sensor_size(sensor_size)
    x, y, t, p = _columns(events, polarities)
    starts, ends = _slices(t, n_time_bins, time_window, overlap, include_incomplete, start_time, end_time, remainder)
    frames = np.zeros((len(starts), polarities, height, width), dtype)
    wrong = _kernels.count(x, y, p, starts, ends, frames)
    if wrong >= 0:
        raise ValueError(
            f"events: event {wrong} (x={x[wrong]}, y={y[wrong]}, p={p[wrong]}) is off a sensor of size {sensor_size}"
        )
    return frames if "y" in events.dtype.names else frames[:, :, 0]


def batch_to_frames(
    recordings: Sequence[np.ndarray],
    sensor_size: tuple[int, int, int],
    *,
    n_time_bins: int,
    remainder: str = "drop",
    device: "str | torch.device" = "cpu",
) -> "torch.Tensor":
    """Make the frames of a whole batch on a device, a GPU for example; only events travel to it.

    The counts are those of `to_frames`.

    Args:
        recordings: structured arrays as `to_frames` takes them; one may be empty.
        sensor_size: (width, height, polarities).
        n_time_bins: frames of each recording.
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
        x, y, t, p = _columns(events, polarities)
        starts, ends = _slices(t, n_time_bins, None, 0, False, None, None, remainder)
        kept = slice(starts[0], ends[-1])
        off = (x < 0) | (x >= width) | (y < 0) | (y >= height) | (p < 0) | (p >= polarities)
        if off.any():
            raise ValueError(f"events: event {off.argmax()} of a recording is off a sensor of size {sensor_size}")
        pixels.append(((p[kept].astype(np.int32) * height + y[kept]) * width + x[kept]).astype(np.int32))
        lengths.append(ends - starts)
    counts = torch.from_numpy(np.array(lengths, np.int64).reshape(len(recordings), n_time_bins)).to(device)
    # Frame f of recording b is block f * B + b of the result.
    blocks = torch.arange(counts.numel(), device=device).view(n_time_bins, len(recordings)).T.reshape(-1)
    cells = torch.repeat_interleave(blocks, counts.reshape(-1)) * shift
    cells += torch.from_numpy(np.concatenate(pixels)).to(device)
    frames = torch.bincount(cells, minlength=counts.numel() * shift)
    return frames.view(n_time_bins, len(recordings), polarities, height, width).to(torch.float32)


def _columns(events: np.ndarray, polarities: int) -> tuple[np.ndarray, ...]:
    """Return x, y, t and p, t as contiguous int64, after a look at the fields."""
    names = getattr(getattr(events, "dtype", None), "names", None) or ()
    if not {"x", "t", "p"} <= set(names) or events.ndim != 1:
        raise TypeError(f"events: expected a structured array with x, y, t and p, came {_described(events)}")
    x, t, p = events["x"], np.ascontiguousarray(events["t"], np.int64), events["p"]
    y = events["y"] if "y" in names else np.broadcast_to(np.int16(0), x.shape)
    p = p.view(np.int8) if p.dtype == bool else p
    if polarities == 1 and len(p):
        if (p != p[0]).any():
            raise ValueError("events: a sensor of one polarity, but events of both")
        p = np.broadcast_to(np.int8(0), p.shape)
    return x, y, t, p


def _described(events) -> str:
    return f"{events.dtype} of shape {events.shape}" if isinstance(events, np.ndarray) else repr(events)


def _slices(
    t, n_time_bins, time_window, overlap, include_incomplete, start_time, end_time, remainder
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each frame's events start and end, the way of Tonic's slicers."""
    if (n_time_bins is None) == (time_window is None):
        raise ValueError(f"n_time_bins and time_window: expected one of them, came {n_time_bins!r} and {time_window!r}")
    if remainder not in ("drop", "keep"):
        raise ValueError(f"remainder: expected 'drop' or 'keep', came {remainder!r}")
    if remainder == "keep" and (overlap or end_time is not None):
        raise ValueError(f"remainder: 'keep' needs overlap=0 and end_time=None, came {overlap!r} and {end_time!r}")
    if n_time_bins is not None:
        n_time_bins = _checks.integer("n_time_bins", n_time_bins, 1)
        overlap = _checks.fraction("overlap", overlap) or 0  # an integer keeps the edges integers
        if include_incomplete or start_time is not None or end_time is not None:
            raise ValueError("include_incomplete, start_time and end_time: expected with time_window only")
        lower, upper = _bins(t, n_time_bins, overlap, remainder)
    else:
        for name, value in (("time_window", time_window), ("overlap", overlap)):
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name}: expected a number of µs, came {value!r}")
        if not 0 <= overlap < time_window < np.inf:
            raise ValueError(f"time_window: expected more than overlap >= 0, came {time_window!r} and {overlap!r}")
        lower, upper = _windows(t, time_window, overlap, include_incomplete, start_time, end_time, remainder)
    _check_order(t)
    return np.searchsorted(t, lower), np.searchsorted(t, upper)


def _bins(t: np.ndarray, n_time_bins: int, overlap: float, remainder: str) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(n_time_bins)
    if len(t) == 0:
        return numbers, numbers
    if remainder == "keep":
        duration = int(t[-1]) - int(t[0]) + 1
        edges = np.array([-(-i * duration // n_time_bins) for i in range(n_time_bins + 1)]) + t[0]
        return edges[:-1], edges[1:]
    window = (t[-1] - t[0]) // n_time_bins * (1 + overlap)
    starts = numbers * (window * (1 - overlap)) + t[0]
    return starts, starts + window


def _windows(t, window, overlap, include_incomplete, start, end, remainder) -> tuple[np.ndarray, np.ndarray]:
    if len(t) == 0:
        return np.zeros(1), np.zeros(1)
    start = t[0] if start is None else start
    duration = (t[-1] if end is None else end) - start
    stride = window - overlap
    if remainder == "keep":
        n_frames = int(duration // stride) + 1
    else:
        rounded = np.ceil if include_incomplete else np.floor
        n_frames = int(rounded((duration - window) / stride) + 1)
    starts = np.arange(max(n_frames, 1)) * stride + start
    return starts, starts + window


def _check_order(t: np.ndarray) -> None:
    from . import _kernels

    descent = _kernels.first_descent(t)
    if descent >= 0:
        raise ValueError(
            f"events: expected ascending times, came {t[descent]} after {t[descent - 1]} at event {descent}; "
            'sort them: events[np.argsort(events["t"], kind="stable")]'
        )
