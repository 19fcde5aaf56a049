"""What docstrings need to be read as reStructuredText, and links from the names in them and on all pages."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import public
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

ROOT = Path(__file__).parents[2]
_logger = logging.getLogger(__name__)
_SECTION = re.compile(r"\w[\w ]*:$")
_FILE = re.compile(r"(?:htaf_snn|neuromorphic_datasets|docs|tests|tutorials|benchmarks)/[\w./-]*")
_TOKEN = re.compile(r"(``.+?``|`[^`]+`|\$[^$]+\$)", re.DOTALL)


def as_rest(lines: list[str]) -> list[str]:
    """Return the lines of a docstring in which only code in backticks and formulas in dollars have a meaning."""
    made: list[str] = []
    for block in "\n".join(lines).split("\n\n"):
        before = next((line for line in reversed(made) if line.strip()), "")
        first = block.splitlines()[0] if block.strip() else ""
        if first.startswith(" ") and before and not before.startswith(" ") and not _SECTION.match(before):
            # A neuron's equations, one per line.
            made += ["::", "", *re.sub(r"(?<=\S) {8}(?=\S)", "\n    ", block).splitlines(), ""]
        elif ">>>" in block:
            made += [*block.splitlines(), ""]
        else:
            made += [*"".join(map(_token, _TOKEN.split(block))).splitlines(), ""]
    return made


def _token(text: str) -> str:
    """Return code and formulas as roles, and other text with its special characters escaped."""
    if text.startswith("$"):
        return f":math:`{' '.join(text[1:-1].split())}`"
    if text.startswith("`"):
        return f"``{' '.join(text.strip('`').split())}``"
    return re.sub(r"([|\\]|\*(?=\S)|(?<=\S)\*|(?<=\w)_(?=\W|$))", r"\\\1", text)


def _process(app: Any, what: str, name: str, value: object, options: Any, lines: list[str]) -> None:
    lines[:] = as_rest(lines)


def _sign(app: Any, what: str, name: str, value: Any, options: Any, signature: str | None, returns: str | None) -> Any:
    """Return the signature of a class that a decorator made, where Sphinx reads that of its `__new__`."""
    if what == "class" and signature == "(*args, **kwargs)":
        return stringify_signature(inspect.signature(value)), returns
    return None


class Links(SphinxTransform):
    """Turns public names in backticks into links to their entries, and checks that files so named exist."""

    default_priority = 5

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            if _FILE.fullmatch(node.astext()) and not (ROOT / node.astext()).exists():
                _logger.warning("no such file: %s", node.astext(), location=node)
            target = linked(node.astext().removesuffix("()"), self.env.docname.rpartition("/")[2])
            before = node.previous_sibling()
            # The class of that name in another library.
            is_theirs = isinstance(before, nodes.Text) and re.search(r"\w['’]s? $", before.astext())
            if target and not is_theirs and not isinstance(node.parent, (nodes.reference, addnodes.pending_xref)):
                given = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refexplicit": True}
                link = addnodes.pending_xref("", refdoc=self.env.docname, **given)
                node.replace_self(link)
                link += node


@cache
def _by_short_names() -> dict[str, set[str]]:
    by_name: dict[str, set[str]] = {}
    for name, home in public.homes().items():
        for count in (1, 2):
            by_name.setdefault(".".join(name.split(".")[-count:]), set()).add(home)
    return by_name


def linked(text: str, module: str) -> str | None:
    """Return the public name that code on a page means; a word in small letters means one only in its own module."""
    homes = public.homes()
    if f"{module}.{text}" in homes:
        return homes[f"{module}.{text}"]
    found = set() if text.islower() and "." not in text else _by_short_names().get(text, set())
    return homes.get(text) or (next(iter(found)) if len(found) == 1 else None)


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-signature", _sign)
    app.add_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
