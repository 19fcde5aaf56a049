"""The definition of a product of packed bits with integer weights, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..binary_linear.reference import unpack


def product(words: Tensor, weight: Tensor) -> Tensor:
    """Return the sums, int32 (M, O), of the rows of weight, integers (N, O), whose bits in words are set."""
    return (unpack(words, weight.shape[0]).double() @ weight.double()).to(torch.int32)


def affine(sums: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    """Return the sums of `product`, as float32, times a factor (O,) plus a bias (O,)."""
    return sums.float() * factor + bias
