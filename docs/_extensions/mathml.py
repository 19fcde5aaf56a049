"""Formulas as MathML, written when the site is built: they need neither a network nor JavaScript."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_logger = logging.getLogger(__name__)


def converted(tex: str, as_block: bool = False) -> str:
    """Return a formula as MathML."""
    # docutils reads \tfrac12 as twelve over what follows, and knows no sizes of parentheses.
    tex = re.sub(r"(\\[dt]?frac)(\d)(\d)", r"\1{\2}{\3}", tex)
    tex = re.sub(r"(\\[dt]?frac)(\d)", r"\1{\2}", tex)
    tex = re.sub(r"\\[bB]igg?[lr]?(?![A-Za-z])", "", tex)
    # Nor does it space functions, as in \beta \tanh x.
    tex = re.sub(r"(?<=[\w}]) ?(?=\\(arctan|tanh|cosh|exp|log|max|min)\b)", r"\\,", tex)
    return tex2mathml(tex, as_block=as_block)


def _visit(writer: Any, node: nodes.Element) -> None:
    try:
        writer.body.append(converted(node.astext(), isinstance(node, nodes.math_block)))
    except MathError as error:
        _logger.warning("formula %r: %s", node.astext(), error, location=node)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (_visit, None), (_visit, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
