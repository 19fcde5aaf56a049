"""Figures of Matplotlib in files."""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from typing import TYPE_CHECKING, Any

from ._files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: Figure, path: str | PathLike, **options: Any) -> None:
    """Write a figure under a temporary name, then rename it; the options are those of `savefig`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Figure(), Path(folder, "empty.pdf"))
        ...     Path(folder, "empty.pdf").read_bytes()[:4]
        b'%PDF'
    """
    with embedded_fonts(), replacing(path) as temporary:
        figure.savefig(temporary, **options)


def embedded_fonts() -> AbstractContextManager:
    """Return a context in which PDF files have fonts that publishers take, unlike Matplotlib's default, type 3."""
    import matplotlib as mpl

    return mpl.rc_context({"pdf.fonttype": 42})
