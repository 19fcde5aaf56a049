"""The operations on packed bits as torch operators, without gradients: bits are for inference."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from .. import _dispatch
from .._operator import operator
from . import reference


def transposed(weight: Tensor) -> Tensor:
    """Return weight words (O, K) as (K, 64 * ceil(O / 64)): those that meet one input word lie side by side."""
    return torch.nn.functional.pad(weight.T, (0, -weight.shape[0] % reference.WORD)).contiguous()


def _kernels(backend: str) -> ModuleType:
    return _dispatch.load(backend, __package__)


@operator
def pack_bits(x: Tensor, backend: str) -> Tensor:
    """Compute `reference.pack`."""
    return reference.pack(x) if backend == "torch" else _kernels(backend).pack(x)


@torch.library.register_fake(pack_bits)
def _(x, backend):
    return x.new_empty(*x.shape[:-1], -(-x.shape[-1] // reference.WORD), dtype=torch.int64)


@operator
def product(words: Tensor, weight: Tensor, offset: Tensor, factor: int, backend: str) -> Tensor:
    """Compute `reference.product` for a weight that is `transposed`."""
    if backend == "torch":
        return reference.product(words, weight.T[: len(offset)], offset, factor)
    return _kernels(backend).product(words, weight, offset, factor)


@torch.library.register_fake(product)
def _(words, weight, offset, factor, backend):
    return words.new_empty(words.shape[0], len(offset), dtype=torch.int32)


@operator
def product_bits(
    words: Tensor, weight: Tensor, offset: Tensor, factor: int, thresholds: Tensor, backend: str
) -> Tensor:
    """Compute `reference.product_bits` for a weight that is `transposed`."""
    if backend == "torch":
        return reference.product_bits(words, weight.T[: len(offset)], offset, factor, thresholds)
    return _kernels(backend).product_bits(words, weight, offset, factor, thresholds)


@torch.library.register_fake(product_bits)
def _(words, weight, offset, factor, thresholds, backend):
    return words.new_empty(words.shape[0], -(-len(offset) // reference.WORD))


@operator
def level_product(levels: Tensor, weight: Tensor, ones: Tensor, backend: str) -> Tensor:
    """Compute `reference.level_product` for a weight that is `transposed` and has `ones` weights +1 per output."""
    if backend == "torch":
        return reference.level_product(levels, weight.T[: len(ones)])
    return _kernels(backend).level_product(levels, weight, ones)


@torch.library.register_fake(level_product)
def _(levels, weight, ones, backend):
    return levels.new_empty(levels.shape[0], len(ones), dtype=torch.int32)
