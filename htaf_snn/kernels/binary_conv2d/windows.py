"""The words under each position of a convolution's window, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(
    words: Tensor, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> Tensor:
    """Return words (B, H, W, K) as (B, H', W', size[0] * size[1] * K); outside the image all bits are 0."""
    up, side = padding
    x = torch.nn.functional.pad(words, (0, 0, side, side, up, up)) if up or side else words
    for axis, (length, shift, spread) in enumerate(zip(size, stride, dilation, strict=True), 1):
        x = x.unfold(axis, (length - 1) * spread + 1, shift)[..., ::spread]
    return x.permute(0, 1, 2, 4, 5, 3).flatten(3)
