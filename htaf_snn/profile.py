"""Numbers and plots of any surrogate: peak, width, gradient mass, tail.

Everything is measured in float64 from the gradient that the surrogate really gives; for this package's surrogates,
the exact masses of the primitive are listed beside the measured ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, pairwise
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from . import functional
from ._figures import save
from .surrogate import Surrogate, SurrogateLike, resolve

__all__ = ["Profile", "measure", "plot", "table"]

DELTAS = (0.1, 0.5, 1.0)
IMAGES = (".png", ".svg", ".pdf")
_FAR = 1e6
_NEGLIGIBLE = 1e-250
_Slope = Callable[[ArrayLike], np.ndarray]


@dataclass(frozen=True)
class Profile:
    """The numbers that `measure` returns.

    Attributes:
        name: the name given to `measure`, or the surrogate's repr.
        peak: largest magnitude of the gradient, also the Lipschitz constant of the smooth step.
        peak_at: position of the peak, in the units of x (membrane potential minus threshold).
        width: full width at half maximum; infinite if the gradient never falls to half.
        mass: the integral of the gradient from -delta to delta, by delta.
        total_mass: the integral over the whole line; 1 for a smooth step from 0 to 1; NaN if it does not exist, as for
            a gradient that is constant with opposite signs on both sides.
        exact_mass, exact_total_mass: the same from the primitive; None for surrogates without one.
        tail: "compact" (0 beyond), "exponential", "gaussian" (exp(-rate * x**2)), "power" (x**-rate) or "constant".
        rate: edge, rate or exponent of the tail; 0 if constant.
        finite: whether the gradient is finite for all |x| up to 1e6.

    Example:
        >>> from htaf_snn.surrogate import ATan, Triangle
        >>> atan, triangle = measure(ATan()), measure(Triangle())
        >>> atan.tail, round(atan.rate, 2), triangle.tail, round(triangle.rate, 2)
        ('power', 2.0, 'compact', 1.0)
    """

    name: str
    peak: float
    peak_at: float
    width: float
    mass: dict[float, float]
    total_mass: float
    exact_mass: dict[float, float] | None
    exact_total_mass: float | None
    tail: str
    rate: float
    finite: bool

    def as_dict(self) -> dict:
        """Return the fields as plain values for JSON, with None for NaN and infinity."""
        return _finite(asdict(self))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _slope_of(surrogate: SurrogateLike) -> _Slope:
    resolved = resolve(surrogate)

    def slope(x: ArrayLike) -> np.ndarray:
        points = torch.tensor(np.atleast_1d(x), dtype=torch.float64, requires_grad=True)
        y = resolved(points)
        (grad,) = torch.autograd.grad(y, points, torch.ones_like(y))
        return grad.numpy().reshape(np.shape(x))

    return slope


def _width(slope: _Slope, peak: float, peak_at: float) -> float:
    """Return the distance between the outermost points, one on each side, where the gradient is half its peak."""
    from scipy.optimize import brentq

    edges = []
    for side in (-1.0, 1.0):
        steps = side * np.logspace(-9, 9, 1801)
        above = np.flatnonzero(np.abs(slope(peak_at + steps)) >= peak / 2)
        last = above[-1] if len(above) else 0
        if last == len(steps) - 1:
            return math.inf
        inner, outer = peak_at + steps[last], peak_at + steps[last + 1]
        if not abs(slope(inner)) - peak / 2 > 0:
            edges.append(inner)
            continue
        edges.append(brentq(lambda x: abs(float(slope(x))) - peak / 2, inner, outer, xtol=1e-14, rtol=1e-12))
    return float(edges[1] - edges[0])


def _integral(slope: _Slope, start: float, end: float, peak_at: float, width: float) -> float:
    from scipy.integrate import quad

    # Pieces on the gradient's own scale, so that quad does not step over the peak.
    cuts = peak_at + width * np.array([-30.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 30.0])
    points = [start, *(c for c in cuts if start < c < end), end]
    # With full_output quad returns its warnings instead of issuing them; NaN in the gradient is reported by `finite`.
    return sum(
        quad(lambda x: float(slope(x)), a, b, limit=200, epsabs=1e-13, epsrel=1e-11, full_output=1)[0]
        for a, b in pairwise(points)
    )


def _tail(slope: _Slope, peak_at: float, width: float) -> tuple[str, float]:
    """Return the law of the gradient far above the peak, and its constant."""
    if width == math.inf:
        return "constant", 0.0
    distance = width * np.logspace(-1, math.log10(_FAR), 1401)
    values = np.abs(slope(peak_at + distance))
    zero = np.flatnonzero(~(values > 0))
    log = np.log(np.where(values > _NEGLIGIBLE, values, np.nan))
    last = int(np.flatnonzero(np.isfinite(log))[-1])
    if len(zero) and values[zero[0] - 1] > 1e-12 * values[0]:
        return "compact", _edge(slope, peak_at, distance[zero[0] - 1], distance[zero[0]])
    if last == len(distance) - 1:
        power = -(log[-1] - log[-200]) / math.log(distance[-1] / distance[-200])
        return ("power", float(power)) if power > 1e-3 else ("constant", 0.0)

    def rate(i: int) -> float:
        j = i - 20
        return -(log[i] - log[j]) / (distance[i] - distance[j])

    if len(zero) and values[zero[0] - 1] > 1e-30 * values[0]:
        # Near 1e-16 rounding quantises a difference such as 1 - tanh², which hides its law; it holds further in.
        last = int(np.flatnonzero(values > 1e-11 * values[0])[-1])
    half = int(np.searchsorted(distance, distance[last] / 2))
    if rate(last) > 1.5 * rate(half):
        i = last - 20
        return "gaussian", float(-(log[last] - log[i]) / (distance[last] ** 2 - distance[i] ** 2))
    return "exponential", float(rate(last))


def _edge(slope: _Slope, peak_at: float, inside: float, outside: float) -> float:
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if float(slope(peak_at + middle)) != 0 else (inside, middle)
    return float(peak_at + inside)


def measure(surrogate: SurrogateLike, name: str | None = None, deltas: Sequence[float] = DELTAS) -> Profile:
    """Measure a surrogate.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`; it must have a gradient, and take float64.
        name: shown in tables; by default the specification or the repr.
        deltas: half widths, > 0 and finite, of the intervals around 0 whose gradient mass is measured.

    Returns:
        A `Profile`.

    Raises:
        ValueError: if a delta is not positive and finite, or the surrogate has no gradient, or one that is 0 or not
            finite everywhere.

    Example:
        >>> from htaf_snn import HTAF
        >>> profile = measure(HTAF(alpha=1.0, beta=4.0))
        >>> round(profile.peak, 6), profile.tail, round(profile.rate, 3)
        (1.0, 'exponential', 2.0)
    """
    name = name or (surrogate if isinstance(surrogate, str) else repr(surrogate))
    surrogate = resolve(surrogate)
    if not all(0 < delta < math.inf for delta in deltas):
        raise ValueError(f"deltas: expected positive finite numbers, got {list(deltas)}")
    slope = _slope_of(surrogate)
    scales = np.logspace(-9, 6, 6001)
    grid = np.concatenate([-scales[::-1], [0.0], scales])
    try:
        values = np.abs(slope(grid))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name}: expected a differentiable callable, got one without a gradient: {error}") from error
    if not (np.nan_to_num(values, posinf=0.0) > 0).any():
        raise ValueError(f"{name}: the gradient is 0 or not finite everywhere, so there is nothing to measure")
    peak = float(np.nanmax(np.where(np.isfinite(values), values, np.nan)))
    # On a plateau take the point nearest to 0, where a surrogate is meant to peak.
    best = np.flatnonzero(values >= peak * (1 - 1e-9))
    peak_at = float(grid[best[np.argmin(np.abs(grid[best]))]])
    finite = bool(np.isfinite(values).all())
    width = _width(slope, peak, peak_at)
    tail, rate = _tail(slope, peak_at, width)
    scale = 1.0 if width == math.inf else width
    mass = {delta: _integral(slope, -delta, delta, peak_at, scale) for delta in deltas}
    # Halves of opposite signs that never fall off have no integral, neither finite nor infinite.
    far = slope(np.array([-_FAR, _FAR]) * scale)
    total = math.nan if far[0] * far[1] < 0 else math.inf
    if tail != "constant" and not (tail == "power" and rate <= 1):
        total = _integral(slope, -math.inf, math.inf, peak_at, scale)
    exact_mass, exact_total = _exact_masses(surrogate, deltas)
    return Profile(name, peak, peak_at, width, mass, total, exact_mass, exact_total, tail, rate, finite)


def _exact_masses(surrogate: Surrogate, deltas: Sequence[float]) -> tuple[dict[float, float] | None, float | None]:
    if surrogate.formula is None:
        return None, None

    def span(delta: float) -> float:
        ends = torch.tensor([-delta, delta], dtype=torch.float64)
        low, high = functional.smooth(ends, surrogate).detach().tolist()
        return high - low

    return {delta: span(delta) for delta in deltas}, span(torch.finfo(torch.float64).max)


def table(profiles: Sequence[Profile]) -> str:
    """Return profiles as an aligned text table, one row per surrogate.

    Args:
        profiles: at least one, measured with the same deltas.

    Example:
        >>> from htaf_snn import HTAF
        >>> print(table([measure(HTAF(), name="htaf", deltas=[0.5])]))
        surrogate  peak  at  width   mass(0.5)  total mass  tail         rate  finite
        htaf       1     0   0.8055  0.7279     0.964       exponential  2     yes
    """
    deltas = list(profiles[0].mass)
    masses = [f"mass({delta:g})" for delta in deltas]
    header = ["surrogate", "peak", "at", "width", *masses, "total mass", "tail", "rate", "finite"]
    rows = [
        [
            p.name,
            *(f"{v:.4g}" for v in (p.peak, p.peak_at, p.width, *p.mass.values(), p.total_mass)),
            p.tail,
            f"{p.rate:.4g}",
            "yes" if p.finite else "NO",
        ]
        for p in profiles
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines)


def plot(surrogates: Mapping[str, SurrogateLike], path: str | PathLike, span: float = 3.0) -> None:
    """Draw the gradients of surrogates, linear and logarithmic, into an image file.

    Args:
        surrogates: as for `measure`, by the name shown in the legend.
        path: file to write, .png, .svg or .pdf; written under a temporary name, then renamed.
        span: the x axis of the linear plot runs from -span to span, in units of x; that of the logarithmic plot three
            times as far.

    Raises:
        ValueError: if the suffix is another, or the folder does not exist.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> from htaf_snn.surrogate import HTAF, ATan
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot({"htaf": HTAF(), "atan": ATan()}, f"{folder}/gradients.svg", span=2.0)
        ...     Path(folder, "gradients.svg").stat().st_size > 10_000
        True
    """
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix not in IMAGES or not path.parent.is_dir():
        raise ValueError(f"plot: expected a {', '.join(IMAGES)} file in an existing folder, got {path}")
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    linear, logarithmic = figure.subplots(1, 2)
    for axes, reach in ((linear, span), (logarithmic, 3 * span)):
        styles = cycle(["-", "--", "-.", ":"])
        x = np.linspace(-reach, reach, 4001)
        slopes = {name: _slope_of(surrogate)(x) for name, surrogate in surrogates.items()}
        for name, slope in slopes.items():
            axes.plot(x, slope, label=name, linestyle=next(styles))
        axes.set_xlabel("membrane potential − threshold")
        axes.set_ylabel("surrogate gradient")
    linear.set_title("gradient")
    logarithmic.set_yscale("log")
    logarithmic.set_ylim(1e-6, 2 * max(np.nanmax(slope) for slope in slopes.values()))
    logarithmic.set_title("tails")
    figure.legend(*linear.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(figure, path, dpi=150)
