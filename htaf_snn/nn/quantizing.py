"""Quantization of images to 256 levels, and the check of their range, which float and packed networks share."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, fx, nn

from .._checks import check_floating, is_readable

INPUT_STEP = 2.0**-8
# A quarter of a level: resampled images overshoot by a few units in the last place.
_SLACK = 0.25 / 255
_REMEDY = (
    "scale the images to it, give QuantizeInput their range, or start with a real layer such as nn.Linear, as "
    "DeepHeavisideNet does"
)


def check_range(x: Tensor, low: float, high: float, text: str) -> None:
    """Raise ValueError unless all of x lies within [low, high], give or take a quarter of a level.

    Where the values cannot be read, as under a compiler or in a CUDA graph, the check becomes an assertion in the
    graph, which fails with a RuntimeError. The range's text is given, as compilers do not format numbers.
    """
    message, (least, greatest) = f"x: expected values within {text}", within(low, high)
    bounds = None if isinstance(x, fx.Proxy) else _bounds(x.detach(), low, high)
    if bounds is None:
        torch._assert_async(((x >= least) & (x <= greatest)).all(), f"{message}; {_REMEDY}")
    elif not (bounds[0] >= least and bounds[1] <= greatest):
        if any(map(math.isnan, bounds)):
            raise ValueError(f"{message}, got NaN")
        is_of_bytes = (low, high) == (0, 1) and bounds[0] >= 0 and 2 <= bounds[1] <= 255
        remedy = f"{_REMEDY}; for 8-bit images write x / 255" if is_of_bytes else _REMEDY
        raise ValueError(f"{message}, got {bounds[0]} to {bounds[1]}; {remedy}")


def within(low: float, high: float) -> tuple[float, float]:
    """Return the least and the greatest value that count as within a range."""
    slack = _SLACK * (high - low)
    return low - slack, high + slack


def _bounds(x: Tensor, low: float, high: float) -> tuple[float, float] | None:
    """Return the least and the greatest value; None if they are only symbols."""
    if not is_readable(x) or torch.jit.is_tracing():
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(x):  # under vmap a value cannot become a Python float
        x = torch._C._functorch.get_unwrapped(x)
    if x.is_meta or not x.numel():
        return low, high
    try:
        least, greatest = torch.stack(x.aminmax()).tolist()
        return least, greatest
    except RuntimeError:  # from fake tensors and tracers
        return None


class QuantizeInput(nn.Module):
    """Rounding of images to 256 levels, n / 256 with n = round(255 (x - low) / (high - low)), whose sums are exact.

    It precedes the first layer of a binary network, whose packed form then counts the bits of eight planes. Images
    outside the range are refused, in training too, as in the packed form.

    Args:
        low, high: the range of the images, finite, low < high; `of_data` finds it.

    Shape:
        Any floating-point tensor within [low, high]; the output has its shape and dtype. The gradient is that of
        (x - low) / (high - low).

    Raises:
        ValueError: if the range is empty or not finite.
        TypeError: in the forward pass, if x is not floating-point.
        ValueError: in the forward pass, if a value is NaN or outside the range by more than a quarter of a level. Under
            `torch.compile` and in a program of `torch.export` an assertion fails with a RuntimeError instead. An ONNX
            file does not check, it clamps.

    Example:
        >>> import torch
        >>> QuantizeInput()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 0.5000, 0.9961])
        >>> QuantizeInput(-3.0, 3.0)(torch.tensor([-3.0, 0.0, 3.0]))
        tensor([0.0000, 0.5000, 0.9961])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0):
        super().__init__()
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"input_range: expected finite low < high, got {low!r} and {high!r}")
        self.low, self.high = float(low), float(high)
        self.text = f"[{low:g}, {high:g}]"

    @classmethod
    def of_data(cls, loader: Iterable) -> QuantizeInput:
        """Return a layer for the range of a loader's images, from the least value to the greatest.

        Args:
            loader: batches of (images, labels).

        Raises:
            ValueError: if all values are equal, or there are none.

        Example:
            >>> import torch
            >>> QuantizeInput.of_data([(torch.tensor([[-1.0, 2.0]]), torch.tensor([0]))])
            QuantizeInput(low=-1, high=2)
        """
        bounds = [batch[0].aminmax() for batch in loader]
        if not bounds:
            raise ValueError("loader: expected at least one batch, got none")
        return cls(min(one.min.item() for one in bounds), max(one.max.item() for one in bounds))

    def forward(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        check_range(x, self.low, self.high, self.text)
        unit = self._unit(x)
        # The difference is exactly 0; it carries the gradient.
        return self.levels_of(x).to(x.dtype) * INPUT_STEP + (unit - unit.detach())

    def levels_of(self, x: Tensor) -> Tensor:
        """Return the numbers n, uint8, in the shape of x; values outside the range are clamped."""
        return self.rounded(x).to(torch.uint8)

    def rounded(self, x: Tensor) -> Tensor:
        """Return the numbers n in the dtype of x; values outside the range are clamped."""
        # Two `clamp` of one value become an invalid ONNX file: the exporter gives their bounds the same names.
        return torch.round(nn.functional.hardtanh(self._unit(x), 0.0, 1.0) * 255)

    def _unit(self, x: Tensor) -> Tensor:
        return x if (self.low, self.high) == (0.0, 1.0) else (x - self.low) / (self.high - self.low)

    def extra_repr(self) -> str:
        return "" if (self.low, self.high) == (0.0, 1.0) else f"low={self.low:g}, high={self.high:g}"
