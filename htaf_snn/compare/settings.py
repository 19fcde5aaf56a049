"""The settings of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch

from .. import training
from .._checks import check_choice
from .._hints import did_you_mean
from ..configuration import SHARED, AnnealOf, Run, Shared, StudySettings, is_count, is_number, require
from ..surrogate import resolve
from ..training.folder import device_of
from ..training.recipe import check_annealing, movable
from . import axes
from .entries import ELSEWHERE
from .matching import identity
from .trial import TWIN, Trial

SPIKING_SURROGATES = ("htaf", "snntorch.atan", "snntorch.fast_sigmoid", "norse.super", "triangle")
BINARY_SURROGATES = ("htaf", "clipped_ste", "approx_sign", "swish_sign", "ede")

FREE = (*ELSEWHERE, "select", "select_seeds")
"""What may differ between the machines that share a study, and between its reports."""


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """The settings of a study; the other attributes are those of `configuration.StudySettings`.

    A surrogate, what is annealed and the identity in the weights are an arm of the study. Arms are compared with the
    first one, either at the same slope and learning rate, or each at those with which it has the best mean validation
    accuracy, by depth and data set. A combination of an annealing and a surrogate that has no smooth step, no alpha or
    no width, such as another library's, is left out; so are slopes and annealing of relu, the twin. A width that
    follows the potentials is divided by the slope.

    Attributes:
        shared: the configuration that all trials have in common.

    Raises:
        ValueError: if a value is out of range, or repeated.

    Example:
        >>> settings = Settings.of(surrogates=("htaf", "atan"), slopes=(0.5, 1.0, 2.0), seeds=5, epochs=3)
        >>> len(settings.trials()), settings.dataset, settings.shared.epochs
        (30, ('saccade-digits',), 3)
    """

    shared: Shared = field(default_factory=Shared)

    @classmethod
    def of(cls, **values: Any) -> Settings:
        """Return the settings of these values: the study's own, and fields of a `Run` that all trials share.

        The fields of a run are `configuration.SHARED`: all but those that a study varies, and library, dropout,
        early_stopping, log and download.

        Raises:
            TypeError: if there is no such setting.
            ValueError: as for the class.
        """
        own = {field.name for field in fields(StudySettings)}
        for name in values.keys() - own - {*SHARED}:
            known = ", ".join(sorted({*own, *SHARED}))
            raise TypeError(
                f"{name}: expected one of {known}, got an unknown setting{did_you_mean(name, f'one of {known}')}"
            )
        shared = Shared(**{name: value for name, value in values.items() if name not in own})
        return cls(**{name: value for name, value in values.items() if name in own}, shared=shared)

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Return the settings in a study's file.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            return cls.of(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: expected the settings of a study, got {error}") from error

    def changes(self, before: Settings) -> list[str]:
        """Return in words what makes another study of these settings than of those before; more seeds do not."""
        now, then = self.as_dict(), before.as_dict()
        free = {*FREE, *(["seeds"] if self.seeds > before.seeds else [])}
        names = [name for name in now if now[name] != then[name] and name not in free]
        expected = {name: repr(then[name]) for name in names}
        if "seeds" in expected:
            expected["seeds"] = f"at least {before.seeds}, as the number can only grow"
        return [f"{name}: expected {expected[name]}, got {now[name]!r}" for name in names]

    def as_dict(self) -> dict[str, Any]:
        """Return the values of which `of` makes these settings."""
        values = asdict(self)
        shared = values.pop("shared")
        # The model first, as the rest depends on it.
        return {"model": shared["model"]} | values | {name: shared[name] for name in SHARED}

    def __post_init__(self):
        super().__post_init__()
        model = self.shared.model
        spiking = model in training.SPIKING
        if self.dataset is None or isinstance(self.dataset, str):
            object.__setattr__(self, "dataset", (self.dataset or training.OFFLINE[model],))
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
            allowed = f"none or 1 to {self.seeds}" if self.select == "val" else "none without select=val"
            valid = self.select == "val" and is_count(self.select_seeds) and self.select_seeds <= self.seeds
            require("select_seeds", self.select_seeds, allowed, lambda _: valid)
        if self.budget == "halving" and self.select_seeds != 1:
            raise ValueError("budget: expected full without select=val and select_seeds=1, got halving")
        if self.budget == "halving" and self.shared.epochs == 1:
            raise ValueError("budget: expected full with epochs=1, as nothing is left to end early, got halving")
        if TWIN in self.surrogates and spiking:
            raise ValueError(f"surrogates: {TWIN!r}, the floating-point twin, is only for bnn, dhn")
        for name, value in asdict(self.shared).items():
            if name not in SHARED and value != getattr(Shared(model=model), name):
                raise ValueError(f"shared: expected no {name}, which a study varies or does not use, got {value!r}")
        if not self.shared.val_fraction:
            raise ValueError("val_fraction: expected more than 0 for a study, which shows validation accuracies, got 0")
        object.__setattr__(self, "axis", axes.checked(self.axis, self.shared, self.width))
        self._check_arms()
        if self.alpha_end != type(self).alpha_end and "alpha" not in self.anneal:
            raise ValueError(f"alpha_end: {self.alpha_end!r} has no effect without anneal=alpha")
        if "width" in self.anneal and self.match == "half_width":
            raise ValueError(
                "match: expected none, peak or area with anneal=width, which sets the half widths, got 'half_width'"
            )
        self.trials()  # whose runs check their settings

    def _check_arms(self) -> None:
        """Raise ValueError if a surrogate or an annealing has no arm, or nothing can be selected."""
        if not all(is_number(value) and 0 <= value < float("inf") for value in self.identity):
            raise ValueError(f"identity: expected finite numbers >= 0, got {list(self.identity)}")
        arms = self.arms()
        for anneal in set(self.anneal) - {anneal for _, anneal, *_ in arms}:
            raise ValueError(f"anneal: expected a surrogate with which {anneal!r} has an effect, got none")
        for surrogate in set(self.surrogates) - {surrogate for surrogate, *_ in arms}:
            expected = "one with a smooth step, and with an alpha for 'alpha', a width for 'width'"
            raise ValueError(f"surrogates: expected {expected}, for anneal={','.join(self.anneal)}, got {surrogate!r}")
        if self.select == "val" and len(self.slopes) * len(self.lrs) == 1:
            raise ValueError("select: expected none with one slope and one learning rate, got val")
        if self.select == "val" and self.shared.folds is not None:
            raise ValueError("select: expected none with folds, as one seed trains on what another tests, got val")

    def check(self) -> None:
        """Try every surrogate, and check that the data sets are known.

        Raises:
            ValueError, ImportError: naming what is unknown, cannot be matched or is not installed.
        """
        import neuromorphic_datasets as nd

        model = self.shared.model
        device_of(self.shared.device)
        known = nd.names() if model in training.SPIKING else nd.images.names()
        for name in self.dataset:
            if name == "digits" or name not in known:  # a fault in them would fail every trial
                try:
                    self.data(name)
                except ValueError as error:
                    raise ValueError(str(error).replace("name:", "dataset:", 1)) from None
        trials = {(one.surrogate, one.slope, one.run.anneal, one.variant, one.place): one for one in self.trials()}
        for trial in trials.values():
            surrogate = trial.rescaled()
            if surrogate is not None:
                check_annealing(trial.run, surrogate)
                surrogate(torch.zeros(1, requires_grad=True)).sum().backward()
        names: dict[tuple, str] = {}
        for name in self.surrogates:
            same = name if name == TWIN else names.setdefault(identity(name), name)
            if same != name:
                expected = "surrogates: expected each function once"
                raise ValueError(f"{expected}, got {same} and {name}, which are the same")
        # A neuron, or a surrogate of weights, may be unknown, or not take a surrogate that is stretched.
        own = [one for one in trials.values() if one.surrogate != TWIN]
        for first in {(one.surrogate, one.variant, one.place): one for one in own}.values():
            surrogate = first.rescaled()
            with torch.random.fork_rng(), torch.no_grad():
                net = training.make_model(first.run, (1, 1, 1), 2, surrogate).eval()
                net(torch.zeros(1, 1, 1, 1, 1) if model in training.SPIKING else torch.zeros(1, 1, 1, 1))

    @property
    def selecting_seeds(self) -> int:
        """The number of seeds with which all combinations are trained."""
        return self.select_seeds or self.seeds

    def arms(self) -> list[tuple[str, str, float, str]]:
        """Return the combinations of a surrogate, what is annealed, the identity and maybe the axes' values."""
        combined = [
            (name, anneal)
            for name in self.surrogates
            for anneal in (("none",) if name == TWIN else self.anneal)
            if _anneals(name, anneal)
        ]
        alone = [(*pair, float(identity), "") for pair, identity in product(combined, self.identity)]
        return alone if len(alone) != 1 else [(*alone[0][:3], variant) for variant in axes.named(self.axis)]

    def places(self) -> list[str]:
        """Return the names of the axes' values at which arms are compared, the empty one if there is no such axis."""
        return [""] if any(variant for *_, variant in self.arms()) else [*axes.named(self.axis)]

    def numbers_of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the slope, learning rate, depth and axes' values of a row of the table."""
        own = axes.named(self.axis)[row["variant"] or row["place"]]
        return {name: row[name] for name in ("slope", "lr", "depth")} | own

    def trials(self) -> list[Trial]:
        """Return every trial, with the seeds of each combination in a row.

        Those of the seeds that do not select are left out, see `further`.
        """
        trials = []
        for dataset, arm, depth, place in product(self.dataset, self.arms(), self.depths, self.places()):
            slopes = (1.0,) if arm[0] == TWIN else self.slopes
            for slope, lr in product(slopes, self.lrs):
                trials += self._seeds(range(self.selecting_seeds), dataset, arm, depth, place, slope, lr)
        return trials

    def further(self, chosen: Mapping[tuple, tuple]) -> list[Trial]:
        """Return the trials of the other seeds, at the (slope, lr) chosen for each setting and arm."""
        seeds, trials = range(self.selecting_seeds, self.seeds), []
        for (dataset, depth, place, *arm), (slope, lr) in chosen.items():
            trials += self._seeds(seeds, dataset, arm, depth, place, slope, lr)
        return trials

    def _seeds(
        self, seeds: range, dataset: str, arm: Sequence, depth: int, place: str, slope: float, lr: float
    ) -> list[Trial]:
        values = {name: getattr(self.shared, name) for name in SHARED}
        values |= {"dataset": dataset, "data_root": self.root_of(dataset), "lr": lr}
        surrogate, values["anneal"], values["identity"], variant = arm
        values |= {"width": self.width} | axes.named(self.axis)[variant or place]
        values["hidden"] = (values.pop("width"),) * depth
        if values["anneal"] == "alpha":
            values["alpha_end"] = self.alpha_end
        if surrogate == TWIN:
            values |= {"model": TWIN, "weight_surrogate": Run.weight_surrogate}
        else:
            values["surrogate"] = surrogate
        folds = self.shared.folds
        runs = [Run(**values, seed=seed, fold=None if folds is None else seed % folds) for seed in seeds]
        own = {"slope": slope, "match": self.match, "reference": self.reference, "variant": variant, "place": place}
        return [Trial(run=run, **own) for run in runs]

    def data(self, dataset: str) -> Any:
        """Return all recordings of one of the data sets, or its training and test images.

        Raises:
            ValueError, OSError: as `neuromorphic_datasets.load` and `images.load`.
        """
        import neuromorphic_datasets as nd

        root = self.root_of(dataset)
        if self.shared.model in training.SPIKING:
            return nd.load(dataset, "all", root=root)
        return nd.images.load(dataset, root=root, resize=self.shared.resize)

    def root_of(self, dataset: str) -> str | None:
        """Return the folder of one of the data sets; None for the default place."""
        root = self.shared.data_root
        if root is None or len(self.dataset) == 1:
            return root
        folder = Path(root, dataset)
        is_name = Path(dataset).name == dataset and ":" not in dataset
        return str(folder) if is_name and folder.is_dir() else None


def _anneals(surrogate: str, anneal: str) -> bool:
    """Return whether a surrogate can be trained with that annealing."""
    return anneal == "none" or bool(movable(resolve(surrogate), anneal))
