"""The figures of docs/results.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from htaf_snn._files import replacing
from htaf_snn.compare.drawing import COLOURS
from htaf_snn.compare.selection import ARM, SETTING, TUNED, label, pick

_MARKERS = "osD^vPX"


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw each part of a claim's results into an SVG; return the files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, part in result["parts"].items():
        if "trials" not in part:  # of concept models, which have no layers
            continue
        path = folder / file_of(result, name)
        with mpl.rc_context({"svg.hashsalt": "htaf-snn", "font.size": 9}), replacing(path) as temporary:
            drawn = _figure(part) if part["suggested_slope"] is None else _widths(part)
            drawn.savefig(temporary, metadata={"Date": None}, facecolor="white")
        paths.append(path)
    return paths


def file_of(result: dict, part: str) -> str:
    """Return the name of a part's figure."""
    return "-".join(re.findall(r"[\w]+", f"{result['claim']} {part}")) + ".svg"


def _widths(part: dict) -> Any:
    """Draw validation accuracy over the slope, means and all seeds, and the suggested slope."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis, rows = figure.subplots(), sorted(part["table"], key=lambda row: row["slope"])
    axis.semilogx([row["slope"] for row in rows], [row["val_accuracy"] for row in rows], "o-", color=COLOURS[0])
    for trial in part["trials"]:
        axis.plot(trial["slope"], trial["val_accuracy"], ".", color=COLOURS[0], alpha=0.4)
    axis.axvline(part["suggested_slope"], color=COLOURS[1], linestyle="--", label="suggested")
    axis.set(xlabel="slope", ylabel="validation accuracy")
    axis.set_xticks([0.125, 0.25, 0.5, 1, 2], ["0.125", "0.25", "0.5", "1", "2"])
    axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


def _figure(part: dict) -> Any:
    """Draw by depth, above, validation accuracy over the learning rate at each arm's chosen slope, means and all seeds.

    Below, the norm of the gradient at the weights of each layer, relative to the last one's: means over the seeds at
    the chosen place, before the training (lines) and after it (dotted).
    """
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((row["dataset"], row["depth"]) for row in part["table"]))
    figure = Figure(figsize=(3.0 * len(places) + 0.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, len(places), squeeze=False, sharey="row")
    for axes, place in zip(zip(above, below, strict=True), places, strict=True):
        rows = [row for row in part["table"] if (row["dataset"], row["depth"]) == place]
        for i, row in enumerate(rows):
            style = {"color": COLOURS[i % 7], "marker": _MARKERS[i % 7]}
            _draw_rates(axes[0], _points(part["trials"], row), label(pick(row, ARM)), style)
            _draw_gradients(axes[1], part["trials"], row, style)
        axes[0].set(title=f"{place[1]} hidden layers", xlabel="learning rate")
        axes[0].set_xticks(part["settings"]["lrs"], [f"{lr:g}" for lr in part["settings"]["lrs"]])
        axes[0].set_xticks([], minor=True)
        axes[1].set(xlabel="layer")
        axes[1].xaxis.get_major_locator().set_params(integer=True)
        for axis in axes:
            axis.grid(alpha=0.3)
    above[0].set_ylabel("validation accuracy")
    below[0].set_ylabel("gradient norm / last layer's")
    figure.legend(*above[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_rates(axis: Any, points: dict[float, list[float]], name: str, style: dict) -> None:
    axis.semilogx(points.keys(), [np.mean(own) for own in points.values()], label=name, **style)
    for lr, own in points.items():
        axis.scatter([lr] * len(own), own, s=8, alpha=0.4, color=style["color"])


def _draw_gradients(axis: Any, trials: list[dict], row: dict, style: dict) -> None:
    names = (*SETTING, *ARM, *TUNED)
    own = [trial for trial in trials if pick(trial, names) == pick(row, names)]
    for field, line in (("gradient_layers", "-"), ("gradient_layers_end", ":")):
        norms = np.mean([np.divide(trial[field], trial[field][-1] or np.nan) for trial in own], axis=0)
        axis.semilogy(range(1, len(norms) + 1), norms, line, color=style["color"])


def _points(trials: list[dict], row: dict) -> dict[float, list[float]]:
    """Return the validation accuracies by learning rate of a row's arm at its slope."""
    names = ("dataset", "depth", *ARM, "slope")
    own = [trial for trial in trials if pick(trial, names) == pick(row, names)]
    lrs = sorted({trial["lr"] for trial in own})
    return {lr: [trial["val_accuracy"] for trial in own if trial["lr"] == lr] for lr in lrs}
