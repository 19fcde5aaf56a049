"""Changes to a network and its optimizer during training: learning rate, annealing, clipped weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from .. import hardening
from .. import nn as hnn

__all__ = ["ANNEALS", "SCHEDULES", "SHAPES", "Recipe", "before_step", "check_annealing"]

SCHEDULES = ("constant", "cosine")
ANNEALS = ("alpha", "hardness", "none")
SHAPES = tuple(hardening.SHAPES)


class Recipe(Protocol):
    """A configuration with these fields, as in `TrainConfig`."""

    @property
    def epochs(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def anneal(self) -> str: ...
    @property
    def alpha_end(self) -> float: ...
    @property
    def anneal_shape(self) -> str: ...


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
        recipe: a `TrainConfig`, or anything with its fields of `Recipe`.
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
