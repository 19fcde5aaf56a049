"""A product of packed bits with integer weights for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch

from ..numba_cpu import compiled, empty, inlined, lowest_bit, run

_ZERO, _ONE = np.uint64(0), np.uint64(1)
# Sums of this many outputs at a time stay in the L1 cache.
_BLOCK = 512


@inlined
def _add_rows(words, weight, first, sums):
    """Set sums to those of the outputs from `first`."""
    sums[:] = np.int32(0)
    for k in range(words.size):
        word = words[k]
        while word != _ZERO:
            row = weight[k * 64 + np.int64(lowest_bit(word)), first : first + sums.size]
            for j in range(sums.size):
                sums[j] += row[j]
            word &= word - _ONE


def _product_kernel(start, stop, words, weight, out):
    rows, outputs = out.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _BLOCK
        _add_rows(words[m], weight, first, out[m, first : min(first + _BLOCK, outputs)])


def _affine_kernel(start, stop, words, weight, factor, bias, out):
    rows, outputs = out.shape
    buffer = np.empty(_BLOCK, np.int32)
    for n in range(start, stop):
        m, first = n % rows, n // rows * _BLOCK
        last = min(first + _BLOCK, outputs)
        sums, row = buffer[: last - first], out[m, first:last]
        own_factor, own_bias = factor[first:last], bias[first:last]
        _add_rows(words[m], weight, first, sums)
        for j in range(sums.size):
            row[j] = np.float32(sums[j]) * own_factor[j] + own_bias[j]


def _run(kernel, words, weight, *arrays):
    run(
        compiled(kernel), words.shape[0] * -(-weight.shape[1] // _BLOCK), weight.shape[0] * _BLOCK // 16,
        words.contiguous().numpy().view(np.uint64), weight.contiguous().numpy(), *arrays,
    )  # fmt: skip


def product(words, weight):
    """Compute `reference.product`."""
    out = empty((words.shape[0], weight.shape[1]), torch.int32)
    _run(_product_kernel, words, weight, out.numpy())
    return out


def affine(words, weight, factor, bias):
    """Compute `reference.affine` of the product, without keeping the sums."""
    out = empty((words.shape[0], weight.shape[1]), torch.float32)
    _run(_affine_kernel, words, weight, factor.contiguous().numpy(), bias.contiguous().numpy(), out.numpy())
    return out
