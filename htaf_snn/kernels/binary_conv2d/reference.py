"""The definition of a convolution of packed bits with binary weights, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ..binary_linear.reference import unpack


def product(bits: Tensor, channels: int, weight: Tensor, levels: tuple[int, int], **options) -> Tensor:
    """Return the sums, int32 (B, H', W', O), of bits with the values `levels` times weights -1 or +1.

    `bits` has the shape (B, H, W, ceil(C / 64)), `weight` (O, C / groups, kH, kW). Padding adds zeros, whatever the
    levels are.
    """
    x = unpack(bits, channels).movedim(-1, 1) * (levels[1] - levels[0]) + levels[0]
    return conv2d(x.double(), weight.double(), **options).movedim(1, -1).to(torch.int32).contiguous()
