"""The arms of a study, and the slope and learning rate at which each of them is compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..configuration.columns import TOLERANCE
from ..surrogate.specifications import without_folder
from .settings import Settings

SETTING = ("dataset", "depth", "place")
ARM = ("surrogate", "anneal", "identity", "variant")
TUNED = ("slope", "lr")


def pick(config: dict, names: Iterable[str]) -> tuple:
    """Return the values of a configuration or a row by their names."""
    return tuple(config[name] for name in names)


def label(arm: Sequence) -> str:
    """Return the name of an arm, the values of `ARM`."""
    surrogate, anneal, identity, variant = arm
    moved = {"none": [], "width": ["width adapted"]}.get(anneal, [f"{anneal} annealed"])
    parts = [without_folder(surrogate), *moved, *([f"identity {identity:g}"] if identity else [])]
    return ", ".join([*parts, *([variant] if variant else [])])


def place_name(dataset: str, depth: int, place: str) -> str:
    """Return the name of a setting, the values of `SETTING`."""
    return ", ".join([dataset, f"depth {depth}", *([place] if place else [])])


def setting(settings: Settings, config: dict) -> tuple:
    """Return what configurations have in common whose arms are compared with each other."""
    return pick(config, SETTING if settings.select == "val" else (*SETTING, *TUNED))


def validated(settings: Settings, trials: Iterable[dict]) -> dict[tuple, dict[tuple, float]]:
    """Return {setting and arm: {(slope, lr): mean validation accuracy over the seeds that select}}.

    Without the places where one of these seeds is missing, because it failed or is not finished.
    """
    accuracies: dict[tuple, dict[tuple, list[float]]] = {}
    for trial in trials:
        config = trial["config"]
        if config["seed"] < settings.selecting_seeds:
            places = accuracies.setdefault(pick(config, (*SETTING, *ARM)), {})
            places.setdefault(pick(config, TUNED), []).append(trial["result"]["val_accuracy"])
    return {
        key: {place: float(np.mean(own)) for place, own in places.items() if len(own) == settings.selecting_seeds}
        for key, places in accuracies.items()
    }


def chosen(settings: Settings, trials: Iterable[dict]) -> dict[tuple, tuple]:
    """Return {setting and arm: (slope, lr)} of the best validation accuracy; ties go to the first."""
    return {
        key: max(places, key=lambda place: places[place])
        for key, places in validated(settings, trials).items()
        if places
    }


def at_chosen(settings: Settings, trials: Sequence[dict]) -> list[dict]:
    """Return the trials that are compared: all, or those at the slope and learning rate that validation chose.

    Where only some of the seeds select, these are left out, as the choice favours them.
    """
    if settings.select == "none":
        return [*trials]
    best = chosen(settings, trials)
    first = settings.selecting_seeds if settings.selecting_seeds < settings.seeds else 0

    def is_compared(config: dict) -> bool:
        is_chosen = best.get(pick(config, (*SETTING, *ARM))) == pick(config, TUNED)
        return is_chosen and config["seed"] >= first

    return [trial for trial in trials if is_compared(trial["config"])]


def plateau(settings: Settings, places: dict[tuple, float]) -> tuple[float, bool] | tuple[None, None]:
    """Return the factor between the ends of the learning rates around the best one that are nearly as good.

    Args:
        settings: of the study.
        places: mean validation accuracy by (slope, lr), of one setting and arm.

    Returns:
        The largest over the smallest of the study's learning rates, in a row, whose accuracy at the best place's slope
        is at most `TOLERANCE` below the best, and whether they include an end of the learning rates; None without
        places.
    """
    if not places:
        return None, None
    slope, best = max(places, key=lambda place: places[place])
    lrs = sorted(settings.lrs)
    near = [places.get((slope, lr), -np.inf) >= places[slope, best] - TOLERANCE for lr in lrs]
    first = last = lrs.index(best)
    while first > 0 and near[first - 1]:
        first -= 1
    while last < len(lrs) - 1 and near[last + 1]:
        last += 1
    return lrs[last] / lrs[first], first == 0 or last == len(lrs) - 1
