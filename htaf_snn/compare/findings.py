"""What a study has found: a row of figures and tests for each arm and place, ranks, and areas over slopes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .. import surrogate
from . import selection, statistics
from .settings import Settings
from .trial import TWIN

KEY = (*selection.SETTING, *selection.ARM, *selection.TUNED)


class Column(NamedTuple):
    """A column of the table: its heading, its meaning and, unless it is always shown, the group it belongs to."""

    heading: str
    meaning: str
    group: str = ""


COLUMNS = {
    "dataset": Column("data", "the data set"),
    "depth": Column("depth", "number of hidden layers"),
    "place": Column("at", "values of the axes"),
    "surrogate": Column("surrogate", "library and parameters as given; without a library, this package's"),
    "anneal": Column("annealed", "what is moved in the training: the hardness from 0 to 1, alpha, the width, or none"),
    "identity": Column("identity", "multiple of the identity in the weights at the start"),
    "variant": Column("variant", "values of the axes, which are compared"),
    "slope": Column("slope", "factor of the surrogate's argument; a larger one makes it narrower"),
    "lr": Column("lr", "learning rate"),
    "seeds": Column("seeds", "finished trials"),
    "mean": Column("test accuracy", "mean over seeds, of the network that is kept: by default that of the last epoch"),
    "std": Column("±", "standard deviation over seeds"),
    "rank": Column("rank", "mean rank in the setting over the seeds that all of its arms have finished, 1 is best"),
    "difference": Column("difference", "mean accuracy minus the baseline's in the same setting, paired by seed"),
    "p_holm": Column(
        "p (Holm)",
        "of the paired t-test over seeds, after Holm's correction over all comparisons at one data set, depth and "
        "value of the axes",
    ),
    "claim": Column("claim", "conclusion at the 5 % level"),
    "chance": Column("chance", "accuracy of guessing, one over the number of classes", "intervals"),
    "low": Column(
        "95 % from", "lower end of the interval of the mean by Student's t on the scale of the log-odds", "intervals"
    ),
    "high": Column("to", "upper end of that interval", "intervals"),
    "bootstrap_low": Column("bootstrap from", "lower end of the 95 % bootstrap interval of the mean", "intervals"),
    "bootstrap_high": Column("to", "upper end of the 95 % bootstrap interval of the mean", "intervals"),
    "difference_low": Column("95 % from", "lower end of Student's t interval of the difference", "intervals"),
    "difference_high": Column("to", "upper end of Student's t interval of the difference", "intervals"),
    "effect": Column("effect d", "Cohen's d of the paired differences", "intervals"),
    "plateau": Column(
        "plateau",
        f"largest over smallest learning rate, in a row, with validation accuracy {selection.TOLERANCE:g} below best "
        "or better",
        "selection",
    ),
    "plateau_open": Column(
        "open", "whether the plateau reaches the end of the learning rates tried, and may go on", "selection"
    ),
    "val_accuracy": Column("val.", "validation accuracy of that network", "selection"),
    "spike_rate": Column(
        "spike rate", "fraction of outputs above 0 over neurons and time steps, on the test part", "activity"
    ),
    "dead": Column("dead", "fraction of neurons whose output is never above 0 on the test part", "activity"),
    "saturated": Column(
        "saturated", "fraction of neurons whose output is above 0 in at least 95 % of the time steps", "activity"
    ),
    "hardening_gap": Column(
        "hardening gap", "accuracy at the surrogate's hardness minus that of the hard network", "activity"
    ),
    "gradient_ratio": Column(
        "first / last gradient",
        "ratio of the norms of the cross-entropy's gradient at the first and the last layer, before training",
        "gradients",
    ),
    "cosine_end": Column(
        "cosine",
        "between the cross-entropy's gradients after training of this and the reference surrogate, on one batch",
        "gradients",
    ),
    "acs": Column("ACs", "accumulations per sample, NeuroBench's effective operations", "cost"),
    "energy_nj": Column("energy, nJ", "per sample, at 0.9 pJ per AC and 4.6 pJ per MAC (45 nm, Horowitz 2014)", "cost"),
    "ms_per_batch": Column("ms per batch", "time per batch of the fastest epoch, validation included", "cost"),
    "peak_mb": Column("peak MB", "peak memory: of tensors on the GPU, or of the worker's process so far", "cost"),
    "stretch": Column("stretch", "factor of the argument that matched the surrogate to the reference", "matching"),
    "gain": Column("gain", "factor of the gradient that matched the surrogate to the reference", "matching"),
    "at_zero": Column("spike at 0", "whether a potential of exactly 0 spikes", "matching"),
    "fault": Column("known fault", "a fault of the library's surrogate", "matching"),
}
"""The columns of the table."""
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
    row |= {"stretch": first["stretch"], "gain": first["gain"], "at_zero": None, "fault": None}
    if row["surrogate"] != TWIN:
        spikes_at_zero = bool(surrogate.resolve(row["surrogate"])(torch.zeros(1)).detach() > 0.5)
        row |= {"at_zero": "yes" if spikes_at_zero else "no", "fault": surrogate.fault(row["surrogate"])}
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
