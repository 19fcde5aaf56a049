"""Figures in the colour of a page's text, each with a text alternative and its data."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _figures
from .._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

# Distinct to colour-blind readers too, and legible on white and on black (Okabe and Ito, without yellow and black).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
# A long name of an arm leaves little room for the axes, whose label may then be wider than the figure.
_WHOLE = {"bbox_inches": "tight"}


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

    @cached_property
    def _vectors(self) -> str:
        text = io.StringIO()
        with _style():
            self.drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None}, **_WHOLE)
        return text.getvalue()

    @property
    def svg(self) -> str:
        """The drawing for a page, in the colour of the page's text."""
        svg = self._vectors[self._vectors.index("<svg") :].replace("#000000", "currentColor")
        # The page sets the size; a fixed one would overflow a phone's screen.
        start, end = svg.split(">", 1)
        return re.sub(r' (?:width|height)="[^"]*"', "", start) + ">" + end

    def save(self, folder: Path) -> None:
        """Write the drawing as SVG and PDF, and the data as CSV, into a folder."""
        name = re.sub(r"\W+", "-", self.title.lower()).strip("-")
        with replacing(folder / f"{name}.svg") as temporary:
            temporary.write_text(self._vectors)
        with _style():
            _figures.save(self.drawing, folder / f"{name}.pdf", format="pdf", metadata={"CreationDate": None}, **_WHOLE)
        with replacing(folder / f"{name}.csv") as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.data[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.data)


def _style() -> AbstractContextManager:
    import matplotlib as mpl

    return mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "htaf-snn", "font.size": 9})


def drawn(draw: Callable[[Any], None], figsize: tuple[float, float], columns: int = 1, rows: int = 1) -> Drawing:
    """Return the figure of what `draw` puts on an array of axes (rows, columns)."""
    import matplotlib.figure

    # Not through pyplot, whose backend is the user's.
    with _style():
        drawing = matplotlib.figure.Figure(layout="constrained", figsize=figsize)
        draw(drawing.subplots(rows, columns, squeeze=False))
    return drawing
