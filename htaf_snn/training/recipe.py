"""The settings of a training, and what they change in its course: learning rate, annealing, clipped weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from .. import hardening
from .. import nn as hnn
from .folder import is_count, is_number, make_plain, require
from .loop import PRECISIONS

_CHOICES = {
    "schedule": ("constant", "cosine"),
    "anneal": ("alpha", "hardness", "none"),
    "anneal_shape": tuple(hardening.SHAPES),
    "precision": PRECISIONS,
    "device": ("auto", "cpu", "cuda"),
}
_COUNT = ("an integer of at least 1", is_count)
_VALID: dict[str, tuple[str, Callable[[Any], object]]] = {
    **dict.fromkeys(("epochs", "batch_size", "n_time_bins", "n_concepts", "width"), _COUNT),
    "hidden": ("one or more positive integers", lambda v: isinstance(v, tuple) and v and all(map(is_count, v))),
    "folds": ("None or an integer of at least 2", lambda v: v is None or (is_count(v) and v > 1)),
    **dict.fromkeys(("lr", "alpha_end"), ("a number in (0, 1e6]", lambda v: is_number(v) and 0 < v <= 1e6)),
    "val_fraction": ("a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1),
    "seed": ("an integer from 0 to 2^63 - 1", lambda v: type(v) is int and 0 <= v < 2**63),
    **{name: (f"one of {', '.join(choices)}", choices.__contains__) for name, choices in _CHOICES.items()},
}


@dataclass(frozen=True)
class _Checked:
    def __post_init__(self):
        make_plain(self)
        for field in fields(self):
            if field.name in _VALID:
                require(field.name, getattr(self, field.name), *_VALID[field.name])


@dataclass(frozen=True)
class Recipe(_Checked):
    """How a network is trained; the fields are those of `TrainConfig`."""

    epochs: int = 20
    lr: float = 1e-3
    schedule: str = "constant"
    anneal: str = "alpha"
    alpha_end: float = 20.0
    anneal_shape: str = "linear"


@dataclass(frozen=True)
class Setup(_Checked):
    """The data and the machine of a run; the fields are those of `TrainConfig`."""

    dataset: str | None = None
    root: str | None = None
    download: bool = False
    batch_size: int = 32
    precision: str = "float32"
    compiled: bool = False
    seed: int = 0
    val_fraction: float = 0.1
    device: str = "auto"


def annealing(recipe: Recipe, model: nn.Module, steps: int) -> hardening.Anneal | None:
    """Return the annealing of alpha or the hardness over the steps; None if there is none.

    Each surrogate starts from its present value; those that are hard keep theirs.

    Raises:
        ValueError: if a surrogate is smooth, and none that is can be annealed.
    """
    soft = [surrogate for surrogate in hardening.surrogates(model).values() if surrogate.hardness < 1]
    if recipe.anneal == "none" or not soft:
        return None
    surrogates = hardening.annealable(model, recipe.anneal)
    if not any(surrogate.hardness < 1 for surrogate in surrogates.values()):
        raise ValueError(
            f"anneal: expected 'hardness' or 'none' for {soft[0]!r}, which has no {recipe.anneal} that is a fixed "
            f"number, got {recipe.anneal!r}"
        )
    end = 1.0 if recipe.anneal == "hardness" else recipe.alpha_end
    own = max(float(s.numbers()[recipe.anneal]) for s in surrogates.values() if s.hardness < 1)
    if own > end:
        raise ValueError(f"alpha_end: expected at least {own}, the surrogate's own, got {end}")
    ends = {name: float(s.numbers()[recipe.anneal]) for name, s in surrogates.items() if s.hardness == 1}
    return hardening.Anneal(model, recipe.anneal, None, end, steps=steps, shape=recipe.anneal_shape, ends=ends)


def check_annealing(recipe: Recipe, model: nn.Module) -> None:
    """Raise ValueError if nothing can be annealed as set, or a setting of it is no default and has no effect."""
    idle: tuple[str, ...] = ("anneal", "alpha_end", "anneal_shape")
    if annealing(recipe, model, steps=1):
        idle = () if recipe.anneal == "alpha" else ("alpha_end",)
    if hardening.is_hard(model):
        reason = "without a hardness below 1; leave it out, or use a surrogate such as htaf(hardness=0.0)"
    else:
        reason = f"with this surrogate and anneal={recipe.anneal!r}; leave it out"
    for name in idle:
        value = getattr(recipe, name)
        if value != getattr(type(recipe), name) and (name, value) != ("anneal", "none"):
            raise ValueError(f"{name}: {value!r} has no effect {reason}")


def before_step(recipe: Recipe, model: nn.Module, steps: int) -> Callable[[int, torch.optim.Optimizer], None]:
    """Return the `before_step` of `fit` that clips latent weights, anneals, and sets the learning rate.

    Args:
        recipe: a `TrainConfig`, or a `concepts.Recipe`.
        model: the network to train.
        steps: training steps per epoch, see `steps_in_epoch`.

    Returns:
        A function of the step's number, counted from the start of the first epoch, and the optimizer.

    Raises:
        ValueError: as `htaf_snn.hardening.Anneal`, and if there is a surrogate below hardness 1, but none with what is
            to be annealed.

    Example:
        >>> from htaf_snn.training import TrainConfig
        >>> net = nn.Sequential(nn.Linear(2, 2), hnn.BinaryActivation("htaf(hardness=0.0)"))
        >>> prepare = before_step(TrainConfig(model="dhn", epochs=2, alpha_end=16.0), net, steps=2)
        >>> for number in range(4):
        ...     prepare(number, torch.optim.Adam(net.parameters()))
        ...     print(net[1].surrogate.alpha)
        2.0
        4.0
        8.0
        16.0
    """
    total = recipe.epochs * steps
    anneal = annealing(recipe, model, total)

    def prepare(number: int, optimizer: torch.optim.Optimizer) -> None:
        hnn.clip_weights(model)
        if anneal is not None:
            anneal.at(number + 1)
        if recipe.schedule == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _one_cycle(number, total)

    return prepare


def _one_cycle(number: int, total: int) -> float:
    """Return a factor that rises linearly in the first tenth of the steps and falls to 0 as half a cosine."""
    rise = min(1.0, (number + 1) / (0.1 * total + 1))
    return rise * (0.5 + 0.5 * math.cos(math.pi * max(0.0, number / total - 0.1) / 0.9))
