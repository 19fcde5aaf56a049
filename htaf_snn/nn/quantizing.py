"""Quantization of images to 256 levels, and the check of their range, which float and packed networks share."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from .._checks import check_floating, is_readable

INPUT_STEP = 2.0**-8
# A quarter of a level: resampled images overshoot by a few units in the last place.
_SLACK = 0.25 / 255
_RANGE = "x: expected values within [0, 1]"
_REMEDY = "scale the images to [0, 1], or start with a real layer such as nn.Linear, as DeepHeavisideNet does"


def check_unit_range(x: Tensor) -> None:
    """Raise ValueError unless all of x lies within [0, 1], give or take a quarter of a level.

    Where the values cannot be read, as under a compiler or in a CUDA graph, the check becomes an assertion in the
    graph, which fails with a RuntimeError.
    """
    bounds = None if isinstance(x, fx.Proxy) else _bounds(x.detach())
    if bounds is None:
        torch._assert_async(((x >= -_SLACK) & (x <= 1 + _SLACK)).all(), f"{_RANGE}; {_REMEDY}")
    elif not (bounds[0] >= -_SLACK and bounds[1] <= 1 + _SLACK):
        raise ValueError(f"{_RANGE}, got {bounds[0]} to {bounds[1]}; {_REMEDY}")


def _bounds(x: Tensor) -> tuple[float, float] | None:
    """Return the least and the greatest value; None if they are only symbols."""
    if not is_readable(x) or torch.jit.is_tracing():
        return None
    while torch._C._functorch.is_functorch_wrapped_tensor(x):  # under vmap a value cannot become a Python float
        x = torch._C._functorch.get_unwrapped(x)
    if x.is_meta or not x.numel():
        return 0.0, 1.0
    try:
        low, high = torch.stack(x.aminmax()).tolist()
        return low, high
    except RuntimeError:  # from fake tensors and tracers
        return None


class QuantizeInput(nn.Module):
    """Rounding of images within [0, 1] to 256 levels, n / 256 with n = round(255 x), whose sums are exact in float32.

    It precedes the first layer of a binary network, whose packed form then counts the bits of eight planes. Images
    outside [0, 1] are refused, in training too, as in the packed form.

    Shape:
        Any floating-point tensor within [0, 1]; the output has its shape and dtype. The gradient is the identity's.

    Raises:
        TypeError: in the forward pass, if x is not floating-point.
        ValueError: in the forward pass, if a value is NaN or outside [0, 1] by more than a quarter of a level. Under
            `torch.compile` and in a program of `torch.export` an assertion fails with a RuntimeError instead. An ONNX
            file does not check, it clamps.

    Example:
        >>> import torch
        >>> QuantizeInput()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 0.5000, 0.9961])
    """

    def forward(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        check_unit_range(x)
        # The difference is exactly 0; it carries the gradient.
        return self.levels_of(x).to(x.dtype) * INPUT_STEP + (x - x.detach())

    @staticmethod
    def levels_of(x: Tensor) -> Tensor:
        """Return the numbers n, uint8, in the shape of x; values outside [0, 1] are clamped."""
        return torch.round(x.clamp(0, 1) * 255).to(torch.uint8)
