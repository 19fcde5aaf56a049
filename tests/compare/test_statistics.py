"""Statistics against SciPy, on results with a difference and without."""

import numpy as np
import pytest
from scipy import special, stats

from htaf_snn.compare import statistics


def test_intervals_are_scipys_on_the_scale_of_the_odds():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 12):
        scores = rng.normal(0.9, 0.02, n)
        summary = statistics.summarise(scores)
        # The half width in accuracy, taken to the logit by its slope at the mean.
        half = np.ptp(stats.ttest_1samp(scores, 0).confidence_interval()) / 2 / (summary.mean * (1 - summary.mean))
        expected = special.expit(special.logit(summary.mean) + np.array([-half, half]))
        np.testing.assert_allclose([summary.low, summary.high], expected, rtol=1e-12)
        np.testing.assert_allclose([summary.mean, summary.std], [scores.mean(), scores.std(ddof=1)], rtol=1e-12)
        if n >= 3:
            assert summary.bootstrap_low <= summary.mean <= summary.bootstrap_high
            assert summary.bootstrap_high - summary.bootstrap_low < 1.5 * (summary.high - summary.low)
        else:
            assert np.isnan(summary.bootstrap_low)


@pytest.mark.parametrize(("mean", "spread"), [(0.5, 0.03), (0.97, 0.01), (0.95, 0.04)])
def test_the_interval_covers_the_mean_and_stays_within_0_and_1(mean, spread):
    """Two seeds, as more take the bootstrap's time; the coverage does not depend on their number."""
    rng = np.random.default_rng(4)
    weight = mean * (1 - mean) / spread**2 - 1
    draws = rng.beta(mean * weight, (1 - mean) * weight, (4000, 2))
    intervals = np.array([(summary.low, summary.high) for summary in map(statistics.summarise, draws)])
    assert intervals.min() >= 0 and intervals.max() <= 1
    assert 0.93 < ((intervals[:, 0] <= mean) & (mean <= intervals[:, 1])).mean() < 0.97


def test_an_accuracy_is_within_0_and_1():
    with pytest.raises(ValueError, match=r"^accuracies: expected numbers within 0 and 1, got \[0\.5, 1\.5\]"):
        statistics.summarise([0.5, 1.5])
    ones = statistics.summarise([1.0, 1.0])
    assert ones.mean == 1.0 and np.isnan([ones.low, ones.high]).all()


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        summary = statistics.summarise(rng.beta(8, 2, 30))
        covered += summary.bootstrap_low <= 0.8 <= summary.bootstrap_high
    assert covered >= 50


def test_paired_tests_are_scipys():
    rng = np.random.default_rng(2)
    baseline = rng.normal(0.8, 0.05, 6)
    others = {str(i): baseline + rng.normal(0.01 * i, 0.02, 6) for i in range(5)}
    comparisons = statistics.compare_to(baseline, others)
    for name, scores in others.items():
        peer = stats.ttest_rel(scores, baseline)
        assert comparisons[name].p == pytest.approx(peer.pvalue, rel=1e-9)
        np.testing.assert_allclose(
            [comparisons[name].low, comparisons[name].high], peer.confidence_interval(), rtol=1e-9
        )
        differences = scores - baseline
        assert comparisons[name].effect == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_holm_by_hand():
    # Holm's own example of four: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    corrected = statistics._holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.02})
    assert corrected == pytest.approx({"b": 0.04, "d": 0.06, "c": 0.06, "a": 0.06})
    assert statistics._holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def claims(shift, draws=1000, seeds=5, peers=4):
    """How often at least one peer is claimed to differ; all vary together by seed, as real trials do."""
    rng = np.random.default_rng(3)
    claimed = 0
    for _ in range(draws):
        seed = rng.normal(0, 0.05, seeds)
        baseline = 0.8 + seed + rng.normal(0, 0.01, seeds)
        others = {str(i): 0.8 + shift + seed + rng.normal(0, 0.01, seeds) for i in range(peers)}
        claimed += any(c.claim in ("better", "worse") for c in statistics.compare_to(baseline, others).values())
    return claimed / draws


@pytest.mark.thorough
def test_without_a_difference_one_is_claimed_in_five_percent_at_most():
    assert claims(0.0) <= 0.05


@pytest.mark.thorough
def test_a_planted_difference_is_found_in_its_direction():
    assert claims(0.05) > 0.9
    rng = np.random.default_rng(4)
    baseline = rng.normal(0.8, 0.01, 5)
    shifted = {name: baseline + shift + rng.normal(0, 0.01, 5) for name, shift in (("up", 0.1), ("down", -0.1))}
    comparisons = statistics.compare_to(baseline, shifted)
    assert (comparisons["up"].claim, comparisons["down"].claim) == ("better", "worse")
    assert comparisons["down"].effect < 0 < comparisons["up"].effect


def test_fewer_than_three_seeds_make_no_claim():
    for n in (1, 2):
        comparison = statistics.compare_to(np.full(n, 0.1), {"a": np.full(n, 0.9)})["a"]
        assert comparison.claim == "too few seeds"
        assert comparison.as_dict()["difference"] == pytest.approx(0.8)


def test_equal_scores():
    same = statistics.compare_to([0.5, 0.6, 0.7], {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.7, 0.8]})
    assert (same["a"].p, same["a"].effect, same["a"].claim) == (1.0, 0.0, "no difference shown")
    assert (same["b"].p, same["b"].effect, same["b"].claim) == (0.25, np.inf, "no difference shown")
    assert [same["b"].as_dict()[name] for name in ("effect", "low", "high")] == [None] * 3
    base = np.linspace(0.5, 0.6, 6)
    (six,) = statistics.compare_to(base, {"a": base + 0.1}).values()
    exact = stats.permutation_test((np.full(6, 0.1),), np.mean, permutation_type="samples").pvalue
    assert (six.p, six.claim) == (exact, "better")
    flat = statistics.summarise([0.5, 0.5, 0.5]).as_dict()
    assert (flat["mean"], flat["std"]) == (0.5, 0.0)
    assert all(flat[name] is None for name in ("low", "high", "bootstrap_low", "bootstrap_high"))


def test_whether_ranks_differ_is_scipys():
    table = np.random.default_rng(5).normal(0.8, 0.1, (4, 6))
    expected = stats.friedmanchisquare(*table).pvalue
    assert statistics.ranks_differ(dict(zip("abcd", table, strict=True))) == expected
    assert statistics.ranks_differ({"a": [0.1, 0.2, 0.3], "b": [0.1, 0.2, 0.3]}) is None
    assert statistics.ranks_differ({key: [0.5, 0.5, 0.5] for key in "abc"}) is None


def test_ranks_and_areas():
    ranks = statistics.mean_ranks({"a": [3, 3, 1], "b": [2, 3, 2], "c": [1, 1, 3]})
    assert ranks == pytest.approx({"a": (1 + 1.5 + 3) / 3, "b": (2 + 1.5 + 2) / 3, "c": (3 + 3 + 1) / 3})
    assert statistics.area_over_slopes([4, 1], [0.5, 1.0]) == 0.75
    assert statistics.area_over_slopes([1, 2, 8], [1, 1, 1]) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.summarise([]),
        lambda: statistics.summarise([1.0, float("nan")]),
        lambda: statistics.compare_to([1, 2], {"a": [1, 2, 3]}),
        lambda: statistics.area_over_slopes([1], [1]),
        lambda: statistics.area_over_slopes([1, 1], [1, 2]),
    ],
)
def test_bad_scores_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()
