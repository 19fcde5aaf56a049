"""Heat maps of a study: accuracy, and how much of the gradient survives, over each two numbers that vary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ..configuration import is_number
from .drawing import Figure, drawn
from .selection import ARM, label, pick
from .settings import Settings
from .trial import TWIN

_NAMES = {"slope": "slope", "lr": "learning rate", "depth": "depth"}


def all_maps(settings: Settings, rows: Sequence[dict]) -> list[Figure]:
    """Draw the maps of every two of slope, learning rate, depth and the axes that have numbers, if they vary.

    Args:
        settings: of the study.
        rows: of `findings.grid`.
    """
    rows = [row for row in rows if row["surrogate"] != TWIN]
    return [_map(settings, rows, pair) for pair in combinations(varied(settings), 2)] if rows else []


def varied(settings: Settings) -> dict[str, tuple]:
    """Return the numbers of which a study has several values."""
    points: dict[str, tuple] = {"slope": settings.slopes, "lr": settings.lrs, "depth": settings.depths}
    points |= {name: values for name, values in settings.axis.items() if all(map(is_number, values))}
    return {name: tuple(sorted(values)) for name, values in points.items() if len(values) > 1}


def means(settings: Settings, rows: Sequence[dict], pair: Sequence[str], value: Callable) -> np.ndarray:
    """Return the mean of a value of rows over numbers that vary; NaN where there is no row."""
    points = varied(settings)
    values = np.full([len(points[name]) for name in pair], np.nan)
    own = [(settings.numbers_of(row), value(row)) for row in rows]
    for place in np.ndindex(*values.shape):
        wanted = {name: points[name][i] for name, i in zip(pair, place, strict=True)}
        cells = [number for at, number in own if number is not None and wanted.items() <= at.items()]
        values[place] = np.mean(cells) if cells else np.nan
    return values


def judged(settings: Settings) -> tuple[str, str]:
    """Return the column by which slopes and learning rates are judged, and its name: no test data select."""
    return ("val_accuracy", "validation accuracy") if settings.select == "val" else ("mean", "test accuracy")


def _survival(row: Mapping[str, Any]) -> float | None:
    return None if not row["gradient_ratio"] else float(np.log10(row["gradient_ratio"]))


def _panels(settings: Settings, rows: Sequence[dict]) -> dict[str, list[dict]]:
    """Return the rows of each arm, apart for the values of axes that are no numbers."""
    panels: dict[str, list[dict]] = {}
    others = settings.axis.keys() - varied(settings)
    for row in rows:
        words = (f"{name}={value}" for name, value in settings.numbers_of(row).items() if name in others)
        panels.setdefault(label((*pick(row, ARM[:-1]), ", ".join(words))), []).append(row)
    return panels


def _map(settings: Settings, rows: Sequence[dict], pair: tuple[str, str]) -> Figure:
    column, quantity = judged(settings)
    panels = _panels(settings, rows)
    maps = {
        quantity: [means(settings, own, pair, lambda row: row[column]) for own in panels.values()],
        "log10 of first / last gradient": [means(settings, own, pair, _survival) for own in panels.values()],
    }

    def draw(axes) -> None:
        for line, (name, values) in zip(axes, maps.items(), strict=True):
            _draw(line, settings, pair, name, values, "viridis" if name == quantity else "RdBu")
        for axis, name in zip(axes[0], panels, strict=True):
            axis.set_title(name, fontsize=9)

    best = "; ".join(f"{name} {np.nanmax(own):.3f}" for name, own in zip(panels, maps[quantity], strict=True))
    names, points = [_NAMES.get(name, name) for name in pair], varied(settings)
    text = f"Means over all else that varies. Highest {quantity}: {best}. Below, 0 is as large at first as at last."
    data = [
        {"arm": panel, pair[0]: points[pair[0]][i], pair[1]: points[pair[1]][j]}
        | {name: own[k][i, j] for name, own in maps.items()}
        for k, panel in enumerate(panels)
        for i, j in np.ndindex(*maps[quantity][k].shape)
    ]
    drawing = drawn(draw, (2.2 * len(panels) + 1.2, 4.6), columns=len(panels), rows=2)
    return Figure(f"{names[0]} and {names[1]}".capitalize(), text, drawing, data)


def _draw(line, settings: Settings, pair: Sequence[str], name: str, values: Sequence[np.ndarray], colours: str) -> None:
    """Draw one quantity's map for each arm, in the same colours."""
    finite = np.concatenate([own[np.isfinite(own)] for own in values])
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    if colours == "RdBu":  # white is 0
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    for axis, own in zip(line, values, strict=True):
        image = axis.imshow(own, vmin=low, vmax=high, aspect="auto", cmap=colours)
        for side, of in (("y", pair[0]), ("x", pair[1])):
            shown = [f"{value:g}" for value in varied(settings)[of]]
            axis.set(
                **{f"{side}ticks": range(len(shown)), f"{side}ticklabels": shown, f"{side}label": _NAMES.get(of, of)}
            )
    line[-1].figure.colorbar(image, ax=line[-1], label=name)
