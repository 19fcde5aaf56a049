"""The figures of a study's report, drawn from rows that are made by hand."""

import re

import pytest

from htaf_snn.compare import figures


def _row(name, claim, difference=None):
    row = {"surrogate": name, "anneal": "none", "identity": 0.0, "variant": "", "dataset": "digits", "place": ""}
    row |= {"slope": 1.0, "depth": 2, "lr": 1e-3, "claim": claim, "difference": difference, "p_holm": 0.01}
    return row | {f"difference_{end}": None if difference is None else difference for end in ("low", "high")}


LONG = "rescaled(function='htaf(alpha=0.5, beta=8)', stretch=0.5, gain=2), hardness annealed"
ROWS = [_row("htaf", "baseline"), _row(LONG, "better", 0.02)]


@pytest.fixture
def beside():
    return figures.differences(ROWS, "htaf")


def test_the_figure_says_that_its_intervals_are_not_adjusted(beside):
    (axes,) = beside.drawing.axes
    assert axes.get_xlabel().endswith("unadjusted 95 % intervals")
    assert "The colours follow the corrected test." in beside.text


def test_a_label_is_whole_whatever_the_names_of_the_arms(beside):
    """It is centred below the axes, which a long name moves to the right."""
    beside.drawing.draw_without_rendering()
    box = beside.drawing.get_tightbbox()
    assert box.x1 > beside.drawing.get_figwidth()  # so the test can fail
    assert float(re.search(r'viewBox="0 0 (\S+) ', beside.svg)[1]) >= 72 * box.width


def test_ranks_say_what_friedmans_test_asks():
    text = figures.ranks({"htaf": 1.2, "atan": 1.8}, 0.01).text
    assert text.endswith("They differ (p = 0.01); Friedman's test asks whether any arms differ, not which.")
    assert "Friedman" not in figures.ranks({"htaf": 1.2, "atan": 1.8}, None).text
