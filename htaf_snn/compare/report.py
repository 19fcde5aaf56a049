"""What a study found, as a table, as files and as one page of HTML that needs no network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import _files, _pages, integrations, training
from . import figures, statistics

if TYPE_CHECKING:
    from .study import Study

__all__ = ["table", "write"]

_KEY = ("dataset", "surrogate", "slope", "depth", "lr")
_COLUMNS = {
    "dataset": ("data", "the data set"),
    "surrogate": ("surrogate", "library and parameters as given; without a library, this package's"),
    "slope": ("slope", "factor of the surrogate's argument; a larger one makes it narrower"),
    "depth": ("depth", "number of hidden layers"),
    "lr": ("lr", "learning rate of Adam"),
    "seeds": ("seeds", "trials that are finished"),
    "mean": ("test accuracy", "mean over seeds, after the last epoch"),
    "t_low": ("95 % from", "lower end of Student's t interval of the mean; it may leave 0 to 1"),
    "t_high": ("to", "upper end of Student's t interval of the mean"),
    "bootstrap_low": ("bootstrap from", "lower end of the 95 % bootstrap interval of the mean"),
    "bootstrap_high": ("to", "upper end of the 95 % bootstrap interval of the mean"),
    "difference": ("difference", "mean accuracy minus the baseline's, seed by seed, in the same setting"),
    "p_holm": ("p (Holm)", "of the paired t-test over seeds, after Holm's correction within the setting"),
    "effect": ("effect d", "Cohen's d of the paired differences"),
    "claim": ("claim", "what may be said at 5 %"),
    "val_accuracy": ("val.", "validation accuracy after the last epoch"),
    "spike_rate": ("spike rate", "share of outputs above 0 over neurons and time steps, on the test part"),
    "dead": ("dead", "share of the neurons whose output is never above 0 on the test part"),
    "saturated": ("saturated", "share of the neurons whose output is above 0 in 95 % of the time steps or more"),
    "gradient_ratio": ("first / last gradient", "norm at the first layer over that at the last, before training"),
    "cosine_end": ("cosine", "of the gradient after training with that of the reference surrogate, on one batch"),
    "acs": ("ACs", "accumulations a sample, NeuroBench's effective operations"),
    "energy_nj": ("energy, nJ", "a sample's, at 0.9 pJ an AC and 4.6 pJ a MAC (45 nm, Horowitz 2014)"),
    "hardening_gap": ("hardening gap", "accuracy with smooth steps minus that with hard ones"),
    "stretch": ("stretch", "factor of the argument that matched the surrogate to the reference"),
    "gain": ("gain", "factor of the gradient that matched the surrogate to the reference"),
    "at_zero": ("spike at 0", "whether a potential of exactly 0 spikes"),
    "ms_per_step": ("ms a step", "time of a training step in the quickest epoch, its validation included"),
    "peak_mb": ("peak MB", "largest memory: tensors' on the GPU, or of the worker's process so far"),
    "fault": ("known fault", "of the library's surrogate"),
}
"""The table's columns: their headings, and what they mean."""
TIMES = ("ms_per_step", "peak_mb")
"""Columns that differ from run to run."""


def table(study: Study) -> list[dict]:
    """One row for each data set, surrogate, slope, depth and learning rate with finished trials.

    Accuracies are tested against the first surrogate's of the same data set, slope, depth and learning rate, over the
    seeds that both have finished, with Holm's correction within that setting.

    Returns:
        Dictionaries with the keys of the table's columns; what does not exist is None.
    """
    cells: dict[tuple, dict[int, dict]] = {}
    for one in study.results():
        config = one["config"]
        key = tuple(config[name] for name in _KEY)
        cells.setdefault(key, {})[config["seed"]] = one["result"]
    comparisons = _comparisons(study.settings.surrogates[0], cells)
    return [_row(key, list(seeds.values()), comparisons.get(key)) for key, seeds in cells.items()]


def _comparisons(baseline: str, cells: dict[tuple, dict[int, dict]]) -> dict[tuple, statistics.Comparison]:
    found = {}
    for setting in dict.fromkeys(_setting(key) for key in cells):
        base, pairs = cells.get((setting[0], baseline, *setting[1:]), {}), {}
        for key, seeds in cells.items():
            shared = sorted(set(seeds) & set(base))
            if _setting(key) == setting and key[1] != baseline and shared:
                pairs[key] = tuple([own[seed]["test_accuracy"] for seed in shared] for own in (base, seeds))
        found |= statistics.compare_pairs(pairs)
    return found


def _setting(key: tuple) -> tuple:
    """All of a cell's key but the surrogate."""
    return (key[0], *key[2:])


def _row(key: tuple, results: list[dict], comparison: statistics.Comparison | None) -> dict:
    summary = statistics.summarise([result["test_accuracy"] for result in results]).as_dict()
    first = results[0]

    def mean(name: str, of=lambda result: result) -> float | None:
        values = [of(result).get(name) for result in results]
        return None if None in values else float(np.mean(values))

    gradients = np.mean([result["gradient_layers"] for result in results], axis=0)
    row = dict(zip(_KEY, key, strict=True))
    row |= {"seeds": summary["n"], **{name: summary[name] for name in summary if name in _COLUMNS}}
    row |= {name: None for name in ("difference", "p_holm", "effect")} | {"claim": "baseline"}
    if comparison is not None:
        row |= {name: value for name, value in comparison.as_dict().items() if name in _COLUMNS}
    row |= {name: mean(name) for name in ("val_accuracy", "cosine_end", "acs", "energy_nj", "hardening_gap")}
    row |= {name: mean(name) for name in ("spike_rate", "dead", "saturated")}
    row["gradient_ratio"] = float(gradients[0] / gradients[-1]) if gradients[-1] > 0 else None
    row |= {"stretch": first["stretch"], "gain": first["gain"], "at_zero": _at_zero(row["surrogate"])}
    row |= {name: mean(name, lambda result: result["times"]) for name in TIMES}
    row["fault"] = integrations.fault(row["surrogate"])
    return {name: row[name] for name in _COLUMNS}


def _at_zero(spec: str) -> str:
    return "yes" if float(integrations.parse(spec)(torch.zeros(1)).detach()) > 0.5 else "no"


def write(study: Study) -> Path:
    """Write the report's files into the study's folder; see `Study.report`."""
    rows = table(study)
    if not rows:
        failures = study.failures()
        reason = f"; all {len(failures)} have failed, the first: {failures[0]['error']}" if failures else ""
        raise ValueError(f"{study.out}: expected a finished trial, got none{reason}")
    results = {
        "settings": asdict(study.settings),
        "table": rows,
        "ranks": ranks(study),
        "areas": areas(study, rows),
        "failures": study.failures(),
        "trials": study.results(),
    }
    files = {
        "table.csv": as_csv(rows),
        "table.md": as_markdown(rows),
        "table.tex": as_latex(rows),
        "results.json": json.dumps(results, indent=1),
        "report.html": as_html(study, results),
    }
    for name, text in files.items():
        with _files.replacing(study.out / name) as temporary:
            temporary.write_text(text)
    return study.out / "report.html"


def ranks(study: Study) -> dict[str, float]:
    """Mean rank of each surrogate, over the data sets, settings and seeds that all of them finished."""
    scores: dict[str, dict[tuple, float]] = {}
    for one in study.results():
        config = one["config"]
        place = (*_setting(tuple(config[name] for name in _KEY)), config["seed"])
        scores.setdefault(config["surrogate"], {})[place] = one["result"]["test_accuracy"]
    shared = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if not shared or len(scores) < 2:
        return {}
    return statistics.mean_ranks({name: [found[place] for place in shared] for name, found in scores.items()})


def areas(study: Study, rows: list[dict]) -> dict[str, float]:
    """Each surrogate's mean accuracy over the logarithm of the slope, of all else; {} for one slope."""
    slopes = study.settings.slopes
    found = {}
    for name in study.settings.surrogates if len(slopes) > 1 else ():
        means = [[row["mean"] for row in rows if (row["surrogate"], row["slope"]) == (name, slope)] for slope in slopes]
        if all(means):
            found[name] = statistics.area_over_slopes(slopes, [float(np.mean(values)) for values in means])
    return found


def _shown(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def as_csv(rows: Sequence[dict]) -> str:
    """Comma-separated values, the numbers in full."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """The columns that say something, and the cells as shown."""
    kept = [name for name in _COLUMNS if any(row[name] is not None for row in rows)]
    return kept, [[_shown(row[name]) for name in kept] for row in rows]


def as_markdown(rows: Sequence[dict]) -> str:
    """A Markdown table."""
    kept, cells = _lines(rows)
    lines = [[_COLUMNS[name][0] for name in kept], ["---"] * len(kept), *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(rows: Sequence[dict]) -> str:
    """A LaTeX table of the main columns, for the package booktabs."""
    main = (*_KEY, "seeds", "mean", "t_low", "t_high", "difference", "p_holm", "claim")
    escapes = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}

    def escaped(text: str) -> str:
        return "".join(escapes.get(sign, sign) for sign in text)

    lines = [" & ".join(escaped(_COLUMNS[name][0]) for name in main), r"\midrule"]
    lines += [" & ".join(escaped(_shown(row[name])) for name in main) for row in rows]
    body = "\n".join(line if line.startswith("\\m") else line + r" \\" for line in lines)
    return f"\\begin{{tabular}}{{l{'r' * (len(main) - 2)}l}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def as_html(study: Study, results: dict) -> str:
    """The page."""
    rows = results["table"]
    kept, cells = _lines(rows)
    counts = study.counts()
    return _pages.render(
        "htaf_snn.compare",
        "report.html.jinja",
        settings=study.settings,
        counts=counts,
        too_few=study.settings.seeds < statistics.FEWEST_SEEDS,
        fewest=statistics.FEWEST_SEEDS,
        headings=[_COLUMNS[name] for name in kept],
        cells=cells,
        findings=_findings(rows, study.settings.surrogates[0]),
        figures=figures.all_figures(study.settings, results),
        areas=results["areas"],
        failures=results["failures"],
        command=command(study),
        versions=results["trials"][0]["versions"],
        data_hashes={name: data_hash(study, name) for name in study.settings.dataset},
    )


def _findings(rows: Sequence[dict], baseline: str) -> list[str]:
    """What can be said, one sentence each."""
    told = []
    for row in rows:
        if row["claim"] in ("better", "worse"):
            where = f"{row['dataset']}, slope {row['slope']:g}, depth {row['depth']}, lr {row['lr']:g}"
            told.append(
                f"{row['surrogate']} is {row['claim']} than {baseline} by {abs(row['difference']):.3f} "
                f"({where}, p = {row['p_holm']:.3g} after Holm's correction)."
            )
    return told


def command(study: Study) -> str:
    """The command that makes the study again."""
    parts = ["htaf-snn", "compare", "--out", "DIR"]
    for name, value in asdict(study.settings).items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            shown = ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)
            parts += [f"--{name.replace('_', '-')}", shown]
    return shlex.join(parts)


def data_hash(study: Study, dataset: str) -> str:
    """Digits that tell a data set apart: from its files' names, sizes and times, or from its images."""
    import neuromorphic_datasets as nd

    root = study.settings.root_of(dataset)
    try:
        if study.settings.model in training.SPIKING:
            recordings = nd.load(dataset, "all", root=root)
            content = [f"{recordings.fingerprint} {len(recordings)}".encode()]
        else:
            content = [part.images.numpy().tobytes() for part in nd.images.load(dataset, root=root)]
    except (OSError, ValueError) as error:
        return f"not here ({error.__class__.__name__})"
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]
