"""The settings of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import torch

from .. import training
from .._checks import check_choice
from ..surrogate import resolve
from ..training.folder import device_of, is_count, is_number, make_plain, require
from ..training.recipe import annealing, check_annealing
from . import trial
from .matching import MATCHES

MODELS = ("mlp", *training.BINARY)
SPIKING_SURROGATES = ("htaf", "snntorch.atan", "snntorch.fast_sigmoid", "norse.super", "triangle")
BINARY_SURROGATES = ("htaf", "htaf(normalized=True, hardness=0.0)", "clipped_ste", "approx_sign", "swish_sign", "ede")


@dataclass(frozen=True, kw_only=True)
class Settings(trial.Shared):
    """What a study compares: all combinations of the values below.

    Attributes:
        model: a spiking "mlp", or for images "bnn" or "dhn", as in `training.TrainConfig`.
        dataset: names from `neuromorphic_datasets.names()`, for images from `neuromorphic_datasets.images.names()`, or
            a single name; None for saccade-digits or, for images, digits.
        root: folder of the data set, or None for the default place. With several data sets, a folder with a subfolder
            named after each data set that is not in the default place.
        surrogates: specifications as in `htaf_snn.surrogate.resolve`; the first is the baseline of the tests. None for
            `SPIKING_SURROGATES` or, for images, `BINARY_SURROGATES`.
        slopes: factors of the surrogates' argument, > 0; a larger one makes every surrogate narrower.
        depths: numbers of hidden layers.
        lrs: learning rates.
        seeds: number of seeds; they are 0, 1, ….
        match: the quantity of each surrogate that is made equal to the reference's: "none", "peak", "half_width" or
            "area".
        reference: the surrogate that the others are matched to, and whose gradient theirs is compared with.
        width: neurons per hidden layer.
        folds: pool the parts of the data set, and test on fold ``seed % folds`` of this many; None keeps the parts.
        weight_surrogate, epochs, batch_size, n_time_bins, schedule, anneal, alpha_end, anneal_shape, device: as in
            `training.TrainConfig`.

    Raises:
        ValueError: if a value is out of range, or repeated.

    Example:
        >>> settings = Settings(surrogates=("htaf", "atan"), slopes=(0.5, 1.0, 2.0), seeds=5)
        >>> len(settings.configs()), settings.dataset
        (30, ('saccade-digits',))
    """

    # `__post_init__` replaces None by the defaults of the model.
    dataset: tuple[str, ...] = None  # type: ignore[assignment]  # None is replaced in __post_init__
    surrogates: tuple[str, ...] = None  # type: ignore[assignment]  # likewise
    slopes: tuple[float, ...] = (1.0,)
    depths: tuple[int, ...] = (2,)
    lrs: tuple[float, ...] = (1e-3,)
    seeds: int = 5

    def __post_init__(self):
        make_plain(self)
        check_choice("model", self.model, MODELS)
        spiking = self.model in training.SPIKING
        if self.dataset is None or isinstance(self.dataset, str):
            object.__setattr__(self, "dataset", (self.dataset or training.OFFLINE[self.model],))
        if self.surrogates is None:
            object.__setattr__(self, "surrogates", SPIKING_SURROGATES if spiking else BINARY_SURROGATES)
        for name in ("dataset", "surrogates", "slopes", "depths", "lrs"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"{name}: expected one value or more, got {values!r}")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, got {list(values)}")
        for name in ("slopes", "lrs"):
            if not all(is_number(value) and 0 < value < float("inf") for value in getattr(self, name)):
                raise ValueError(f"{name}: expected positive finite numbers, got {list(getattr(self, name))}")
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        counts = {"seeds": self.seeds, "width": self.width}
        counts |= {f"depths, number {i + 1}": depth for i, depth in enumerate(self.depths)}
        for name, value in counts.items():
            require(name, value, "an integer >= 1", is_count)
        check_choice("match", self.match, MATCHES)
        for config in self.configs():
            config.trained()  # checks the settings of the training

    def check(self) -> None:
        """Try every surrogate, and check that the data sets are known.

        Raises:
            ValueError, ImportError: naming what is unknown, cannot be matched or is not installed.
        """
        import neuromorphic_datasets as nd

        device_of(self.device)
        known = nd.names() if self.model in training.SPIKING else nd.images.names()
        for name in self.dataset:
            check_choice("dataset", name, known)
            if name == "digits":
                nd.images.load(name, root=self.root_of(name))  # refuses a folder, on which every trial would fail
        configs = self.configs()
        trained, surrogates = configs[0].trained(), [resolve(surrogate) for surrogate in self.surrogates]
        annealed = [surrogate for surrogate in surrogates if annealing(trained, surrogate, steps=1)]
        check_annealing(trained, (annealed or surrogates)[0])
        if self.model in training.BINARY:
            training.binary_network(trained, 1, 2, surrogates[0])  # refuses an unknown weight surrogate
        for config in {(config.surrogate, config.slope): config for config in configs}.values():
            trial.surrogate_of(config)(torch.zeros(1, requires_grad=True)).sum().backward()

    def configs(self) -> list[trial.Config]:
        """Return the configuration of every trial, with the seeds of each combination in a row."""
        shared = {field.name: getattr(self, field.name) for field in fields(trial.Shared)}
        names = ("dataset", "surrogate", "slope", "depth", "lr", "seed")
        grid = product(self.dataset, self.surrogates, self.slopes, self.depths, self.lrs, range(self.seeds))
        configs = [trial.Config(**shared | dict(zip(names, values, strict=True))) for values in grid]
        return [replace(config, root=self.root_of(config.dataset)) for config in configs]

    def root_of(self, dataset: str) -> str | None:
        """Return the folder of one of the data sets; None for the default place."""
        if self.root is None or len(self.dataset) == 1:
            return self.root
        folder = Path(self.root, dataset)
        return str(folder) if folder.is_dir() else None
