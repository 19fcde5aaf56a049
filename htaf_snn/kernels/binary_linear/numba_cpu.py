"""The operations on packed bits for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..numba_cpu import compiled, empty, inlined, popcount, run

__all__ = ["pack", "product", "product_bits"]

_ZERO, _ONE, _WORD = np.uint64(0), np.uint64(1), 64


def _pack_kernel(start, stop, x, out):
    words, size = out.shape[1], x.shape[1]
    for n in range(start, stop):
        row, first = x[n // words], n % words * _WORD
        word = _ZERO
        for k in range(min(_WORD, size - first)):
            word |= np.uint64(row[first + k] > 0) << np.uint64(k)
        out[n // words, n % words] = word


@inlined
def count(a, weight, first, counts):
    """Bits that differ between one row and 64 outputs, whose words lie side by side."""
    counts[:] = _ZERO
    for k in range(a.size):
        word, column = a[k], weight[k, first : first + _WORD]
        for j in range(_WORD):
            counts[j] += popcount(word ^ column[j])


def _product_kernel(start, stop, words, weight, offset, factor, out):
    counts = np.empty(_WORD, np.uint64)
    rows, outputs = out.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        count(words[m], weight, first, counts)
        for j in range(min(_WORD, outputs - first)):
            out[m, first + j] = offset[first + j] - factor * np.int32(counts[j])


def _product_bits_kernel(start, stop, words, weight, offset, factor, thresholds, out):
    counts = np.empty(_WORD, np.uint64)
    rows, outputs = out.shape[0], offset.size
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        count(words[m], weight, first, counts)
        word = _ZERO
        for j in range(min(_WORD, outputs - first)):
            value = offset[first + j] - factor * np.int32(counts[j])
            word |= np.uint64(value > thresholds[first + j]) << np.uint64(j)
        out[m, n // rows] = word


def _words(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().view(np.uint64)


def pack(x: Tensor) -> Tensor:
    """See `reference.pack`."""
    rows = x.detach().contiguous().reshape(-1, x.shape[-1]) if x.shape[-1] else x.new_empty(0, 0)
    out = torch.empty(rows.shape[0], -(-x.shape[-1] // _WORD), dtype=torch.int64)
    if rows.dtype in (torch.bfloat16, torch.float16):
        rows = rows.float()
    run(compiled(_pack_kernel), out.numel(), _WORD, rows.numpy(), out.numpy().view(np.uint64))
    return out.view(*x.shape[:-1], -(-x.shape[-1] // _WORD))


def product(words, weight, offset, factor):
    """See `reference.product`; the weight is `transposed`."""
    out = empty((words.shape[0], len(offset)), torch.int32)
    blocks = -(-len(offset) // _WORD)
    run(
        compiled(_product_kernel), words.shape[0] * blocks, words.shape[1] * _WORD, _words(words), _words(weight),
        offset.numpy(), np.int32(factor), out.numpy(),
    )  # fmt: skip
    return out


def product_bits(words, weight, offset, factor, thresholds):
    """See `reference.product_bits`; the weight is `transposed`."""
    blocks = -(-len(offset) // _WORD)
    out = torch.empty(words.shape[0], blocks, dtype=torch.int64)
    run(
        compiled(_product_bits_kernel), out.numel(), words.shape[1] * _WORD, _words(words), _words(weight),
        offset.numpy(), np.int32(factor), thresholds.numpy(), out.numpy().view(np.uint64),
    )  # fmt: skip
    return out
