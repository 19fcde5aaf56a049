"""A product of packed bits with integer weights for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch

from ..numba_cpu import compiled, empty, lowest_bit, run

_ZERO, _ONE = np.uint64(0), np.uint64(1)
# Sums of this many outputs at a time stay in the L1 cache.
_BLOCK = 512


def _product_kernel(start, stop, words, weight, out):
    rows, outputs = out.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _BLOCK
        sums = out[m, first : min(first + _BLOCK, outputs)]
        sums[:] = np.int32(0)
        for k in range(words.shape[1]):
            word = words[m, k]
            while word != _ZERO:
                row = weight[k * 64 + np.int64(lowest_bit(word)), first : first + sums.size]
                for j in range(sums.size):
                    sums[j] += row[j]
                word &= word - _ONE


def product(words, weight):
    """Compute `reference.product`."""
    out = empty((words.shape[0], weight.shape[1]), torch.int32)
    run(
        compiled(_product_kernel), words.shape[0] * -(-weight.shape[1] // _BLOCK), weight.shape[0] * _BLOCK // 16,
        words.contiguous().numpy().view(np.uint64), weight.contiguous().numpy(), out.numpy(),
    )  # fmt: skip
    return out
