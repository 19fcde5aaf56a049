"""What a study is said to have found, from rows that are made by hand."""

import numpy as np
import pytest

from htaf_snn.compare import Settings, findings, report


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
    arm = {"surrogate": name, "anneal": "none", "identity": 0.0, "variant": "", "place": "", "slope": slope}
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
    shown, unclear = findings.answer(rows, "htaf")
    a, b = "a is better in 2 of 2 settings, by 2.0 to 3.0 points", "b is worse in 1 of 2 settings, by 1.1 points"
    assert shown == f"Beside htaf, {a}; {b}."
    assert unclear == "Not shown to differ: c, which does not prove that they are equal."
    assert findings.answer(rows[:2], "htaf")[1].startswith("Each arm is shown to differ")
    assert findings.answer([_compared("a", "too few seeds", 0.1)], "htaf")[0].startswith("Fewer than 3 seeds")
    assert findings.answer(rows[:1], "htaf")[0] == "There is nothing to compare."


def test_the_ends_of_a_grid_are_told():
    settings = Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 1e-2], slopes=[1.0], select="val")
    rows = [{"surrogate": name, "slope": 1.0, "lr": 1e-2} for name in ("htaf", "a")]
    (sentence,) = findings.at_the_ends(settings, rows)
    assert sentence == "All arms are best at the largest learning rate tried, 0.01; beyond it they may be better."
    assert findings.at_the_ends(settings, [rows[0], rows[1] | {"lr": 1e-3}]) == []
    assert findings.at_the_ends(Settings.of(surrogates=["htaf", "atan"], lrs=[1e-3, 1e-2]), rows) == []


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
