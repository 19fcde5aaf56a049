"""A surrogate stretched along its argument, and its gradient multiplied."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from .base import Foreign, Surrogate
from .specifications import WRAPPERS, resolve


class Rescaled(Foreign):
    """A surrogate with another slope and height: surrogate(stretch * x), its gradient multiplied by gain.

    Both factors are positive, so spikes are unchanged, and so is the hardness. Its specification is
    "rescaled(function='htaf', stretch=0.5, gain=2)".

    Args:
        function: the surrogate, in any form, see `resolve`.
        stretch: > 0; a larger one makes it steeper and narrower, with the same area.
        gain: > 0; scales the gradient only.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, requires_grad=True)
        >>> Rescaled("atan(alpha=2)", stretch=3.0, gain=0.5)(x).backward()
        >>> x.grad
        tensor([1.5000])
    """

    function: Surrogate
    stretch: float = 1.0
    gain: float = 1.0

    def __post_init__(self):
        self.function = resolve(self.function)
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


WRAPPERS["rescaled"] = Rescaled
