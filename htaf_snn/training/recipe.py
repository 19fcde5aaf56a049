"""What a recipe changes in the course of a training: learning rate, annealing, clipped weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from .. import hardening
from .. import nn as hnn
from ..configuration import Recipe
from ..surrogate import Surrogate
from ..surrogate.adapting import has_width

_MISSING = {
    "hardness": "a hardness below 1",
    "alpha": "an alpha that is a number",
    "width": "a number that sets the width",
}


def movable(model: nn.Module, anneal: str) -> dict[str, Surrogate]:
    """Return the surrogates whose hardness, alpha or width can be moved, by the layer that holds them."""
    if anneal == "width":
        return {name: one for name, one in hardening.surrogates(model).items() if has_width(one)}
    return hardening.annealable(model, anneal)


def annealing(recipe: Recipe, model: nn.Module, steps: int) -> hardening.Anneal | None:
    """Return the annealing of the hardness or of alpha over the steps; None if there is none, as for the width.

    A network that is hard throughout starts smooth, at hardness 0; one with a hardness below 1 starts from what each of
    its surrogates has. While alpha rises, the hardness stays.

    Raises:
        ValueError: if there is nothing to anneal.
    """
    if recipe.anneal == "none":
        return None
    surrogates = movable(model, recipe.anneal)
    if not surrogates:
        present = ", ".join(sorted({repr(surrogate) for surrogate in hardening.surrogates(model).values()}))
        raise ValueError(
            f"anneal: expected 'none' for {present or 'neurons that hold no surrogate of this package'}, without "
            f"{_MISSING[recipe.anneal]}, got {recipe.anneal!r}"
        )
    if recipe.anneal == "width":
        return None
    if hardening.is_hard(model):
        for surrogate in hardening.annealable(model, "hardness").values():
            surrogate.hardness = 0.0
    soft = {name: surrogate for name, surrogate in surrogates.items() if surrogate.hardness < 1}
    if not soft:
        raise ValueError(f"anneal: expected 'none' where all that has {recipe.anneal} is hard, got {recipe.anneal!r}")
    if recipe.anneal == "hardness":
        return hardening.Anneal(model, "hardness", None, 1.0, steps=steps)
    values = {name: float(surrogate.numbers()["alpha"]) for name, surrogate in surrogates.items()}
    largest = max(values[name] for name in soft)
    if largest > recipe.alpha_end:
        raise ValueError(f"alpha_end: expected at least {largest}, the surrogate's own, got {recipe.alpha_end}")
    ends = {name: value for name, value in values.items() if name not in soft}
    return hardening.Anneal(model, "alpha", None, recipe.alpha_end, steps=steps, ends=ends)


def check_annealing(recipe: Recipe, model: nn.Module) -> None:
    """Raise ValueError if nothing can be annealed as set."""
    annealing(recipe, copy.deepcopy(model), steps=1)


def before_step(recipe: Recipe, model: nn.Module, steps: int) -> Callable[..., None]:
    """Return the `before_step` of `fit` that clips latent weights, anneals, and sets the learning rate.

    The width is not set by it but by `surrogate.AdaptiveWidth`, as it depends on the batch.

    Args:
        recipe: such as a `Run`.
        model: the network to train.
        steps: steps of the optimizer per epoch, see `steps_in_epoch`.

    Returns:
        A function of the step's number, counted from the start of the first epoch, and the optimizer; a third argument
        of False leaves the weights unclipped.

    Raises:
        ValueError: as `htaf_snn.hardening.Anneal`, and if there is nothing to anneal.

    Example:
        >>> from htaf_snn.training import Run
        >>> net = nn.Sequential(nn.Linear(2, 2), hnn.BinaryActivation("htaf"))
        >>> prepare = before_step(Run(model="dhn", epochs=2, anneal="hardness"), net, steps=2)
        >>> for number in range(4):
        ...     prepare(number, torch.optim.Adam(net.parameters()))
        ...     print(net[1].surrogate.hardness)
        0.25
        0.5
        0.75
        1.0
    """
    total = recipe.epochs * steps
    anneal = annealing(recipe, model, total)

    def prepare(number: int, optimizer: torch.optim.Optimizer, clips: bool = True) -> None:
        if clips:
            hnn.clip_weights(model)
        if anneal is not None:
            anneal.at(number + 1)
        if recipe.schedule == "cosine":
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _one_cycle(number, total, recipe.warmup)

    return prepare


def _one_cycle(number: int, total: int, warmup: float) -> float:
    """Return a factor that rises linearly in the first part of the steps and falls to 0 as half a cosine."""
    rise = min(1.0, (number + 1) / (warmup * total + 1))
    return rise * (0.5 + 0.5 * math.cos(math.pi * max(0.0, number / total - warmup) / (1 - warmup)))
