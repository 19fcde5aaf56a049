"""Statistics of results over seeds: intervals, paired tests with Holm's correction, effect sizes, ranks, areas.

Every function takes scores of shape (seeds,), one for each seed, in the same order of seeds for all that is paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

__all__ = [
    "FEWEST_SEEDS",
    "Comparison",
    "Summary",
    "area_over_slopes",
    "compare_pairs",
    "compare_to",
    "mean_ranks",
    "summarise",
]

FEWEST_SEEDS = 3
"""With fewer seeds no claim is made."""

_RESAMPLES = 9999


@dataclass(frozen=True)
class Summary:
    """What `summarise` finds.

    Attributes:
        n: the number of seeds.
        mean: of the scores.
        std: sample standard deviation; NaN for one seed.
        t_low, t_high: 95 % interval of the mean by Student's t; NaN for one seed.
        bootstrap_low, bootstrap_high: 95 % interval of the mean by the bias-corrected bootstrap; NaN below three
            seeds, and the mean itself where all scores are equal.
    """

    n: int
    mean: float
    std: float
    t_low: float
    t_high: float
    bootstrap_low: float
    bootstrap_high: float

    def as_dict(self) -> dict:
        """The fields, what is not finite as None."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def summarise(scores: Sequence[float]) -> Summary:
    """Mean and 95 % intervals.

    Raises:
        ValueError: if there is no score, or one is not finite.

    Example:
        >>> found = summarise([0.90, 0.92, 0.94])
        >>> found.n, round(found.mean, 3), round(found.t_low, 3), round(found.t_high, 3)
        (3, 0.92, 0.87, 0.97)
    """
    from scipy import stats

    scores = _checked("scores", scores)
    n, mean = len(scores), float(scores.mean())
    if n == 1:
        return Summary(1, mean, *[float("nan")] * 5)
    std = float(scores.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / n**0.5
    low = high = float("nan")
    if np.ptp(scores) == 0:
        low = high = mean
    elif n >= FEWEST_SEEDS:
        method = {"method": "BCa", "n_resamples": _RESAMPLES, "rng": np.random.default_rng(0)}
        low, high = map(float, stats.bootstrap((scores,), np.mean, **method).confidence_interval)
    return Summary(n, mean, std, mean - half, mean + half, low, high)


@dataclass(frozen=True)
class Comparison:
    """One surrogate beside the baseline.

    Attributes:
        difference: mean of its scores minus the baseline's, seed by seed.
        low, high: 95 % interval of the difference by Student's t.
        p: two-sided p-value of the paired t-test.
        p_holm: the same after Holm's correction for all comparisons made together.
        effect: Cohen's d of the paired differences, mean over standard deviation; infinite if all are equal and not 0.
        claim: "better", "worse" or "no difference shown" at 5 % after correction; "too few seeds" below three.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float
    claim: str

    def as_dict(self) -> dict:
        """The fields, what is not finite as None."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}


def compare_to(baseline: Sequence[float], others: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare each of several with a baseline by paired t-tests over seeds, with Holm's correction.

    Args:
        baseline: scores, one a seed.
        others: by name, scores of the same seeds in the same order.

    Raises:
        ValueError: if the numbers of seeds differ, or a score is not finite.

    Example:
        >>> found = compare_to([0.90, 0.91, 0.92, 0.93], {"a": [0.95, 0.97, 0.96, 0.98], "b": [0.90, 0.92, 0.91, 0.93]})
        >>> found["a"].claim, found["b"].claim, round(found["a"].difference, 3)
        ('better', 'no difference shown', 0.05)
    """
    return compare_pairs({name: (baseline, scores) for name, scores in others.items()})


def compare_pairs(pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> dict[str, Comparison]:
    """`compare_to`, where each has the baseline's scores of its own seeds; the correction is over all of them.

    Args:
        pairs: by name, the baseline's scores and those that are compared with it, of the same seeds.

    Raises:
        ValueError: as `compare_to`.

    Example:
        >>> found = compare_pairs({"a": ([0.1, 0.2, 0.3], [0.3, 0.41, 0.5]), "b": ([0.1, 0.3], [0.2, 0.3])})
        >>> round(found["a"].p, 4), round(found["a"].p_holm, 4)
        (0.0003, 0.0005)
    """
    differences = {}
    for name, (baseline, scores) in pairs.items():
        baseline, scores = _checked("baseline", baseline), _checked(name, scores)
        if len(scores) != len(baseline):
            raise ValueError(f"{name}: expected {len(baseline)} scores as of the baseline, got {len(scores)}")
        differences[name] = scores - baseline
    p = {name: _paired_p(values) for name, values in differences.items()}
    corrected = _holm(p)
    return {name: _comparison(values, p[name], corrected[name]) for name, values in differences.items()}


def _paired_p(differences: np.ndarray) -> float:
    from scipy import stats

    if len(differences) < 2:
        return float("nan")
    # Rounding apart equal differences have no spread, and t would be of the rounding.
    if np.ptp(differences) <= 1e-12:
        return 1.0 if abs(differences.mean()) <= 1e-12 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm 1979: the k-th smallest of m p-values times m - k + 1, never less than the one before."""
    corrected, largest = {}, 0.0
    known = sorted((value, name) for name, value in p.items() if not np.isnan(value))
    for rank, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - rank)))
        corrected[name] = largest
    return {name: corrected.get(name, float("nan")) for name in p}


def _comparison(differences: np.ndarray, p: float, p_holm: float) -> Comparison:
    found = summarise(differences)
    effect = float("nan")
    if found.n > 1:
        flat = np.ptp(differences) <= 1e-12
        effect = (np.sign(found.mean) * np.inf if abs(found.mean) > 1e-12 else 0.0) if flat else found.mean / found.std
    if found.n < FEWEST_SEEDS:
        claim = "too few seeds"
    elif p_holm < 0.05:
        claim = "better" if found.mean > 0 else "worse"
    else:
        claim = "no difference shown"
    return Comparison(found.mean, found.t_low, found.t_high, p, p_holm, float(effect), claim)


def mean_ranks(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Rank all within each seed, 1 the highest score, ties sharing their mean rank; return the means over seeds.

    Example:
        >>> mean_ranks({"a": [0.9, 0.8], "b": [0.8, 0.9], "c": [0.1, 0.1]})
        {'a': 1.5, 'b': 1.5, 'c': 3.0}
    """
    from scipy import stats

    table = np.stack([_checked(name, values) for name, values in scores.items()])
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    return dict(zip(scores, map(float, ranks), strict=True))


def area_over_slopes(slopes: Sequence[float], scores: Sequence[float]) -> float:
    """Mean score over the logarithm of the slope, by trapezoids: robustness against a wrong slope.

    Args:
        slopes: two or more different ones, > 0.
        scores: one for each.

    Raises:
        ValueError: if there are fewer than two slopes, or two are equal.

    Example:
        >>> area_over_slopes([0.5, 1.0, 2.0], [0.8, 0.9, 0.8])
        0.85
    """
    slopes, scores = _checked("slopes", slopes), _checked("scores", scores)
    if len(slopes) < 2 or len(slopes) != len(scores) or len(set(slopes.tolist())) < len(slopes) or slopes.min() <= 0:
        raise ValueError(f"slopes: expected two or more different positive ones, a score each, got {slopes.tolist()}")
    order = np.argsort(slopes)
    x, y = np.log(slopes[order]), scores[order]
    return float(round(np.trapezoid(y, x) / (x[-1] - x[0]), 12))


def _checked(name: str, scores: Sequence[float]) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"{name}: expected one finite score or more, got {scores!r}")
    return scores
