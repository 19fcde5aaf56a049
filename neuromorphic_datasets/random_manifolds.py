"""``random-manifolds``: every class is a smooth random manifold, and every recording one of its points.

This is the synthetic set of Zenke and Vogels (2021), "The remarkable robustness of surrogate gradient learning for
instilling complex function in spiking neural networks", Neural Computation 33:899. A point x of the hypercube [0, 1]^D
has the coordinates, one per input unit i,

    f_i(x) = prod_j sum_k A_ijk k^-α sin(2π (k B_ijk x_j + C_ijk)),    j = 1 … D, k = 1 … K,

with A, B and C uniform within [0, 1] and fixed for each class; the larger α, the smoother the manifold. The values of
each unit are standardised to [0, 1] over all points of the class, and each unit spikes once, at a time in proportion.
All recordings have equally many spikes, so that only their times tell the classes apart.

The paper's are the formula, and the defaults of its main experiments: 10 classes, 20 units, D = α = 1, 1000 points per
class, of which 800 are for training and 100 each for validation and test, and spikes within 50 ms. Its networks run for
100 steps of 1 ms. K is its 1000; as in the authors' code (https://github.com/fzenke/randman), terms beyond
k = ⌈1000^(1/α)⌉ are left out. Ours are the random numbers, and times in whole µs.
"""

import dataclasses
import math
from collections.abc import Callable
from os import PathLike
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

from . import _cache, _checks
from ._dataset import StoredDataset, digest, is_ours
from ._events import Events, Recording

__all__ = ["RandomManifolds"]

_SMALLEST, _MOST_TERMS = 1e-3, 1000
_PIECE = 1024
_VERSION = 1
"""Grows when equal parameters give other recordings, so that no stale file is ever read."""


class _Model(NamedTuple):
    n_classes: int
    n_units: int
    dim: int
    alpha: float
    n_samples: int
    duration: int
    seed: int


class RandomManifolds(StoredDataset):
    """The data set ``random-manifolds``, which `load` opens with the default values, and others of its kind.

    All recordings are generated on first use, in a few seconds, into one file in the folder `root`. Each has one
    event per unit: x is the unit, t the time in µs, p is 1; there is no y.

    Args:
        split: "train", "val" or "test", of each class eight tenths, one tenth and one tenth of the points; or "all",
            of which `loaders` uses these parts.
        n_classes: manifolds, >= 1.
        n_units: input units, that is, the dimension of the space around the manifolds, in [1, 32768].
        dim: dimension D of the manifolds, >= 1.
        alpha: smoothness α, > 0; large ones need few terms and less time.
        n_samples: points per class, >= 10.
        duration: µs within which all units spike, >= 1; times are in [0, duration - 1].
        seed: of manifolds and points, >= 0. Each class has random numbers of its own.
        root: the folder of the file; None is this package's folder in the user's cache.
        transform: applied to the events, as in `load`.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> recordings = RandomManifolds("train", n_classes=2, n_units=3, alpha=2, n_samples=50, root=folder.name)
        >>> events, label = recordings[1]
        >>> recordings.sensor_size, len(recordings), sorted(events["x"].tolist()), label
        ((3, 1, 1), 80, [0, 1, 2], 1)
        >>> bool((np.diff(events["t"]) >= 0).all()), bool(events["t"].max() < 50_000)
        (True, True)
        >>> folder.cleanup()
    """

    def __init__(
        self,
        split: str = "train",
        *,
        n_classes: int = 10,
        n_units: int = 20,
        dim: int = 1,
        alpha: float = 1.0,
        n_samples: int = 1000,
        duration: int = 50_000,
        seed: int = 0,
        root: str | PathLike | None = None,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        model = _Model(
            _checks.integer("n_classes", n_classes, 1),
            _checks.integer("n_units", n_units, 1, 1 << 15),
            _checks.integer("dim", dim, 1),
            float(_checks.positive("alpha", alpha)),
            _checks.integer("n_samples", n_samples, 10),
            _checks.integer("duration", duration, 1),
            _checks.integer("seed", seed, 0),
        )
        places = _places(model)
        if split not in places:
            raise ValueError(f"split: expected one of {list(places)}, got {split!r}")
        self._chosen, self._parts = places.pop(split), places if split == "all" else {}
        labels = [str(label) for label in range(model.n_classes)]
        targets = self._chosen % model.n_classes
        super().__init__("random-manifolds", split, (model.n_units, 1, 1), labels, targets, transform)
        self._digest = digest([_VERSION, *model])
        folder = _checks.folder("root", root) or _cache.user_folder()
        path = folder / f"random-manifolds-{self._digest}.pack"
        self._pack = _cache.load_or_build(path, lambda file: _write(file, model))

    @property
    def fingerprint(self) -> str:
        """Digits of the parameters; empty for a subclass."""
        return self._digest if is_ours(type(self)) else ""

    @property
    def parts(self) -> dict[str, np.ndarray]:
        return self._parts

    def read(self, position: int, lenient: bool = False) -> Recording:
        events = self._pack.events(int(self._chosen[position]))
        # A packed file numbers the only polarity 0; a spike is 1, as in Tonic's sets of sound.
        return Recording(dataclasses.replace(events, p=np.ones_like(events.p)))

    def packed(self) -> tuple[_cache.Pack, np.ndarray]:
        return self._pack, self._chosen


def _places(model: _Model) -> dict[str, np.ndarray]:
    """Return the positions of each part in the file, in which the classes alternate."""
    tenth = model.n_samples // 10
    edges = np.array([model.n_samples - 2 * tenth, model.n_samples - tenth]) * model.n_classes
    every = np.arange(model.n_samples * model.n_classes)
    return {**dict(zip(("train", "val", "test"), np.split(every, edges), strict=True)), "all": every}


def _write(file: BinaryIO, model: _Model) -> None:
    """Generate all recordings into a packed file."""
    times = np.stack([_times(model, label) for label in range(model.n_classes)], axis=1)
    writer = _cache.Writer(file, (model.n_units, 1, 1))
    on = np.ones(model.n_units, np.int8)
    for number, row in enumerate(times.reshape(-1, model.n_units)):
        order = np.argsort(row, kind="stable")
        writer.add(Recording(Events(order, None, row[order], on)), number % model.n_classes, number)
    writer.finish()


def _times(model: _Model, label: int) -> np.ndarray:
    """Return the spike times of a class, int64 of shape (n_samples, n_units)."""
    random = np.random.default_rng([model.seed, label])
    terms = min(_MOST_TERMS, math.ceil(_SMALLEST ** -min(1 / model.alpha, 1)))
    series = random.random((3, model.n_units, model.dim, terms))
    points = random.random((model.n_samples, model.dim))
    return np.rint(_standardised(_coordinates(points, series, model.alpha)) * (model.duration - 1)).astype(np.int64)


def _coordinates(points: np.ndarray, series: np.ndarray, alpha: float) -> np.ndarray:
    """Return f of points (n, dim), of shape (n, n_units); `series` is A, B and C, of shape (3, n_units, dim, K)."""
    orders = np.arange(1.0, series.shape[-1] + 1)
    weights = torch.from_numpy(series[0] * orders**-alpha)
    rates, phases = (torch.from_numpy(2 * np.pi * values) for values in (series[1] * orders, series[2]))
    pieces = []
    for piece in torch.from_numpy(points).split(_PIECE):
        values = torch.ones(len(piece), series.shape[1], dtype=torch.float64)
        for unit, axis in np.ndindex(series.shape[1:3]):
            # torch's sine takes a fifth of the time of NumPy's.
            sines = torch.outer(piece[:, axis], rates[unit, axis]).add_(phases[unit, axis]).sin_()
            values[:, unit] *= sines @ weights[unit, axis]
        pieces.append(values)
    return torch.cat(pieces).numpy()


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return each column shifted and scaled to [0, 1]."""
    least = values.min(axis=0)
    return (values - least) / (values.max(axis=0) - least)
