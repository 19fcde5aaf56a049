"""The product of bits with integer weights as a torch operator, without a gradient: bits are for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _dispatch
from .._operator import operator
from . import reference


@operator
def heaviside_product(words: Tensor, weight: Tensor, backend: str) -> Tensor:
    """Compute `reference.product`."""
    if backend == "torch":
        return reference.product(words, weight)
    return _dispatch.load(backend, __package__).product(words, weight)


@torch.library.register_fake(heaviside_product)
def _(words, weight, backend):
    return words.new_empty(words.shape[0], weight.shape[1], dtype=torch.int32)


@operator
def heaviside_affine(words: Tensor, weight: Tensor, factor: Tensor, bias: Tensor, backend: str) -> Tensor:
    """Compute `reference.affine` of the product."""
    if backend == "numba":
        return _dispatch.load(backend, __package__).affine(words, weight, factor, bias)
    return reference.affine(heaviside_product(words, weight, backend), factor, bias)


@torch.library.register_fake(heaviside_affine)
def _(words, weight, factor, bias, backend):
    return words.new_empty(words.shape[0], weight.shape[1], dtype=torch.float32)
