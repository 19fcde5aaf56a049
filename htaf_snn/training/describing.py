"""What a training has understood of its data, for `data.json` and for the user."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

# Classes whose numbers are shown one by one.
_FEW = 6
PARTS = ("training", "validation", "test")


def describe(loaders: tuple) -> dict[str, Any]:
    """Return what `data.json` says of the data of (train, val, test) loaders.

    Returns:
        {"shape": (C, H, W) of a frame or an image, "classes", "samples": numbers in training, validation and test,
        "samples_by_class": the same for each class; of recordings "duration_us" and "events": smallest, median and
        largest per recording, "reading": the arguments of `read_events` with which their files are read, and
        "transform": that of their events, in words, or None}.
    """
    first = loaders[0].dataset
    classes = list(first.classes)
    targets = [np.asarray(loader.dataset.targets if loader else (), int) for loader in loaders]
    counts = np.array([np.bincount(part, minlength=len(classes)) for part in targets])
    data: dict[str, Any] = {
        "shape": sample_shape(first),
        "classes": classes,
        "samples": counts.sum(1).tolist(),
        "samples_by_class": dict(zip(classes, counts.T.tolist(), strict=True)),
    }
    if hasattr(first, "durations"):
        sets = [loader.dataset for loader in loaders if loader]
        data["duration_us"] = _spread(np.concatenate([part.durations for part in sets]))
        data["events"] = _spread(np.concatenate([part.event_counts for part in sets]))
        data["reading"] = first.reading
        data["transform"] = None if first.transform is None else _named(first.transform)
    return data


def _named(transform: Callable) -> str:
    """Return a transform in words; the `repr` of a function would hold its address."""
    return transform.__qualname__ if isinstance(transform, FunctionType) else repr(transform)


def sample_shape(samples) -> tuple[int, int, int]:
    """Return (C, H, W) of a frame or an image.

    Args:
        samples: a data set of this project: a loader's `dataset`, or one from `neuromorphic_datasets.load` or
            `images.load`.

    Example:
        >>> import neuromorphic_datasets as nd
        >>> sample_shape(nd.images.load("digits")[0])
        (1, 8, 8)
    """
    return samples.sensor_size[::-1] if hasattr(samples, "sensor_size") else tuple(samples.images.shape[1:])


def _spread(values: np.ndarray) -> list[float]:
    return [float(value) for value in (values.min(), np.median(values), values.max())]


def lines(data: dict[str, Any]) -> list[str]:
    """Return in words what `describe` returns: a line, and a warning for each part that lacks classes."""
    kind, (_, height, width) = "recordings" if "events" in data else "images", data["shape"]
    of_class = {name: sum(counts) for name, counts in data["samples_by_class"].items()}
    if len(of_class) <= _FEW:
        numbers = ", ".join(f"{name} {count}" for name, count in of_class.items())
    else:
        numbers = f"{_range(min(of_class.values()), max(of_class.values()))} each"
    said = [f"{sum(data['samples'])} {kind} of {len(of_class)} classes ({numbers})", f"{width} × {height} pixels"]
    if "events" in data:
        shortest, _, longest = map(_seconds, data["duration_us"])
        fewest, _, most = map(int, data["events"])
        said += [f"{_range(shortest, longest)} s", f"{_range(fewest, most)} events each"]
    parts = [f"{part} {count}" for part, count in zip(PARTS, data["samples"], strict=True) if count]
    return [f"{', '.join(said)}; {', '.join(parts)}", *_warnings(data)]


def _warnings(data: dict[str, Any]) -> list[str]:
    found = []
    for part, (name, count) in enumerate(zip(PARTS, data["samples"], strict=True)):
        missing = [label for label, counts in data["samples_by_class"].items() if not counts[part]]
        if count and missing:
            found.append(f"warning: no sample of {', '.join(missing)} in the {name} part")
    return found


def _range(low: object, high: object) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def _seconds(us: float) -> str:
    """Return a duration in seconds with two digits or more."""
    seconds = us * 1e-6
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
