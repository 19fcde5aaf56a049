"""The operations on packed bits for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..numba_cpu import compiled, empty, inlined, popcount, run

_ZERO, _ONE, _WORD, _PLANES = np.uint64(0), np.uint64(1), 64, 8
_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
# The lowest bit of each of eight bytes, and the factor that gathers them in the highest byte.
_LOWEST, _GATHER, _HIGHEST = np.uint64(0x0101010101010101), np.uint64(0x0102040810204080), np.uint64(56)


def _pack_kernel(start, stop, x, out):
    words, size = out.shape[1], x.shape[1]
    for n in range(start, stop):
        row, first = x[n // words], n % words * _WORD
        word = _ZERO
        for k in range(min(_WORD, size - first)):
            word |= np.uint64(row[first + k] > 0) << np.uint64(k)
        out[n // words, n % words] = word


def _pack_channels_kernel(start, stop, x, out):
    words, size = out.shape[2], x.shape[1]
    for n in range(start, stop):
        m, k = n // words, n % words
        column = out[m, :, k]
        column[:] = _ZERO
        for c in range(min(_WORD, size - k * _WORD)):
            row = x[m, k * _WORD + c]
            for i in range(row.size):
                column[i] |= np.uint64(row[i] > 0) << np.uint64(c)


@inlined
def count(a, weight, first, counts):
    """Count the bits that differ between a row and 64 outputs, whose words lie side by side."""
    counts[:] = _ZERO
    for k in range(a.size):
        word, column = a[k], weight[k, first : first + _WORD]
        for j in range(_WORD):
            counts[j] += popcount(word ^ column[j])


@inlined
def count_levels(planes, weight, first, counts):
    """Count the bits that differ between the planes (8, K) of a row's levels and 64 outputs, plane p times 2**p."""
    counts[:] = _ZERO
    for k in range(planes.shape[1]):
        a, b, c, d = planes[0, k], planes[1, k], planes[2, k], planes[3, k]
        e, f, g, h = planes[4, k], planes[5, k], planes[6, k], planes[7, k]
        column = weight[k, first : first + _WORD]
        for j in range(_WORD):
            w = column[j]
            low = popcount(a ^ w) + (popcount(b ^ w) << _1) + (popcount(c ^ w) << _2) + (popcount(d ^ w) << _3)
            high = popcount(e ^ w) + (popcount(f ^ w) << _1) + (popcount(g ^ w) << _2) + (popcount(h ^ w) << _3)
            counts[j] += low + (high << _4)


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


@inlined
def plane_word(eights, k, p):
    """Return the bits p of 64 levels, those of the k-th eight words of eight bytes."""
    word = _ZERO
    for i in range(8):
        bits = (eights[8 * k + i] >> np.uint64(p)) & _LOWEST
        word |= ((bits * _GATHER) >> _HIGHEST) << np.uint64(8 * i)
    return word


def _planes_kernel(start, stop, eights, planes):
    """Gather bit p of 64 levels, which are 8 words of 8 bytes, into a word of plane p."""
    words = planes.shape[2]
    for n in range(start, stop):
        m, k = n // words, n % words
        for p in range(_PLANES):
            planes[p, m, k] = plane_word(eights[m], k, p)


def _levels_kernel(start, stop, planes, weight, ones, out):
    counts = np.empty(_WORD, np.uint64)
    rows, outputs = out.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        count_levels(planes[:, m], weight, first, counts)
        for j in range(min(_WORD, outputs - first)):
            # A level is the sum of the values of its bits, and 255 is the sum of all eight.
            out[m, first + j] = 255 * ones[first + j] - np.int32(counts[j])


def _words(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().view(np.uint64)


def pack(x: Tensor) -> Tensor:
    """Compute `reference.pack`."""
    if x.ndim == 4 and x.numel() and x.dtype == torch.float32 and x.movedim(-1, 1).is_contiguous():
        return _pack_channels(x.detach().movedim(-1, 1))
    rows = x.detach().contiguous().reshape(-1, x.shape[-1]) if x.shape[-1] else x.new_empty(0, 0)
    out = torch.empty(rows.shape[0], -(-x.shape[-1] // _WORD), dtype=torch.int64)
    if rows.dtype in (torch.bfloat16, torch.float16):
        rows = rows.float()
    run(compiled(_pack_kernel), out.numel(), _WORD, rows.numpy(), out.numpy().view(np.uint64))
    return out.view(*x.shape[:-1], -(-x.shape[-1] // _WORD))


def _pack_channels(x: Tensor) -> Tensor:
    """Pack contiguous (B, C, H, W) along the channels, without moving them, to (B, H, W, K)."""
    batch, channels, height, width = x.shape
    words = -(-channels // _WORD)
    out = torch.empty(batch, height, width, words, dtype=torch.int64)
    run(
        compiled(_pack_channels_kernel), batch * words, height * width * min(channels, _WORD),
        x.flatten(2).numpy(), out.flatten(1, 2).numpy().view(np.uint64),
    )  # fmt: skip
    return out


def product(words, weight, offset, factor):
    """Compute `reference.product`; the weight is `transposed`."""
    out = empty((words.shape[0], len(offset)), torch.int32)
    blocks = -(-len(offset) // _WORD)
    run(
        compiled(_product_kernel), words.shape[0] * blocks, words.shape[1] * _WORD, _words(words), _words(weight),
        offset.numpy(), np.int32(factor), out.numpy(),
    )  # fmt: skip
    return out


def product_bits(words, weight, offset, factor, thresholds):
    """Compute `reference.product_bits`; the weight is `transposed`."""
    blocks = -(-len(offset) // _WORD)
    out = torch.empty(words.shape[0], blocks, dtype=torch.int64)
    run(
        compiled(_product_bits_kernel), out.numel(), words.shape[1] * _WORD, _words(words), _words(weight),
        offset.numpy(), np.int32(factor), thresholds.numpy(), out.numpy().view(np.uint64),
    )  # fmt: skip
    return out


def level_product(levels, weight, ones):
    """Compute `reference.level_product`; the weight is `transposed`."""
    rows, words, outputs = levels.shape[0], weight.shape[0], len(ones)
    padded = torch.nn.functional.pad(levels, (0, words * _WORD - levels.shape[1]))
    planes = torch.empty(_PLANES, rows, words, dtype=torch.int64)
    run(compiled(_planes_kernel), rows * words, _WORD * _PLANES, _words(padded), _words(planes))
    out = empty((rows, outputs), torch.int32)
    run(
        compiled(_levels_kernel), rows * -(-outputs // _WORD), words * _WORD * _PLANES, _words(planes), _words(weight),
        ones.numpy(), out.numpy(),
    )  # fmt: skip
    return out
