"""What a study is said to have found, from rows that are made by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest
from commands import run

from htaf_snn.compare import Settings, conclusions, findings, report
from htaf_snn.configuration.columns import COLUMNS


def test_the_correction_is_over_a_setting_also_where_seeds_are_missing():
    """Surrogates that lack different seeds are compared with one baseline in one report."""
    rng = np.random.default_rng(0)
    scores = {name: 0.8 + shift + rng.normal(0, 0.01, 6) for name, shift in (("htaf", 0), ("b", 0.02), ("c", 0.03))}
    cells = {
        ("set", 2, "", name, "none", 0.0, "", 1.0, 1e-3): {
            seed: {"test_accuracy": value} for seed, value in enumerate(values)
        }
        for name, values in scores.items()
    }
    del cells["set", 2, "", "b", "none", 0.0, "", 1.0, 1e-3][0], cells["set", 2, "", "c", "none", 0.0, "", 1.0, 1e-3][1]
    comparisons = findings._comparisons(Settings.of(surrogates=["htaf", "atan"]), cells)
    lower, upper = sorted(comparisons.values(), key=lambda comparison: comparison.p)
    assert lower.p_holm == pytest.approx(2 * lower.p) and upper.p_holm == pytest.approx(max(2 * lower.p, upper.p))


def _compared(name, claim, difference, slope=1.0):
    arm = {
        "surrogate": name,
        "anneal": "none",
        "identity": 0.0,
        "variant": "",
        "place": "",
        "slope": slope,
        "width": 1.0,
    }
    return arm | {"claim": claim, "difference": difference}


def test_the_answer_comes_first():
    rows = [
        _compared("htaf", "baseline", None),
        _compared("a", "better", 0.02),
        _compared("a", "better", 0.03, slope=2.0),
        _compared("b", "worse", -0.011),
        _compared("b", "no difference shown", 0.001, slope=2.0),
        _compared("c", "no difference shown", 0.0),
    ]
    shown, unclear = conclusions.answer(rows, "htaf")
    a, b = "a is better in 2 of 2 settings, by 2.0 to 3.0 points", "b is worse in 1 of 2 settings, by 1.1 points"
    assert shown == f"Beside htaf, {a}; {b}."
    assert unclear == "Not shown to differ: c, which does not prove that they are equal."
    assert conclusions.answer(rows[:2], "htaf")[1].startswith("Each arm is shown to differ")
    assert conclusions.answer([_compared("a", "too few seeds", 0.1)], "htaf")[0].startswith("Fewer than 3 seeds")
    assert conclusions.answer(rows[:1], "htaf") == ("There is nothing to compare.", "htaf is alone.")
    missing = [rows[0], _compared("a", "not compared", None)]
    assert conclusions.answer(missing, "htaf")[1] == "No other arm has finished seeds that htaf has."


def test_chance_and_missing_spread_are_told():
    settings = Settings.of(surrogates=["htaf", "a"], slopes=[1.0, 2.0])
    figures = {"chance": 0.1, "std": 0.02, "mean": 0.9, "low": 0.8}
    rows = [_compared(name, "", None, slope) | figures for name in ("htaf", "a") for slope in (1.0, 2.0)]
    assert conclusions.cautions(settings, rows) == []
    rows[0] |= {"mean": 0.15, "low": 0.09}
    rows[2] |= {"mean": 0.1, "low": None, "std": 0.0}
    rows[3] |= {"mean": 0.1, "low": None, "std": 0.0}
    assert conclusions.cautions(settings, rows) == [
        "Not shown to be better than guessing: htaf in 1 of 2 rows; a.",
        "All seeds have the same accuracy, so there is no interval: a.",
    ]
    assert conclusions.cautions(settings, [row | {"chance": None, "std": None} for row in rows]) == []


def test_the_correction_is_over_slopes_and_rates_but_not_over_data_sets():
    rng, cells = np.random.default_rng(0), {}
    for place in ((data, slope) for data in ("one", "two") for slope in (1.0, 2.0)):
        for name in ("htaf", "b"):
            key = (place[0], 2, "", name, "none", 0.0, "", place[1], 1e-3)
            cells[key] = {seed: {"test_accuracy": 0.5 + rng.uniform(0, 0.3)} for seed in range(5)}
    comparisons = findings._comparisons(Settings.of(surrogates=["htaf", "atan"]), cells)
    for data in ("one", "two"):
        least, _ = sorted((own for key, own in comparisons.items() if key[0] == data), key=lambda own: own.p)
        assert least.p_holm == pytest.approx(min(1, 2 * least.p))


def test_the_ends_of_a_grid_are_told():
    settings = Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 3e-3, 1e-2], slopes=[1.0], select="val")
    rows = [_compared(name, "", None) | {"lr": 1e-2} for name in ("htaf", "a")]
    (sentence,) = conclusions._at_the_ends(settings, rows)
    assert sentence == "All arms are best at the largest learning rate tried, 0.01; larger ones may be better still."
    assert conclusions._at_the_ends(settings, [row | {"lr": 3e-3} for row in rows]) == []
    assert conclusions._at_the_ends(settings, [rows[0], rows[1] | {"lr": 1e-3}, rows[1] | {"lr": 3e-3}]) == [
        "htaf is best at the largest learning rate tried, 0.01; larger ones may be better still.",
        "a in 1 of 2 rows is best at the smallest learning rate tried, 0.001; smaller ones may be better still.",
    ]
    others = [_compared("c", "", None) | {"lr": lr} for lr in (1e-3, 3e-3)]
    assert conclusions._at_the_ends(settings, [*rows, *others])[0].startswith("htaf and a are best at the largest ")
    every = Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 3e-3, 1e-2])
    assert conclusions._at_the_ends(every, rows) == []
    assert conclusions._at_the_ends(replace(every, lrs=(1e-2,), slopes=(0.5, 1.0), select="val"), rows) == [
        "All arms are best at the largest slope tried, 1; larger ones may be better still."
    ]


def test_the_twin_has_a_learning_rate_but_no_slope():
    settings = Settings.of(model="dhn", surrogates=["htaf", "relu"], lrs=[1e-3, 1e-2], slopes=[0.5, 1.0], select="val")
    rows = [_compared("htaf", "", None, slope=0.5) | {"lr": 5e-3}, _compared("relu", "", None) | {"lr": 1e-3}]
    assert conclusions._at_the_ends(settings, rows) == [
        "All arms are best at the smallest slope tried, 0.5; smaller ones may be better still.",
        "relu is best at the smallest learning rate tried, 0.001; smaller ones may be better still.",
    ]


def test_widths_are_told_where_one_slope_was_tried():
    settings = Settings.of(surrogates=["htaf", "a"])
    figures = {"chance": 0.1, "std": 0.02, "mean": 0.9, "low": 0.8}
    rows = [_compared("htaf", "", None) | figures | {"width": 1.0}, _compared("a", "", None) | figures | {"width": 0.2}]
    assert conclusions.cautions(settings, rows) == [
        "The gradients' widths differ by a factor of 5 and one slope was tried: this compares widths, not shapes; try "
        "more with --slopes."
    ]
    assert conclusions.cautions(replace(settings, slopes=(0.5, 1.0)), rows) == []
    for width in (0.4, None):  # of a gradient that is the same everywhere
        assert conclusions.cautions(settings, [rows[0], rows[1] | {"width": width}]) == []


def test_seeds_that_were_added_to_results_are_told():
    settings = Settings.of(surrogates=["htaf", "a"], seeds=6)
    (sentence,) = conclusions.cautions(settings, [], [3, 4])
    assert sentence.startswith("Extended from 3 to 6 seeds after results were in; ")
    assert conclusions.cautions(settings, [], []) == []
    assert conclusions.cautions(replace(settings, seeds=3), [], [3]) == []  # stopped before any was added


def test_no_two_columns_have_one_heading():
    assert len({column.heading for column in COLUMNS.values()}) == len(COLUMNS)


def test_the_help_lists_the_columns_of_the_latex_table():
    listed = re.findall(r"^ • (\w+): ", run("report", "--help").stdout, re.MULTILINE)
    assert listed == [*COLUMNS]


def test_the_best_is_bold_only_where_it_is_shown():
    settings = Settings.of(surrogates=["htaf", "a", "b"])
    place = {"dataset": "saccade-digits", "depth": 2, "lr": 1e-3, "std": 0.01}
    rows = [
        place | _compared(name, claim, None) | {"mean": mean}
        for name, claim, mean in (("htaf", "baseline", 0.8), ("a", "worse", 0.7), ("b", "worse", 0.6))
    ]
    assert report.as_latex(settings, rows, ["mean"]).count("mathbf") == 1
    rows[2] |= {"claim": "no difference shown"}
    assert "mathbf" not in report.as_latex(settings, rows, ["mean"])
    rows[2] |= {"claim": "better", "mean": 0.9}
    assert r"$\mathbf{0.9000 \pm 0.0100}$" in report.as_latex(settings, rows, ["mean"])
    chosen = report.as_latex(settings, rows, ["mean", "std"])
    assert "test accuracy & $\\pm$" in chosen and r"$\mathbf{0.9000}$ & 0.01 \\" in chosen
