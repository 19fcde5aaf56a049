"""The settings of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from .. import hardening, training
from .._checks import check_choice
from ..configuration import ANNEALED_BY, AnnealOf, Compared, StudySettings, is_count, is_number, require
from ..surrogate import resolve
from ..training.folder import device_of
from ..training.recipe import check_annealing
from . import trial

SPIKING_SURROGATES = ("htaf", "snntorch.atan", "snntorch.fast_sigmoid", "norse.super", "triangle")
BINARY_SURROGATES = ("htaf", "clipped_ste", "approx_sign", "swish_sign", "ede")


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """The settings of a study; the attributes are those of `configuration.StudySettings`.

    A surrogate, what is annealed and the identity in the weights are an arm of the study. Arms are compared with the
    first one, either at the same slope and learning rate, or each at those with which it has the best mean validation
    accuracy, by depth and data set. A combination of an annealing and a surrogate that has no smooth step or no alpha,
    such as another library's, is left out; so are slopes and annealing of relu, the twin.

    Raises:
        ValueError: if a value is out of range, or repeated.

    Example:
        >>> settings = Settings(surrogates=("htaf", "atan"), slopes=(0.5, 1.0, 2.0), seeds=5)
        >>> len(settings.configs()), settings.dataset
        (30, ('saccade-digits',))
    """

    def __post_init__(self):
        super().__post_init__()
        spiking = self.model in training.SPIKING
        if self.dataset is None or isinstance(self.dataset, str):
            object.__setattr__(self, "dataset", (self.dataset or training.OFFLINE[self.model],))
        if isinstance(self.anneal, str):
            object.__setattr__(self, "anneal", (self.anneal,))
        if is_number(self.identity):
            object.__setattr__(self, "identity", (self.identity,))
        if self.surrogates is None:
            object.__setattr__(self, "surrogates", SPIKING_SURROGATES if spiking else BINARY_SURROGATES)
        for name in ("dataset", "surrogates", "anneal", "identity", "slopes", "depths", "lrs"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"{name}: expected one value or more, got {values!r}")
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, got {list(values)}")
        for name in ("slopes", "lrs"):
            if not all(is_number(value) and 0 < value < float("inf") for value in getattr(self, name)):
                raise ValueError(f"{name}: expected positive finite numbers, got {list(getattr(self, name))}")
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        for i, depth in enumerate(self.depths):
            require(f"depths, number {i + 1}", depth, "an integer >= 1", is_count)
        for anneal in self.anneal:
            check_choice("anneal", anneal, get_args(AnnealOf))
        if self.select_seeds is not None:
            allowed = f"None or 1 to {self.seeds}" if self.select == "val" else "None without select='val'"
            valid = self.select == "val" and is_count(self.select_seeds) and self.select_seeds <= self.seeds
            require("select_seeds", self.select_seeds, allowed, lambda _: valid)
        if trial.TWIN in self.surrogates and spiking:
            raise ValueError(f"surrogates: {trial.TWIN!r}, the floating-point twin, is only for bnn, dhn")
        self._check_arms()
        self._check_effects()
        for config in self.configs():
            config.trained()  # checks the settings of the training

    def _check_arms(self) -> None:
        """Raise ValueError if a surrogate or an annealing has no arm, or nothing can be selected."""
        if not all(is_number(value) and 0 <= value < float("inf") for value in self.identity):
            raise ValueError(f"identity: expected finite numbers >= 0, got {list(self.identity)}")
        arms = self.arms()
        for anneal in set(self.anneal) - {anneal for _, anneal, _ in arms}:
            raise ValueError(f"anneal: expected a surrogate with which {anneal!r} has an effect, got none")
        for surrogate in set(self.surrogates) - {surrogate for surrogate, _, _ in arms}:
            expected = "one with a smooth step, and with an alpha for 'alpha'"
            raise ValueError(f"surrogates: expected {expected}, for anneal={','.join(self.anneal)}, got {surrogate!r}")
        if self.select == "val" and len(self.slopes) * len(self.lrs) == 1:
            raise ValueError("select: expected 'none' with one slope and one learning rate, got 'val'")
        if self.select == "val" and self.folds is not None:
            raise ValueError("select: expected 'none' with folds, as one seed trains on what another tests, got 'val'")

    def _check_effects(self) -> None:
        """Raise ValueError if a setting is no default and has no effect on any arm."""
        for name, anneals in ANNEALED_BY.items():
            value = getattr(self, name)
            if value != getattr(type(self), name) and not set(anneals) & set(self.anneal):
                raise ValueError(f"{name}: {value!r} has no effect without anneal={' or '.join(anneals)}")

    def check(self) -> None:
        """Try every surrogate, and check that the data sets are known.

        Raises:
            ValueError, ImportError: naming what is unknown, cannot be matched or is not installed.
        """
        import neuromorphic_datasets as nd

        device_of(self.device)
        known = nd.names() if self.model in training.SPIKING else nd.images.names()
        for name in self.dataset:
            if name == "digits" or name not in known:  # a fault in them would fail every trial
                try:
                    self.data(name)
                except ValueError as error:
                    raise ValueError(str(error).replace("name:", "dataset:", 1)) from None
        configs = {(config.surrogate, config.slope, config.anneal): config for config in self.configs()}
        for config in configs.values():
            surrogate = trial.surrogate_of(config)
            if surrogate is not None:
                check_annealing(config.trained(), surrogate)
                surrogate(torch.zeros(1, requires_grad=True)).sum().backward()
        if self.model in training.BINARY:
            # Refuses an unknown weight surrogate.
            first = next((config for config in configs.values() if config.surrogate != trial.TWIN), None)
            if first is not None:
                training.make_model(first.trained(), (1, 1, 1), 2, "htaf")

    @property
    def selecting_seeds(self) -> int:
        """The number of seeds with which all combinations are trained."""
        return self.select_seeds or self.seeds

    def arms(self) -> list[tuple[str, str, float]]:
        """Return the combinations of a surrogate, what is annealed and the identity that are compared."""
        combined = [
            (name, anneal)
            for name in self.surrogates
            for anneal in (("none",) if name == trial.TWIN else self.anneal)
            if _anneals(name, anneal)
        ]
        return [(*pair, float(identity)) for pair, identity in product(combined, self.identity)]

    def configs(self) -> list[trial.Config]:
        """Return the configuration of every trial, with the seeds of each combination in a row.

        Those of the seeds that do not select are left out, see `further`.
        """
        configs = []
        for dataset, arm, depth in product(self.dataset, self.arms(), self.depths):
            slopes = (1.0,) if arm[0] == trial.TWIN else self.slopes
            for slope, lr in product(slopes, self.lrs):
                configs += self._seeds(range(self.selecting_seeds), dataset, arm, depth, slope, lr)
        return configs

    def further(self, chosen: Mapping[tuple, tuple]) -> list[trial.Config]:
        """Return the configurations of the other seeds, at the (slope, lr) chosen for each setting and arm."""
        seeds, configs = range(self.selecting_seeds, self.seeds), []
        for (dataset, depth, *arm), (slope, lr) in chosen.items():
            configs += self._seeds(seeds, dataset, arm, depth, slope, lr)
        return configs

    def _seeds(
        self, seeds: range, dataset: str, arm: Sequence, depth: int, slope: float, lr: float
    ) -> list[trial.Config]:
        shared = {field.name: getattr(self, field.name) for field in fields(Compared)}
        shared |= {"dataset": dataset, "data_root": self.root_of(dataset)}
        shared |= dict(zip(("surrogate", "anneal", "identity"), arm, strict=True))
        shared |= {name: getattr(trial.Config, name) for name, anneals in ANNEALED_BY.items() if arm[1] not in anneals}
        return [trial.Config(**shared, slope=slope, depth=depth, lr=lr, seed=seed) for seed in seeds]

    def data(self, dataset: str) -> Any:
        """Return all recordings of one of the data sets, or its training and test images.

        Raises:
            ValueError, OSError: as `neuromorphic_datasets.load` and `images.load`.
        """
        import neuromorphic_datasets as nd

        root = self.root_of(dataset)
        if self.model in training.SPIKING:
            return nd.load(dataset, "all", root=root)
        return nd.images.load(dataset, root=root, resize=self.resize)

    def root_of(self, dataset: str) -> str | None:
        """Return the folder of one of the data sets; None for the default place."""
        if self.data_root is None or len(self.dataset) == 1:
            return self.data_root
        folder = Path(self.data_root, dataset)
        is_name = Path(dataset).name == dataset and ":" not in dataset
        return str(folder) if is_name and folder.is_dir() else None


def _anneals(surrogate: str, anneal: str) -> bool:
    """Return whether a surrogate can be trained with that annealing."""
    return anneal == "none" or bool(hardening.annealable(resolve(surrogate), anneal))
