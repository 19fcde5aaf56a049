"""Figures in the colour of a page's text, each with a text alternative and its data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Distinct to colour-blind readers too, and legible on white and on black (Okabe and Ito, without yellow and black).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title: the heading.
        text: the message, in words and numbers.
        drawing: a figure of Matplotlib.
        data: what is drawn, a row per point.
    """

    title: str
    text: str
    drawing: Drawing
    data: list[dict]

    @property
    def svg(self) -> str:
        """The drawing for a page, in the colour of the page's text."""
        text = io.StringIO()
        with _style():
            self.drawing.savefig(text, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].replace("#000000", "currentColor")
        # The page sets the size; a fixed one would overflow a phone's screen.
        start, end = svg.split(">", 1)
        return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end

    def save(self, folder: Path) -> None:
        """Write the drawing as SVG and PDF, and the data as CSV, into a folder."""
        name = re.sub(r"\W+", "-", self.title.lower()).strip("-")
        with _style():
            for kind, date in (("svg", "Date"), ("pdf", "CreationDate")):
                with replacing(folder / f"{name}.{kind}") as temporary:
                    self.drawing.savefig(temporary, bbox_inches="tight", metadata={date: None})
        with replacing(folder / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.data[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.data)


def _style() -> AbstractContextManager:
    import matplotlib as mpl

    return mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "htaf-snn", "font.size": 9})


def drawn(draw: Callable[[Any], None], figsize: tuple[float, float], columns: int = 1) -> Drawing:
    """Return the figure of what `draw` puts on an array of axes (1, columns)."""
    import matplotlib.figure

    # Not through pyplot, whose backend is the user's.
    with _style():
        drawing = matplotlib.figure.Figure(layout="constrained", figsize=figsize)
        draw(drawing.subplots(1, columns, squeeze=False))
    return drawing
