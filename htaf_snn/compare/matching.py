"""Surrogates made comparable: stretched by a slope, and scaled to an equal peak, width or area of the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from .. import profile

__all__ = ["MATCHES", "Rescaled", "rescaled"]

MATCHES = ("none", "peak", "half_width", "area")


class Rescaled(nn.Module):
    """A surrogate of another slope and height: step(stretch * x), with the gradient of that times gain.

    The forward pass of a step does not change, as both factors are positive.

    Args:
        step: any callable from membrane potential minus threshold to spikes.
        stretch: > 0; larger is steeper and narrower, with the area unchanged.
        gain: > 0; scales the gradient alone.

    Shape:
        Any floating-point tensor; the output has the shape and dtype of the step's.

    Example:
        >>> import torch
        >>> from htaf_snn.surrogate import ATan
        >>> x = torch.zeros(1, requires_grad=True)
        >>> Rescaled(ATan(alpha=2.0), stretch=3.0, gain=0.5)(x).backward()
        >>> x.grad
        tensor([1.5000])
    """

    def __init__(self, step: Callable[[Tensor], Tensor], stretch: float = 1.0, gain: float = 1.0):
        super().__init__()
        for name, value in (("stretch", stretch), ("gain", gain)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")
        self.step, self.stretch, self.gain = step, stretch, gain

    @property
    def levels(self) -> tuple[int, int]:
        """Those of the step."""
        return getattr(self.step, "levels", (0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.step(x if self.stretch == 1 else x * self.stretch)
        # The value of y, as what is added is 0, with its gradient times the gain.
        return y if self.gain == 1 else y.detach() + self.gain * (y - y.detach())


def rescaled(
    step: Callable[[Tensor], Tensor], reference: Callable[[Tensor], Tensor], match: str, slope: float = 1.0
) -> Rescaled:
    """Stretch a surrogate by a slope, and match it to a reference.

    The quantities are measured on the gradients by `htaf_snn.profile.measure`, in float64.

    Args:
        step: the surrogate.
        reference: what it is matched to, at slope 1.
        match: "none"; "peak", the largest magnitude of the gradient becomes the reference's, at every slope;
            "half_width", the full width at half maximum becomes the reference's divided by the slope; "area", the
            gradient's integral becomes the reference's.
        slope: > 0.

    Returns:
        The surrogate with the factors as its attributes `stretch` and `gain`.

    Raises:
        ValueError: if an argument is out of range, or the quantity is 0 or infinite for one of the two.

    Example:
        >>> from htaf_snn.surrogate import HTAF, ATan
        >>> found = rescaled(HTAF(alpha=2.0), ATan(alpha=2.0), "peak")
        >>> found.stretch, round(found.gain, 9)
        (1.0, 0.5)
    """
    if match not in MATCHES:
        raise ValueError(f"match: expected one of {', '.join(MATCHES)}, got {match!r}")
    if not 0 < slope < math.inf:
        raise ValueError(f"slope: expected a positive finite number, got {slope!r}")
    if match == "none":
        return Rescaled(step, stretch=slope)
    ours, theirs = profile.measure(step, "surrogate"), profile.measure(reference, "reference")
    if match == "half_width":
        return Rescaled(step, stretch=slope * _ratio("half width", ours.width, theirs.width))
    if match == "area":
        return Rescaled(step, stretch=slope, gain=_ratio("area", abs(theirs.total_mass), abs(ours.total_mass)))
    return Rescaled(step, stretch=slope, gain=_ratio("peak", theirs.peak, ours.peak * slope))


def _ratio(what: str, above: float, below: float) -> float:
    if not (0 < above < math.inf and 0 < below < math.inf):
        raise ValueError(
            f"match: expected surrogates of a positive finite {what}, got {above:.4g} and {below:.4g}; "
            "leave out the surrogate, or match another quantity"
        )
    return above / below
