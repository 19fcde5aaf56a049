"""Parts of pages in reStructuredText."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence

from docstrings import as_rest


def heading(title: str, under: str = "=") -> str:
    return f"{title}\n{under * len(title)}\n"


def listing(text: str, language: str) -> str:
    return f".. code-block:: {language}\n\n{textwrap.indent(text.strip(chr(10)), '   ')}\n"


def toctree(pages: Iterable[str], *options: str) -> str:
    lines = [".. toctree::", "   :maxdepth: 1", *(f"   :{option}:" for option in options), ""]
    return "\n".join([*lines, *(f"   {page}" for page in pages)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose cells are one line each."""
    lines = [".. list-table::", "   :header-rows: 1" if any(head) else "   :header-rows: 0", ""]
    for row in [head, *rows]:
        lines += [f"   {'*' if not n else ' '} - {cell}" for n, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def entry(name: str, value: object) -> str:
    """Return the entry of a public class or function, from its docstring."""
    if inspect.isclass(value):
        bases = "   :show-inheritance:\n" if value.__bases__ != (object,) else ""
        return f".. autoclass:: {name}\n{bases}"
    return f".. autofunction:: {name}\n"


def summary(text: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    paragraph = inspect.cleandoc(text or "").partition("\n\n")[0]
    return " ".join(as_rest(paragraph.splitlines())).strip()
