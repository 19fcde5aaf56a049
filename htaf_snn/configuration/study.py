"""What a study compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from .checking import Checked, Valid, is_count
from .fields import Count, Match, Positive
from .run import Run

Several = tuple[str, ...]
Axis = Annotated[
    dict[str, tuple],
    Valid(
        "fields of a run with several values each, such as {'n_time_bins': (5, 10)}",
        lambda v: isinstance(v, Mapping) and all(isinstance(own, tuple) and own for own in v.values()),
    ),
]
Numbers = tuple[float, ...]
_VARIED = ("dataset", "surrogate", "anneal", "alpha_end", "identity", "hidden", "width", "lr", "seed", "fold")
# The cosine with the reference's gradient needs this package's neurons, curves are averaged over trials, no model here
# has dropout, and trials have neither a folder nor the time to fetch data.
_UNUSED = ("library", "early_stopping", "dropout", "log", "download")


@dataclass(frozen=True, kw_only=True)
class Shared(Run):
    """What all trials of a study have in common; the other attributes are those of `Run`.

    Attributes:
        model: for events, mlp, which spikes; for images, bnn (binary) or dhn (deep Heaviside).
        data_root: folder of a published set; with several, a folder with a subfolder for each, by name.
        val_fraction: fraction of the training samples held out for validation, in (0, 1).
        folds: pool all recordings; seed s tests on fold s modulo this number of stratified folds.
        keep: which network is tested, that of the last epoch or that of the best validation accuracy.
        device: auto, cpu or cuda; workers share a GPU.
        neuron: neuron of the spiking network, with its parameters, such as "lif(v_th=0.3)"; by default leaky(beta=0.9).
        epochs: passes over the training data.
    """

    model: Literal["mlp", "bnn", "dhn"] = "mlp"
    epochs: Count = 8


SHARED = tuple(f.name for f in fields(Shared) if f.name not in (*_VARIED, *_UNUSED))
"""The fields of a run that a study takes as they are."""
_FIXED = ("model", "data_root", "device", "folds", "val_fraction", "resize", "augment")
AXES = (*(name for name in SHARED if name not in _FIXED), "width")
"""Those of which it can take several values, not those that divide the data or are lists themselves; and the width."""


@dataclass(frozen=True, kw_only=True)
class StudySettings(Checked):
    """What a study compares: all combinations of the values below.

    Attributes:
        dataset: one or more data sets, as in `Data`. Without one, saccade-digits or, for images, digits.
        surrogates: specifications such as "htaf(beta=8)", snntorch.atan or, of your own, FILE.py:NAME; the first is the
            baseline of the tests. For images also relu, the floating-point twin. By default five common
            ones, for images five others.
        anneal: one or more of none, hardness, alpha and width, which are annealed as in `Recipe`.
        alpha_end: last alpha, with anneal alpha.
        identity: multiples of the identity in the weights at the start.
        slopes: factors of the surrogates' argument, > 0; a larger one makes every surrogate narrower.
        depths: numbers of hidden layers.
        width: neurons per hidden layer.
        lrs: learning rates.
        axis: the width or other fields of a run with several values each, such as n_time_bins=5,10 or
            neuron=lif,leaky(beta=0.9). Arms are compared at each of them; if there is one arm alone, they are what is
            compared, with the first.
        match: quantity made equal for all surrogates: none, peak, half_width or area.
        reference: surrogate that the others are matched to, and whose gradients theirs are compared with.
        seeds: number of seeds, 0, 1, …; at least 3 for a claim.
        select: val, to compare each arm at the slope and learning rate that validation chose; or none.
        select_seeds: number of seeds that select; the others are trained at the chosen places only, and they alone are
            compared, as the choice favours those that made it. Without it all select and all are compared.
        budget: full, or halving, for the seed that selects: after 1, 3, 9, … epochs a training goes on only if it is
            among the best third, ties included, of those of its arm that came so far before it. What was ended is in no
            test. Needs select val and one seed that selects.
    """

    # `compare.Settings` replaces None by the defaults of the model.
    dataset: Several = None  # type: ignore[assignment]
    surrogates: Several = None  # type: ignore[assignment]
    anneal: Several = ("none",)
    alpha_end: Positive = 20.0
    identity: Numbers = (0.0,)
    slopes: Numbers = (1.0,)
    depths: tuple[int, ...] = (2,)
    width: Annotated[int, Valid("an integer >= 1", is_count)] = 128
    lrs: Numbers = (1e-3,)
    axis: Axis = field(default_factory=dict)
    match: Match = "peak"
    reference: str = "htaf"
    seeds: Annotated[int, Valid("an integer >= 1", is_count)] = 5
    select: Literal["none", "val"] = "none"
    select_seeds: int | None = None
    budget: Literal["full", "halving"] = "full"
