"""Figures of Matplotlib in files."""

from __future__ import annotations

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
    import matplotlib as mpl

    # Publishers refuse fonts of type 3, Matplotlib's default.
    with mpl.rc_context({"pdf.fonttype": 42}), replacing(path) as temporary:
        figure.savefig(temporary, **options)
