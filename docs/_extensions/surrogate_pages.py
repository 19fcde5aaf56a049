"""A page for each surrogate: formula, plot, parameters, code, and the same in other libraries."""

from __future__ import annotations

import inspect
import io
import math
import re

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from rest import entry, heading, listing, summary, table, toctree

from htaf_snn.surrogate import Surrogate, libraries, names
from htaf_snn.surrogate.specifications import named

_INK = "#010203"  # becomes the text's colour, light or dark


def surrogates() -> dict[str, type[Surrogate]]:
    """Return the classes by the names of their formulas."""
    own = (cls for cls in Surrogate.__subclasses__() if cls.formula and cls.__module__.startswith("htaf_snn."))
    return {cls.formula.name: cls for cls in sorted(own, key=lambda cls: cls.__name__.lower())}


def plot(cls: type[Surrogate]) -> str:
    """Return an SVG of the Heaviside step, the smooth step and its derivative, as the class computes them."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    smooth = cls(hardness=0.0)
    inputs = x.clone().requires_grad_()
    outputs = smooth(inputs)
    outputs.sum().backward()
    settings = {"svg.fonttype": "none", "svg.hashsalt": cls.__name__, "text.color": _INK, "axes.edgecolor": _INK}
    settings |= {f"{axis}tick.color": _INK for axis in "xy"} | {"axes.labelcolor": _INK, "font.family": "sans-serif"}
    with rc_context(settings):
        figure = Figure((7.2, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(x, (x > 0).double(), color=_INK, linewidth=0.8, linestyle="--", label="hardness 1")
        left.plot(x, outputs.detach(), color="#2b8cbe", label="hardness 0")
        right.plot(x, inputs.grad, color="#e6550d")
        left.set_title("forward", loc="left", fontsize="medium")
        right.set_title("backward, at any hardness", loc="left", fontsize="medium")
        left.legend(frameon=False, fontsize="small")
        right.set_ylim(bottom=min(0.0, 1.05 * inputs.grad.min().item()))
        for axes in (left, right):
            axes.set_xlabel("x")
            axes.spines[["top", "right"]].set_visible(False)
        return _svg(figure, f"Forward and backward pass of {cls.__name__} with its defaults")


def _svg(figure: Figure, title: str) -> str:
    """Return a figure as SVG that takes its ink from the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = file.getvalue()
    svg = re.sub(
        r'<svg .*?viewBox="(.*?)".*?>', rf'<svg viewBox="\1" role="img" aria-label="{title}">', svg, flags=re.S
    )
    return svg[svg.index("<svg") :].replace(_INK, "currentColor")


def parameters(cls: type[Surrogate]) -> str:
    """Return the table of a surrogate's parameters."""
    rows = []
    for name, default in cls._defaults.items():
        if isinstance(default, bool):
            allowed = "``True`` or ``False``"
        else:
            allowed = "> 0" if math.isinf(default) else "> 0, finite"
        learned = "yes" if name in cls._learnable() else "no"
        rows.append((f"``{name}``", f"``{default}``", allowed, learned))
    rows.append(("``hardness``", "``1.0``", "from 0 to 1", "no"))
    return table(("parameter", "default", "range", "can be learned"), rows)


def elsewhere(name: str) -> str:
    """Return the table of what other libraries have in place of a surrogate; empty if none has it."""
    rows = [
        (f"``{library}.{other}``", libraries.fault(library, other) or "no fault known")
        for library, module in libraries.LIBRARIES.items()
        for other, own in module.COUNTERPARTS.items()
        if own == name
    ]
    return table(("specification", "known fault"), rows) if rows else ""


def synonyms(name: str, cls: type[Surrogate]) -> str:
    """Return the other names of a surrogate in specifications."""
    return ", ".join(f"``{other}``" for other in names() if named(other) is cls and other != name)


def page(name: str, cls: type[Surrogate]) -> str:
    code = "\n\n".join(inspect.getsource(function) for function in (cls.formula.primitive, cls.formula.derivative))
    others, also = elsewhere(name), synonyms(name, cls)
    parts = [
        heading(cls.__name__),
        f'``{name}`` in specifications, such as ``"{name}"``{f"; also {also}" if also else ""}.\n',
        '.. raw:: html\n\n   <div class="plot">' + plot(cls).replace("\n", "\n   ") + "</div>\n",
        entry(f"htaf_snn.surrogate.{cls.__name__}", cls),
        heading("Parameters", "-"),
        parameters(cls),
        heading("Code", "-"),
        listing(code, "python"),
        *((heading("In other libraries", "-"), others) if others else ()),
    ]
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Return the pages by their paths."""
    made = {f"reference/surrogates/{name}.rst": page(name, cls) for name, cls in surrogates().items()}
    rows = [
        (f":doc:`{cls.__name__} <{name}>`", f"``{name}``", synonyms(name, cls), summary(cls.__doc__))
        for name, cls in surrogates().items()
    ]
    index = [
        heading("Surrogates"),
        table(("class", "specification", "also", ""), rows),
        toctree(surrogates(), "hidden"),
    ]
    made["reference/surrogates/index.rst"] = "\n".join(index)
    return made
