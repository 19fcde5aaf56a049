"""The figures of docs/results.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from htaf_snn._files import replacing
from htaf_snn.compare.selection import ARM, label, pick

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_MARKERS = "osD^vPX"


def draw(result: dict, folder: Path) -> list[Path]:
    """Draw each part of a claim's results into an SVG; return the files."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, part in result["parts"].items():
        path = folder / f"{result['claim']}-{name}.svg".replace(" ", "-")
        with mpl.rc_context({"svg.hashsalt": "htaf-snn", "font.size": 9}), replacing(path) as temporary:
            _learning_rates(part).savefig(temporary, metadata={"Date": None}, facecolor="white")
        paths.append(path)
    return paths


def _learning_rates(part: dict) -> Any:
    """Draw validation accuracy over the learning rate, at each arm's chosen slope, by depth: means and all seeds."""
    from matplotlib.figure import Figure

    places = list(dict.fromkeys((row["dataset"], row["depth"]) for row in part["table"]))
    figure = Figure(figsize=(3.0 * len(places) + 0.6, 3.6), layout="constrained")
    axes = figure.subplots(1, len(places), squeeze=False, sharey=True)[0]
    for axis, place in zip(axes, places, strict=True):
        rows = [row for row in part["table"] if (row["dataset"], row["depth"]) == place]
        for i, row in enumerate(rows):
            points = _points(part["trials"], row)
            style = {"color": _COLOURS[i % 7], "marker": _MARKERS[i % 7]}
            axis.semilogx(
                points.keys(), [np.mean(own) for own in points.values()], label=label(pick(row, ARM)), **style
            )
            for lr, own in points.items():
                axis.scatter([lr] * len(own), own, s=8, alpha=0.4, color=style["color"])
        axis.set(title=f"{place[1]} hidden layers", xlabel="learning rate")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _points(trials: list[dict], row: dict) -> dict[float, list[float]]:
    """Return the validation accuracies by learning rate of a row's arm at its slope."""
    names = ("dataset", "depth", *ARM, "slope")
    own = [trial for trial in trials if pick(trial, names) == pick(row, names)]
    lrs = sorted({trial["lr"] for trial in own})
    return {lr: [trial["val_accuracy"] for trial in own if trial["lr"] == lr] for lr in lrs}
