"""Surrogates made comparable: stretched by a slope, and matched in the peak, width or area of their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from torch import Tensor

from .. import profile
from .._checks import check_choice
from ..surrogate import Foreign, Surrogate, SurrogateLike, resolve

MATCHES = ("none", "peak", "half_width", "area")


class Rescaled(Foreign):
    """A surrogate with another slope and height: surrogate(stretch * x), its gradient multiplied by gain.

    Both factors are positive, so spikes are unchanged, and so is the hardness.

    Args:
        function: the surrogate.
        stretch: > 0; a larger one makes it steeper and narrower, with the same area.
        gain: > 0; scales the gradient only.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Example:
        >>> import torch
        >>> from htaf_snn.surrogate import ATan
        >>> x = torch.zeros(1, requires_grad=True)
        >>> Rescaled(ATan(alpha=2.0), stretch=3.0, gain=0.5)(x).backward()
        >>> x.grad
        tensor([1.5000])
    """

    function: Surrogate
    stretch: float = 1.0
    gain: float = 1.0

    def __post_init__(self):
        for name, value in (("stretch", self.stretch), ("gain", self.gain)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")

    def forward(self, x: Tensor) -> Tensor:
        return self._scaled(self.function, x)

    def at_hardness(self, hardness: float, x: Tensor, /, **parameters: float | Tensor) -> Tensor:
        """Return the output at another hardness than the surrogate's own, see `Surrogate`."""
        return self._scaled(lambda scaled: self.function.at_hardness(hardness, scaled, **parameters), x)

    def _scaled(self, surrogate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = surrogate(x if self.stretch == 1 else x * self.stretch)
        # The value is y, as the second term is 0; the gradient is that of y times the gain.
        return y if self.gain == 1 else y.detach() + self.gain * (y - y.detach())


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
    check_choice("match", match, MATCHES)
    if not 0 < slope < math.inf:
        raise ValueError(f"slope: expected a positive finite number, got {slope!r}")
    own, surrogate = surrogate, resolve(surrogate)
    if match == "none":
        return Rescaled(surrogate, stretch=slope)
    ours, theirs = _measured(own, "surrogate"), _measured(reference, "reference")
    if match == "half_width":
        return Rescaled(surrogate, stretch=slope * _ratio("half width", ours.width, theirs.width))
    if match == "area":
        return Rescaled(surrogate, stretch=slope, gain=_ratio("area", abs(theirs.total_mass), abs(ours.total_mass)))
    return Rescaled(surrogate, stretch=slope, gain=_ratio("peak", theirs.peak, ours.peak * slope))


def _measured(surrogate: SurrogateLike, name: str) -> profile.Profile:
    # The trials of a study in one process repeat the same specifications.
    return _of_specification(surrogate, name) if isinstance(surrogate, str) else profile.measure(surrogate, name)


_of_specification = lru_cache(profile.measure)


def _ratio(quantity: str, numerator: float, denominator: float) -> float:
    if not (0 < numerator < math.inf and 0 < denominator < math.inf):
        raise ValueError(
            f"match: expected surrogates with a positive finite {quantity}, got {numerator:.4g} and "
            f"{denominator:.4g}; leave out the surrogate, or match another quantity"
        )
    return numerator / denominator
