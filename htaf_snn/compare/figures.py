"""The figures of a study's report: SVG that takes the page's colour, each with a text for those who cannot see it."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["Figure", "all_figures"]

# Told apart by the colour-blind too, and legible on white and on black (Okabe and Ito, without yellow and black).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: what it shows.
        text: what it tells, in words and numbers.
        svg: the picture.
    """

    title: str
    text: str
    svg: str


def all_figures(settings: Settings, results: dict) -> list[Figure]:
    """Every figure for which there are data."""
    made = [accuracy(results["table"]), curves(results["trials"]), gradients(results["trials"])]
    if results["ranks"]:
        made.insert(1, ranks(results["ranks"]))
    if len(settings.slopes) > 1:
        made.append(slopes(settings, results["table"]))
    if len(settings.slopes) > 1 and len(settings.lrs) > 1:
        made.append(maps(settings, results["table"]))
    return made


def _svg(figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
    # The page gives the size; a fixed one would overflow a phone.
    start, end = svg.split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end


def _save(draw, rows: int = 1, columns: int = 1, **size) -> str:
    import matplotlib as mpl
    import matplotlib.figure

    # Not through pyplot, whose backend is the user's.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "htaf-snn", "font.size": 9}):
        figure = mpl.figure.Figure(layout="constrained", **size)
        draw(figure.subplots(rows, columns, squeeze=False))
        return _svg(figure)


def _label(row: dict, rows: list[dict]) -> str:
    """The surrogate, and of data set, slope, depth and learning rate what differs between rows."""
    varied = [name for name in ("dataset", "slope", "depth", "lr") if len({other[name] for other in rows}) > 1]
    settings = (row[name] if name == "dataset" else f"{name} {row[name]:g}" for name in varied)
    return ", ".join([row["surrogate"], *settings])


def accuracy(rows: list[dict]) -> Figure:
    """Mean test accuracies with their intervals."""

    def draw(axes) -> None:
        for place, row in enumerate(reversed(rows)):
            if row["t_low"] is not None:
                axes[0][0].plot([row["t_low"], row["t_high"]], [place, place], color=_COLOURS[0], lw=2)
            axes[0][0].plot(row["mean"], place, "o", color=_COLOURS[0])
        axes[0][0].set_yticks(range(len(rows)), [_label(row, rows) for row in reversed(rows)])
        axes[0][0].set_xlabel("test accuracy, mean and 95 % interval (t)")
        axes[0][0].margins(x=0.08, y=0.5 / len(rows))
        axes[0][0].grid(axis="x", alpha=0.3)

    told = "; ".join(f"{_label(row, rows)}: {row['mean']:.3f}" for row in rows)
    return Figure("Test accuracy", f"Means over seeds. {told}.", _save(draw, figsize=(7, 1 + 0.3 * len(rows))))


def ranks(found: dict[str, float]) -> Figure:
    """Mean ranks, best first."""
    order = sorted(found, key=found.get)

    def draw(axes) -> None:
        axes[0][0].barh([*reversed(order)], [found[name] for name in reversed(order)], color=_COLOURS[0])
        axes[0][0].set_xlabel("mean rank over seeds and settings, 1 is best")

    told = ", ".join(f"{name} {found[name]:.2f}" for name in order)
    return Figure("Ranks", f"Mean ranks, best first: {told}.", _save(draw, figsize=(7, 1 + 0.3 * len(order))))


def _by_surrogate(trials: list[dict]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for one in trials:
        found.setdefault(one["config"]["surrogate"], []).append(one["result"])
    return found


def curves(trials: list[dict]) -> Figure:
    """Validation accuracy and training loss over epochs, means of all of a surrogate's trials."""
    found = _by_surrogate(trials)

    def draw(axes) -> None:
        for i, (name, results) in enumerate(found.items()):
            for axis, field in zip(axes[0], ("val_accuracy", "train_loss"), strict=True):
                mean = np.mean([[line[field] for line in result["curves"]] for result in results], axis=0)
                axis.plot(range(1, len(mean) + 1), mean, ".-", color=_COLOURS[i % len(_COLOURS)], label=name)
        for axis in axes[0]:
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes[0][0].set(xlabel="epoch", ylabel="validation accuracy")
        axes[0][1].set(xlabel="epoch", ylabel="training loss")
        axes[0][1].legend(frameon=False)

    last = {name: np.mean([r["curves"][-1]["val_accuracy"] for r in results]) for name, results in found.items()}
    told = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
    return Figure(
        "Learning", f"Validation accuracy after the last epoch: {told}.", _save(draw, columns=2, figsize=(7, 3))
    )


def gradients(trials: list[dict]) -> Figure:
    """Norms of the gradient before training: at the first layer over time steps, or without time over the layers."""
    steps = {name: [result["gradient_steps"] for result in results] for name, results in _by_surrogate(trials).items()}
    in_time = any(len(layers[0]) > 1 for found in steps.values() for layers in found)
    deepest = max(len(layers) for found in steps.values() for layers in found)
    if in_time:
        chosen = {name: [layers[0] for layers in found] for name, found in steps.items()}
    else:
        chosen = {name: [np.ravel(one) for one in found if len(one) == deepest] for name, found in steps.items()}
    norms = {name: np.mean(found, axis=0) for name, found in chosen.items() if found}

    def draw(axes) -> None:
        for i, (name, values) in enumerate(norms.items()):
            axes[0][0].semilogy(range(1, len(values) + 1), values, ".-", color=_COLOURS[i % len(_COLOURS)], label=name)
        where = ("time step", "gradient norm at layer 1") if in_time else ("layer", "gradient norm")
        axes[0][0].set(xlabel=where[0], ylabel=where[1])
        axes[0][0].xaxis.get_major_locator().set_params(integer=True)
        axes[0][0].legend(frameon=False)

    told = ", ".join(f"{name} {values.mean():.3g}" for name, values in norms.items())
    over = "time steps at layer 1" if in_time else "layers"
    return Figure("Gradients before training", f"Mean norm over {over}: {told}.", _save(draw, figsize=(7, 3)))


def _means(settings: Settings, rows: list[dict], name: str) -> np.ndarray:
    """Mean accuracies, (slopes, lrs), over data sets and depths; NaN where none is finished."""
    found = np.full((len(settings.slopes), len(settings.lrs)), np.nan)
    for i, slope in enumerate(settings.slopes):
        for j, lr in enumerate(settings.lrs):
            chosen = [r["mean"] for r in rows if (r["surrogate"], r["slope"], r["lr"]) == (name, slope, lr)]
            found[i, j] = np.mean(chosen) if chosen else np.nan
    return found


def slopes(settings: Settings, rows: list[dict]) -> Figure:
    """Accuracy over the slope, at the best learning rate of each slope."""
    best = {name: np.nanmax(_means(settings, rows, name), axis=1, initial=0.0) for name in settings.surrogates}

    def draw(axes) -> None:
        for i, (name, values) in enumerate(best.items()):
            axes[0][0].semilogx(settings.slopes, values, "o-", color=_COLOURS[i % len(_COLOURS)], label=name)
        axes[0][0].set_xticks(settings.slopes, [f"{slope:g}" for slope in settings.slopes])
        axes[0][0].set_xticks([], minor=True)
        axes[0][0].set(xlabel="slope", ylabel="test accuracy, best learning rate")
        axes[0][0].legend(frameon=False)

    told = "; ".join(f"{name} from {values.min():.3f} to {values.max():.3f}" for name, values in best.items())
    return Figure("Robustness against the slope", f"Accuracies over slopes: {told}.", _save(draw, figsize=(7, 3)))


def maps(settings: Settings, rows: list[dict]) -> Figure:
    """A map of slope and learning rate for each surrogate."""
    found = {name: _means(settings, rows, name) for name in settings.surrogates}
    low, high = (function([function(values) for values in found.values()]) for function in (np.nanmin, np.nanmax))

    def draw(axes) -> None:
        for axis, (name, values) in zip(axes[0], found.items(), strict=True):
            image = axis.imshow(values, vmin=low, vmax=high, aspect="auto", cmap="viridis")
            axis.set_title(name)
            axis.set_xticks(range(len(settings.lrs)), [f"{lr:g}" for lr in settings.lrs])
            axis.set_yticks(range(len(settings.slopes)), [f"{slope:g}" for slope in settings.slopes])
            axis.set(xlabel="lr", ylabel="slope")
        axes[0][-1].figure.colorbar(image, ax=axes[0][-1], label="test accuracy")

    told = "; ".join(f"{name} at best {np.nanmax(values):.3f}" for name, values in found.items())
    size = (2.2 * len(found) + 1, 2.5)
    return Figure("Slope and learning rate", f"Accuracies: {told}.", _save(draw, columns=len(found), figsize=size))
