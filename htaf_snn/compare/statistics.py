"""Statistics of results over seeds: intervals, paired tests with Holm's correction, effect sizes, ranks, areas.

Every function takes scores of shape (seeds,), one per seed; paired scores have the same order of seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

FEWEST_SEEDS = 3
"""With fewer seeds no claim is made."""

_RESAMPLES = 9999
_ROUNDING = 1e-12
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Summary:
    """Mean, spread and intervals of accuracies.

    Attributes:
        n: number of seeds.
        mean: their mean.
        std: sample standard deviation; NaN for one seed.
        low, high: 95 % interval of the mean by Student's t on the scale of the log-odds, so that it stays within 0
            and 1; NaN for one seed, and if all accuracies are equal, as there is no spread to estimate it from.
        bootstrap_low, bootstrap_high: 95 % interval of the mean by the bias-corrected bootstrap; NaN also for two
            seeds.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float

    def as_dict(self) -> dict:
        """Return the fields, with None for NaN and infinity."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def summarise(accuracies: ArrayLike) -> Summary:
    """Return mean and 95 % intervals.

    Raises:
        ValueError: if there is no accuracy, or one is not within 0 and 1.

    Example:
        >>> summary = summarise([0.90, 0.92, 0.94])
        >>> summary.n, round(summary.mean, 3), round(summary.low, 3), round(summary.high, 3)
        (3, 0.92, 0.854, 0.958)
    """
    from scipy import special, stats

    values = _checked("accuracies", accuracies)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"accuracies: expected numbers within 0 and 1, got {values.tolist()}")
    n, mean = len(values), float(values.mean())
    if n == 1:
        return Summary(1, mean, *[float("nan")] * 5)
    std = float(values.std(ddof=1))
    if np.ptp(values) == 0:
        return Summary(n, mean, 0.0, *[float("nan")] * 4)
    # The logit's slope at the mean, 1 / (mean (1 - mean)), takes the half width to its scale.
    half = _t_half(values) / (mean * (1 - mean))
    low, high = map(float, special.expit(special.logit(mean) + np.array([-half, half])))
    of_bootstrap = [float("nan")] * 2
    if n >= FEWEST_SEEDS:
        rng = np.random.default_rng(0)
        bootstrap = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=_RESAMPLES, rng=rng)
        of_bootstrap = [*map(float, bootstrap.confidence_interval)]
    return Summary(n, mean, std, low, high, *of_bootstrap)


def _t_half(values: np.ndarray) -> float:
    """Return half the width of the 95 % interval of the mean by Student's t; NaN for one value."""
    from scipy import stats

    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else float("nan")


@dataclass(frozen=True)
class Comparison:
    """One surrogate beside the baseline.

    Attributes:
        difference: mean of its scores minus the baseline's, paired by seed.
        low, high: 95 % interval of the difference by Student's t; NaN for one seed, and if all differences are equal.
        p: two-sided p-value of the paired t-test; if all n differences are equal, that of the exact test of signs,
            2 / 2ⁿ, or 1 if they are zero.
        p_holm: the same after Holm's correction for all comparisons together.
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
        """Return the fields, with None for NaN and infinity."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}


def compare_to(baseline: ArrayLike, others: Mapping[Name, ArrayLike]) -> dict[Name, Comparison]:
    """Compare each of the others with a baseline by paired t-tests over seeds, with Holm's correction.

    Args:
        baseline: scores, one per seed.
        others: scores of the same seeds in the same order, by name.

    Raises:
        ValueError: if the numbers of seeds differ, or a score is not finite.

    Example:
        >>> tests = compare_to([0.90, 0.91, 0.92, 0.93], {"a": [0.95, 0.97, 0.96, 0.98], "b": [0.90, 0.92, 0.91, 0.93]})
        >>> tests["a"].claim, tests["b"].claim, round(tests["a"].difference, 3)
        ('better', 'no difference shown', 0.05)
    """
    return compare_pairs({name: (baseline, scores) for name, scores in others.items()})


def compare_pairs(pairs: Mapping[Name, tuple[ArrayLike, ArrayLike]]) -> dict[Name, Comparison]:
    """Compare as `compare_to` does, each with the baseline's scores of its own seeds; the correction covers all.

    Args:
        pairs: the baseline's scores and those compared with them, of the same seeds, by name.

    Raises:
        ValueError: as `compare_to`.

    Example:
        >>> tests = compare_pairs({"a": ([0.1, 0.2, 0.3], [0.3, 0.41, 0.5]), "b": ([0.1, 0.3], [0.2, 0.3])})
        >>> round(tests["a"].p, 4), round(tests["a"].p_holm, 4)
        (0.0003, 0.0005)
    """
    differences = {}
    for name, (baseline, scores) in pairs.items():
        base, own = _checked("baseline", baseline), _checked(name, scores)
        if len(own) != len(base):
            raise ValueError(f"{name}: expected {len(base)} scores, as many as the baseline's, got {len(own)}")
        differences[name] = own - base
    p = {name: _paired_p(values) for name, values in differences.items()}
    corrected = _holm(p)
    return {name: _comparison(values, p[name], corrected[name]) for name, values in differences.items()}


def _paired_p(differences: np.ndarray) -> float:
    from scipy import stats

    if len(differences) < 2:
        return float("nan")
    if _is_flat(differences):
        return 1.0 if abs(differences.mean()) <= _ROUNDING else 2.0 ** (1 - len(differences))
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _is_flat(differences: np.ndarray) -> bool:
    """Whether differences have no spread but rounding's, which is all that t would measure."""
    return bool(np.ptp(differences) <= _ROUNDING)


def _holm(p: Mapping[Name, float]) -> dict[Name, float]:
    """Correct by Holm 1979: the k-th smallest of m p-values times m - k + 1, never less than the one before."""
    corrected, largest = {}, 0.0
    known = sorted((name for name, value in p.items() if not np.isnan(value)), key=lambda name: p[name])
    for rank, name in enumerate(known):
        largest = max(largest, min(1.0, p[name] * (len(known) - rank)))
        corrected[name] = largest
    return {name: corrected.get(name, float("nan")) for name in p}


def _comparison(differences: np.ndarray, p: float, p_holm: float) -> Comparison:
    n, mean, effect = len(differences), float(differences.mean()), float("nan")
    if n > 1:
        flat = np.sign(mean) * np.inf if abs(mean) > _ROUNDING else 0.0
        effect = flat if _is_flat(differences) else mean / differences.std(ddof=1)
    if n < FEWEST_SEEDS:
        claim = "too few seeds"
    elif p_holm < 0.05:
        claim = "better" if mean > 0 else "worse"
    else:
        claim = "no difference shown"
    half = float("nan") if _is_flat(differences) else _t_half(differences)
    return Comparison(mean, mean - half, mean + half, p, p_holm, float(effect), claim)


def mean_ranks(scores: Mapping[Name, ArrayLike]) -> dict[Name, float]:
    """Rank all within each seed, 1 for the highest score and the mean rank for ties; return the means over seeds.

    Example:
        >>> mean_ranks({"a": [0.9, 0.8], "b": [0.8, 0.9], "c": [0.1, 0.1]})
        {'a': 1.5, 'b': 1.5, 'c': 3.0}
    """
    from scipy import stats

    table = np.stack([_checked(name, values) for name, values in scores.items()])
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    return dict(zip(scores, map(float, ranks), strict=True))


def ranks_differ(scores: Mapping[Name, ArrayLike]) -> float | None:
    """Return Friedman's p-value that all rank alike over seeds; None for fewer than three of them or three seeds.

    Example:
        >>> round(ranks_differ({"a": [0.9, 0.8, 0.9], "b": [0.8, 0.7, 0.8], "c": [0.1, 0.1, 0.2]}), 4)
        0.0498
    """
    from scipy import stats

    table = [_checked(name, values) for name, values in scores.items()]
    if len(table) < 3 or len(table[0]) < FEWEST_SEEDS or np.ptp(table) == 0:
        return None
    return float(stats.friedmanchisquare(*table).pvalue)


def area_over_slopes(slopes: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean score over the logarithm of the slope, by trapezoids: robustness to a wrong slope.

    Args:
        slopes: at least two different ones, > 0.
        scores: one per slope.

    Raises:
        ValueError: if there are fewer than two slopes, two are equal, or one is not positive.

    Example:
        >>> area_over_slopes([0.5, 1.0, 2.0], [0.8, 0.9, 0.8])
        0.85
    """
    x, y = _checked("slopes", slopes), _checked("scores", scores)
    if len(x) < 2 or len(x) != len(y) or len(set(x.tolist())) < len(x) or x.min() <= 0:
        raise ValueError(f"slopes: expected at least two different positive ones, one per score, got {x.tolist()}")
    order = np.argsort(x)
    x, y = np.log(x[order]), y[order]
    return float(round(np.trapezoid(y, x) / (x[-1] - x[0]), 12))


def _checked(name: Hashable, scores: ArrayLike) -> np.ndarray:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"{name}: expected one finite score or more, got {values!r}")
    return values
