"""What a study has found: a row of figures and tests for each arm and place, ranks, and areas over slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import surrogate
from . import selection, statistics
from .settings import Settings
from .trial import TWIN

KEY = (*selection.SETTING, *selection.ARM, *selection.TUNED)
COLUMNS = {
    "dataset": ("data", "the data set"),
    "depth": ("depth", "number of hidden layers"),
    "surrogate": ("surrogate", "library and parameters as given; without a library, this package's"),
    "anneal": ("annealed", "what is moved during the training: the hardness from 0 to 1, alpha, or none"),
    "identity": ("identity", "multiple of the identity in the weights at the start"),
    "slope": ("slope", "factor of the surrogate's argument; a larger one makes it narrower"),
    "lr": ("lr", "learning rate"),
    "seeds": ("seeds", "finished trials"),
    "mean": ("test accuracy", "mean over seeds, of the network that is kept: by default that of the last epoch"),
    "low": ("95 % from", "lower end of the interval of the mean by Student's t on the scale of the log-odds"),
    "high": ("to", "upper end of that interval"),
    "bootstrap_low": ("bootstrap from", "lower end of the 95 % bootstrap interval of the mean"),
    "bootstrap_high": ("to", "upper end of the 95 % bootstrap interval of the mean"),
    "plateau": (
        "plateau",
        f"largest over smallest learning rate, in a row, with validation accuracy {selection.TOLERANCE:g} below best "
        "or better",
    ),
    "plateau_open": ("open", "whether the plateau reaches the end of the learning rates tried, and may go on"),
    "difference": ("difference", "mean accuracy minus the baseline's in the same setting, paired by seed"),
    "difference_low": ("95 % from", "lower end of Student's t interval of the difference"),
    "difference_high": ("to", "upper end of Student's t interval of the difference"),
    "p_holm": ("p (Holm)", "of the paired t-test over seeds, after Holm's correction within the setting"),
    "effect": ("effect d", "Cohen's d of the paired differences"),
    "claim": ("claim", "conclusion at the 5 % level"),
    "val_accuracy": ("val.", "validation accuracy of that network"),
    "spike_rate": ("spike rate", "fraction of outputs above 0 over neurons and time steps, on the test part"),
    "dead": ("dead", "fraction of neurons whose output is never above 0 on the test part"),
    "saturated": ("saturated", "fraction of neurons whose output is above 0 in at least 95 % of the time steps"),
    "gradient_ratio": (
        "first / last gradient",
        "ratio of the norms of the cross-entropy's gradient at the first and the last layer, before training",
    ),
    "cosine_end": (
        "cosine",
        "between the cross-entropy's gradients after training of this and the reference surrogate, on one batch",
    ),
    "acs": ("ACs", "accumulations per sample, NeuroBench's effective operations"),
    "energy_nj": ("energy, nJ", "per sample, at 0.9 pJ per AC and 4.6 pJ per MAC (45 nm, Horowitz 2014)"),
    "hardening_gap": ("hardening gap", "accuracy at the surrogate's hardness minus that of the hard network"),
    "stretch": ("stretch", "factor of the argument that matched the surrogate to the reference"),
    "gain": ("gain", "factor of the gradient that matched the surrogate to the reference"),
    "at_zero": ("spike at 0", "whether a potential of exactly 0 spikes"),
    "ms_per_batch": ("ms per batch", "time per batch of the fastest epoch, validation included"),
    "peak_mb": ("peak MB", "peak memory: of tensors on the GPU, or of the worker's process so far"),
    "fault": ("known fault", "a fault of the library's surrogate"),
}
"""Heading and meaning of each column of the table."""
TIMES = ("ms_per_batch", "peak_mb")
"""Columns that are not reproducible."""


def table(settings: Settings, trials: Sequence[dict]) -> list[dict]:
    """Return one row for each data set, arm, slope, depth and learning rate with finished trials.

    If the study selects, only those at the slope and learning rate that validation chose for the arm. Accuracies are
    tested against the first arm's of the same data set and depth and, unless selected, slope and learning rate, over
    the seeds that both have finished, with Holm's correction within that setting. The trials are those of
    `Study.results`.

    Returns:
        Dictionaries with the keys of the table's columns; missing values are None.
    """
    cells = _cells(selection.at_chosen(settings, trials))
    if settings.select == "val":  # arms beside each other
        cells = dict(sorted(cells.items(), key=lambda cell: cell[0][:2]))
    comparisons = _comparisons(settings, cells)
    validated = selection.validated(settings, trials)
    rows = []
    for key, seeds in cells.items():
        row = _row(key, list(seeds.values()), comparisons.get(key))
        if _arm(key) == settings.arms()[0]:
            row["claim"] = "baseline"
        if settings.select == "val" and len(settings.lrs) > 1:
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
    by_setting: dict[tuple, dict[tuple, dict[int, dict]]] = {}
    for key, seeds in cells.items():
        place = selection.setting(settings, dict(zip(KEY, key, strict=True)))
        by_setting.setdefault(place, {})[key] = seeds
    comparisons: dict[tuple, statistics.Comparison] = {}
    for arms in by_setting.values():
        base: dict[int, dict] = next((seeds for key, seeds in arms.items() if _arm(key) == baseline), {})
        pairs: dict[tuple, tuple[list[float], list[float]]] = {}
        for key, seeds in arms.items():
            shared = sorted(set(seeds) & set(base))
            if _arm(key) != baseline and shared:
                theirs, own = ([results[seed]["test_accuracy"] for seed in shared] for results in (base, seeds))
                pairs[key] = theirs, own
        comparisons |= statistics.compare_pairs(pairs)
    return comparisons


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
        **{name: summary[name] for name in summary if name in COLUMNS},
    }
    names = {"difference": "difference", "low": "difference_low", "high": "difference_high"}
    names |= {name: name for name in ("p_holm", "effect", "claim")}
    compared = {"claim": "not compared"} if comparison is None else comparison.as_dict()
    row |= {column: compared.get(name) for name, column in names.items()}
    row |= {name: mean(name) for name in ("val_accuracy", "cosine_end", "acs", "energy_nj", "hardening_gap")}
    row |= {name: mean(name) for name in ("spike_rate", "dead", "saturated", *TIMES)}
    row["gradient_ratio"] = float(gradients[0] / gradients[-1]) if gradients[-1] > 0 else None
    row |= {"stretch": first["stretch"], "gain": first["gain"], "at_zero": None, "fault": None}
    if row["surrogate"] != TWIN:
        spikes_at_zero = bool(surrogate.resolve(row["surrogate"])(torch.zeros(1)).detach() > 0.5)
        row |= {"at_zero": "yes" if spikes_at_zero else "no", "fault": surrogate.fault(row["surrogate"])}
    return {name: row[name] for name in COLUMNS}


def ranks(settings: Settings, trials: Sequence[dict]) -> dict[str, float]:
    """Return the mean rank of each arm, over the settings and seeds that all of them finished."""
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
        return {}
    return statistics.mean_ranks({name: [own[place] for place in shared] for name, own in scores.items()})


def areas(settings: Settings, rows: Sequence[dict]) -> dict[str, float]:
    """Return each arm's mean accuracy over the logarithm of the slope; {} for a single slope."""
    slopes = settings.slopes
    by_arm = {}
    for arm in settings.arms() if len(slopes) > 1 else ():
        own = [row for row in rows if selection.pick(row, selection.ARM) == arm]
        means = [[row["mean"] for row in own if row["slope"] == slope] for slope in slopes]
        if all(means):
            values = [float(np.mean(of_slope)) for of_slope in means]
            by_arm[selection.label(arm)] = statistics.area_over_slopes(slopes, values)
    return by_arm
