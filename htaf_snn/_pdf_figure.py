"""A figure for users to save; apart from `_figures`, as its class needs Matplotlib."""

from typing import Any

from matplotlib.figure import Figure

from ._figures import embedded_fonts


class PdfFigure(Figure):
    """A figure of Matplotlib whose PDF files have fonts that publishers take, whatever the user's settings are."""

    def savefig(self, fname: Any, **options: Any) -> None:
        """Save the figure as `Figure.savefig` does."""
        with embedded_fonts():
            super().savefig(fname, **options)
