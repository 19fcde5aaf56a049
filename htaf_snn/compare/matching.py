"""Surrogates made comparable: stretched by a slope, and matched in the peak, width or area of their gradients."""

from __future__ import annotations

import math
from typing import get_args

import torch

from .. import profile
from .._checks import check_choice
from ..configuration import Match
from ..surrogate import Rescaled, Surrogate, SurrogateLike, resolve, specifications


def rescaled(surrogate: SurrogateLike, reference: SurrogateLike, match: str, slope: float = 1.0) -> Rescaled:
    """Stretch a surrogate by a slope, and match it to a reference.

    The matched quantity is measured on both gradients by `htaf_snn.profile.measure`, in float64.

    Args:
        surrogate: the surrogate to rescale, in any form.
        reference: the surrogate to match, at slope 1, in any form.
        match: "none"; "peak" makes the gradient's largest magnitude equal to the reference's, at every slope;
            "half_width" makes its full width at half maximum the reference's divided by the slope; "area" makes its
            integral equal to the reference's.
        slope: > 0.

    Returns:
        The rescaled surrogate, with the factors in its attributes `stretch` and `gain`.

    Raises:
        ValueError: if an argument is out of range, or the quantity is 0 or infinite for either surrogate.

    Example:
        >>> from htaf_snn.surrogate import HTAF, ATan
        >>> matched = rescaled(HTAF(alpha=2.0), ATan(alpha=2.0), "peak")
        >>> matched.stretch, round(matched.gain, 9)
        (1.0, 0.5)
    """
    check_choice("match", match, get_args(Match))
    if not 0 < slope < math.inf:
        raise ValueError(f"slope: expected a positive finite number, got {slope!r}")
    surrogate = resolve(surrogate)
    if match == "none":
        return Rescaled(surrogate, stretch=slope)
    ours, theirs = _measured(surrogate, "surrogate"), _measured(resolve(reference), "reference")
    if match == "half_width":
        return Rescaled(surrogate, stretch=slope * _ratio("half width", ours.width, theirs.width))
    if match == "area":
        return Rescaled(surrogate, stretch=slope, gain=_ratio("area", abs(theirs.total_mass), abs(ours.total_mass)))
    return Rescaled(surrogate, stretch=slope, gain=_ratio("peak", theirs.peak, ours.peak * slope))


def width(surrogate: SurrogateLike, stretch: float = 1.0) -> float | None:
    """Return the full width at half maximum of a surrogate's gradient, stretched; None if it has none.

    Example:
        >>> width("triangle", stretch=2.0)
        0.5
    """
    own = resolve(surrogate)
    if isinstance(own, Rescaled):
        return width(own.function, stretch * own.stretch)
    try:
        measured = _measured(own, "surrogate").width
    except ValueError:  # of a gradient that is 0 everywhere
        return None
    return measured / stretch if measured < math.inf else None


def identity(specification: str) -> tuple:
    """Return what specifications of one function have in common, whichever of its names and defaults they write out.

    Example:
        >>> identity("superspike") == identity("fast_sigmoid(slope=25.0)"), identity("atan") == identity("htaf")
        (True, False)
    """
    return _identity(resolve(specification))


def _identity(surrogate: Surrogate) -> tuple:
    if isinstance(surrogate, Rescaled):
        own, factors = _identity(surrogate.function), (float(surrogate.stretch), float(surrogate.gain))
        return own if factors == (1.0, 1.0) else (own, *factors)
    if surrogate.formula is not None:
        values = (float(torch.as_tensor(value).detach()) for value in surrogate.values().values())
        return (surrogate.formula.name, surrogate.hardness, *sorted(surrogate.learn), *values)
    # Another library's parameters have defaults that it alone knows.
    x = torch.linspace(-5, 5, 2001, dtype=torch.float64, requires_grad=True)
    y = surrogate(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return specifications.parse(surrogate.name)[0], y.detach().numpy().tobytes(), gradient.numpy().tobytes()


_PROFILES: dict[tuple, profile.Profile] = {}


def _measured(surrogate: Surrogate, name: str) -> profile.Profile:
    """Return a surrogate's profile; that of the same formula and numbers, or of a specification, is measured once."""
    numbers = surrogate.numbers()
    key: tuple = surrogate.formula, *sorted(numbers.items())
    if "_origin" in surrogate.__dict__:  # a library's, by its specification
        key = (surrogate.name,)
    elif surrogate.formula is None or len(numbers) <= len(
        surrogate.values()
    ):  # it has a tensor, or nothing to tell it by
        return profile.measure(surrogate, name)
    if key not in _PROFILES:
        _PROFILES[key] = profile.measure(surrogate, name)
    return _PROFILES[key]


def _ratio(quantity: str, numerator: float, denominator: float) -> float:
    if not (0 < numerator < math.inf and 0 < denominator < math.inf):
        raise ValueError(
            f"match: expected surrogates with a positive finite {quantity}, got {numerator:.4g} and "
            f"{denominator:.4g}; leave out the surrogate, or match another quantity"
        )
    return numerator / denominator
