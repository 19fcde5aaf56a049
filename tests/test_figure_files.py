"""Figures in files, whose fonts publishers take."""

import ast
import pickle
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from htaf_snn import _figures, compare, plots, profile

ROOT = Path(__file__).parents[1] / "htaf_snn"


def test_fonts_are_embedded_whole(tmp_path):
    figure = Figure()
    figure.subplots().set_title("accuracy")
    _figures.save(figure, tmp_path / "own.pdf")
    profile.plot({"htaf": "htaf"}, tmp_path / "profile.pdf")
    compare.figures.ranks({"htaf": 1.2, "atan": 1.8}, None).save(tmp_path)
    pickle.loads(pickle.dumps(plots.over_time([0.5, 1.0]))).savefig(tmp_path / "plot.pdf")
    for name in ("own", "profile", "ranks", "plot"):
        written = (tmp_path / f"{name}.pdf").read_bytes()
        assert b"/Subtype /Type0" in written and b"/Subtype /Type3" not in written, name
    assert mpl.rcParams["pdf.fonttype"] == 3  # the user's own figures are as ever


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_figures_are_saved_in_one_place(path):
    """Elsewhere they become SVG alone, in which fonts are text."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    saved = [ast.unparse(node) for node in calls if getattr(node.func, "attr", "") == "savefig"]
    assert path.name in ("_figures.py", "_pdf_figure.py") or all("format='svg'" in call for call in saved)
