"""Changes made to a network and its optimizer during training: learning rate, steepness, clipped weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Protocol

import torch
from torch import nn

from .. import nn as hnn

__all__ = [
    "ANNEALS",
    "SCHEDULES",
    "Recipe",
    "annealing",
    "before_step",
    "check_annealing",
    "end_annealing",
    "smooth_modules",
]

SCHEDULES = ("constant", "cosine")
ANNEALS = tuple(hnn.hardening.SHAPES)


class Recipe(Protocol):
    """A configuration with these fields, as in `TrainConfig`."""

    @property
    def epochs(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def alpha_end(self) -> float: ...
    @property
    def anneal(self) -> str: ...


def smooth_modules(model: nn.Module) -> list[nn.Module]:
    """The activations that are smooth while training and hard afterwards."""
    modules = [module for module in model.modules() if isinstance(module, hnn.BinaryActivation)]
    return [module for module in modules if module.mode == "smooth"]


def annealing(recipe: Recipe, model: nn.Module, steps: int) -> hnn.AnnealAlpha | None:
    """Raises the steepness of smooth activations from their own over so many steps; None if there is none to raise."""
    smooth = [module.surrogate for module in smooth_modules(model) if "alpha" in module.surrogate.values()]
    if not smooth:
        return None
    return hnn.AnnealAlpha(model, smooth[0].alpha, recipe.alpha_end, steps=steps, shape=recipe.anneal)


def check_annealing(recipe: Recipe, model: nn.Module) -> None:
    """Raise ValueError if the recipe says how to anneal, and the model has no activation that could be."""
    if annealing(recipe, model, steps=1) is None:
        for field in fields(recipe):
            value = getattr(recipe, field.name)
            if field.name in ("alpha_end", "anneal") and value != field.default:
                raise ValueError(
                    f"{field.name}: {value!r} has no effect, as no activation is smooth while training; leave it out, "
                    "or take a surrogate such as htaf(normalized=True, mode='smooth')"
                )


def end_annealing(recipe: Recipe, model: nn.Module) -> None:
    """Give smooth activations the steepness that they have after training, which checkpoints do not hold."""
    anneal = annealing(recipe, model, steps=1)
    if anneal is not None:
        anneal.at(1)


def before_step(recipe: Recipe, model: nn.Module, steps: int) -> Callable[[int, torch.optim.Optimizer], None]:
    """Return the `before_step` of `fit` that clips latent weights, anneals, and sets the learning rate.

    Args:
        recipe: a `TrainConfig`, or anything with its `epochs`, `lr`, `schedule`, `alpha_end` and `anneal`.
        model: the network to train.
        steps: training steps per epoch, see `steps_in_epoch`.

    Returns:
        A function of the step's number, counted from the start of the first epoch, and the optimizer.

    Raises:
        ValueError: as `htaf_snn.nn.AnnealAlpha`.

    Example:
        >>> from htaf_snn.training import TrainConfig
        >>> net = nn.Sequential(nn.Linear(2, 2), hnn.HTAFActivation(alpha=1.0))
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
