"""What a study has found: a row of figures and tests for each arm and place, ranks, and areas over slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import surrogate
from ..configuration.columns import COLUMNS
from . import matching, selection, statistics
from .settings import Settings
from .trial import TWIN

KEY = (*selection.SETTING, *selection.ARM, *selection.TUNED)


TIMES = ("ms_per_batch", "peak_mb")
"""Columns that are not reproducible."""


def table(settings: Settings, trials: Sequence[dict]) -> list[dict]:
    """Return one row for each data set, arm, slope, depth and learning rate with finished trials.

    If the study selects, only those at the slope and learning rate that validation chose for the arm. Accuracies are
    tested against the first arm's of the same data set and depth and, unless selected, slope and learning rate, over
    the seeds that both have finished. Holm's correction covers all slopes and learning rates of a data set, depth and
    value of the axes. The trials are those of `Study.results`.

    Returns:
        Dictionaries with the keys of the table's columns; missing values are None.
    """
    cells = _cells(selection.at_chosen(settings, trials))
    if settings.select == "val":  # arms beside each other
        cells = dict(sorted(cells.items(), key=lambda cell: cell[0][: len(selection.SETTING)]))
    comparisons = _comparisons(settings, cells)
    validated, ranked = selection.validated(settings, trials), _ranks(settings, cells)
    rows = []
    for key, seeds in cells.items():
        row = _row(key, list(seeds.values()), comparisons.get(key)) | {"rank": ranked.get(key)}
        if _arm(key) == settings.arms()[0]:
            row["claim"] = "baseline"
        if settings.select == "val" and settings.budget == "full" and len(settings.lrs) > 1:
            own = selection.pick(row, (*selection.SETTING, *selection.ARM))
            row["plateau"], row["plateau_open"] = selection.plateau(settings, validated[own])
        rows.append(row)
    return rows


def grid(trials: Sequence[dict]) -> list[dict]:
    """Return the rows of `table` for every slope and learning rate, without comparisons."""
    return [_row(key, list(seeds.values()), None) for key, seeds in _cells(trials).items()]


def _cells(trials: Sequence[dict]) -> dict[tuple, dict[int, dict]]:
    """Return the results by seed of each row of the table."""
    cells: dict[tuple, dict[int, dict]] = {}
    for trial in trials:
        key = selection.pick(trial["config"], KEY)
        cells.setdefault(key, {})[trial["config"]["seed"]] = trial["result"]
    return cells


def _comparisons(settings: Settings, cells: dict[tuple, dict[int, dict]]) -> dict[tuple, statistics.Comparison]:
    """Return each cell's comparison with the first arm of its setting."""
    baseline = settings.arms()[0]
    families: dict[tuple, dict[tuple, tuple[list[float], list[float]]]] = {}
    for arms in _by_setting(settings, cells):
        base: dict[int, dict] = next((seeds for key, seeds in arms.items() if _arm(key) == baseline), {})
        for key, seeds in arms.items():
            shared = sorted(set(seeds) & set(base))
            if _arm(key) != baseline and shared:
                theirs, own = ([results[seed]["test_accuracy"] for seed in shared] for results in (base, seeds))
                place = selection.pick(dict(zip(KEY, key, strict=True)), selection.SETTING)
                families.setdefault(place, {})[key] = theirs, own
    compared = [statistics.compare_pairs(pairs) for pairs in families.values()]
    return {key: comparison for own in compared for key, comparison in own.items()}


def _ranks(settings: Settings, cells: dict[tuple, dict[int, dict]]) -> dict[tuple, float]:
    """Return each cell's mean rank among the arms of its setting, over the seeds that all have finished."""
    ranked: dict[tuple, float] = {}
    for arms in _by_setting(settings, cells):
        shared = sorted(set.intersection(*map(set, arms.values())))
        if shared and len(arms) > 1:
            scores = {key: [seeds[seed]["test_accuracy"] for seed in shared] for key, seeds in arms.items()}
            ranked |= statistics.mean_ranks(scores)
    return ranked


def _by_setting(settings: Settings, cells: dict[tuple, dict[int, dict]]) -> list[dict[tuple, dict[int, dict]]]:
    """Return the cells whose arms are compared with each other, together."""
    by_setting: dict[tuple, dict[tuple, dict[int, dict]]] = {}
    for key, seeds in cells.items():
        place = selection.setting(settings, dict(zip(KEY, key, strict=True)))
        by_setting.setdefault(place, {})[key] = seeds
    return [*by_setting.values()]


def _arm(key: tuple) -> tuple:
    return selection.pick(dict(zip(KEY, key, strict=True)), selection.ARM)


def _row(key: tuple, results: list[dict], comparison: statistics.Comparison | None) -> dict:
    summary = statistics.summarise([result["test_accuracy"] for result in results]).as_dict()
    first = results[0]

    def mean(name: str) -> float | None:
        values = [(result | result["times"]).get(name) for result in results]
        return None if None in values else float(np.mean(values))

    gradients = np.mean([result["gradient_layers"] for result in results], axis=0)
    row = dict(zip(KEY, key, strict=True))
    row |= {
        "seeds": summary["n"],
        "plateau": None,
        "plateau_open": None,
        "rank": None,
        **{name: summary[name] for name in summary if name in COLUMNS},
    }
    names = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
    names |= {name: name for name in ("p_holm", "effect", "claim")}
    compared = {"claim": "not compared"} if comparison is None else comparison.as_dict()
    row |= {column: compared.get(name) for name, column in names.items()} | {"chance": first.get("chance")}
    row |= {name: mean(name) for name in ("val_accuracy", "cosine_end", "acs", "energy_nj", "hardening_gap")}
    row |= {name: mean(name) for name in ("spike_rate", "dead", "saturated", *TIMES)}
    row["gradient_ratio"] = float(gradients[0] / gradients[-1]) if gradients[-1] > 0 else None
    row |= {"stretch": first["stretch"], "gain": first["gain"], "width": None, "at_zero": None, "fault": None}
    if row["surrogate"] != TWIN:
        spikes_at_zero = bool(surrogate.resolve(row["surrogate"])(torch.zeros(1)).detach() > 0.5)
        row |= {"at_zero": "yes" if spikes_at_zero else "no", "fault": surrogate.fault(row["surrogate"])}
        if row["anneal"] != "width":
            row["width"] = matching.width(row["surrogate"], row["stretch"])
    return {name: row[name] for name in COLUMNS}


def ranks(settings: Settings, trials: Sequence[dict]) -> tuple[dict[str, float], float | None]:
    """Return each arm's mean rank over the settings and seeds that all have finished, and whether ranks differ.

    The latter is the p-value of `statistics.ranks_differ`, of the accuracies' means over settings.
    """
    scores: dict[str, dict[tuple, float]] = {}
    at_one_slope = settings.select == "none" and len(settings.slopes) > 1
    for trial in selection.at_chosen(settings, trials):
        config = trial["config"]
        if config["surrogate"] == TWIN and at_one_slope:  # the others would be ranked at that slope alone
            continue
        place = (*selection.setting(settings, config), config["seed"])
        arm = selection.label(selection.pick(config, selection.ARM))
        scores.setdefault(arm, {})[place] = trial["result"]["test_accuracy"]
    shared = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if not shared or len(scores) < 2:
        return {}, None
    accuracies = {name: np.array([own[place] for place in shared]) for name, own in scores.items()}
    seeds = np.array([place[-1] for place in shared])
    by_seed = {name: [own[seeds == seed].mean() for seed in np.unique(seeds)] for name, own in accuracies.items()}
    return statistics.mean_ranks(accuracies), statistics.ranks_differ(by_seed)


def areas(settings: Settings, rows: Sequence[dict]) -> dict[str, float]:
    """Return each arm's mean accuracy over the logarithm of the slope; {} for one slope, or if trainings were ended."""
    slopes = settings.slopes
    by_arm = {}
    for arm in settings.arms() if len(slopes) > 1 and settings.budget == "full" else ():
        own = [row for row in rows if selection.pick(row, selection.ARM) == arm]
        means = [[row["mean"] for row in own if row["slope"] == slope] for slope in slopes]
        if all(means):
            values = [float(np.mean(of_slope)) for of_slope in means]
            by_arm[selection.label(arm)] = statistics.area_over_slopes(slopes, values)
    return by_arm
