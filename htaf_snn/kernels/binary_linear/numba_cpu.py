"""The operations on packed bits for the CPU, compiled by Numba."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..numba_cpu import compiled, empty, inlined, run
from ..vectors import numba_cpu as vectors

_ZERO, _ONE, _WORD, _PLANES = np.uint64(0), np.uint64(1), 64, 8
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


count, count_32, count_16 = (vectors.counting(outputs, 1) for outputs in (_WORD, 32, 16))
count_levels = vectors.counting(_WORD, _PLANES)


def _product_kernel(start, stop, words, weight, offset, factor, out):
    values = np.empty(_WORD, np.int32)
    (rows, outputs), (size, stride) = out.shape, weight.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        count(words[m], 0, 1, size, 0, weight.reshape(-1), first, stride, offset, first, -factor, values)
        for j in range(min(_WORD, outputs - first)):
            out[m, first + j] = values[j]


def _product_bits_kernel(start, stop, words, weight, offset, factor, thresholds, out):
    values = np.empty(_WORD, np.int32)
    rows, (size, stride) = out.shape[0], weight.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        count(words[m], 0, 1, size, 0, weight.reshape(-1), first, stride, offset, first, -factor, values)
        out[m, n // rows] = vectors.above(values, 0, thresholds, first)


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
            planes[m, p, k] = plane_word(eights[m], k, p)


def _levels_kernel(start, stop, planes, weight, offset, out):
    values = np.empty(_WORD, np.int32)
    (rows, outputs), (size, stride) = out.shape, weight.shape
    for n in range(start, stop):
        m, first = n % rows, n // rows * _WORD
        row = planes[m].reshape(-1)
        count_levels(row, 0, 1, size, 0, weight.reshape(-1), first, stride, offset, first, np.int32(-1), values)
        for j in range(min(_WORD, outputs - first)):
            out[m, first + j] = values[j]


def _words(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().view(np.uint64)


def _padded(values: Tensor, beyond: int = 0) -> np.ndarray:
    """Return numbers of outputs as the kernels read them, 64 at a time."""
    return np.pad(values.numpy(), (0, -len(values) % _WORD), constant_values=beyond)


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
        _padded(offset), np.int32(factor), out.numpy(),
    )  # fmt: skip
    return out


def product_bits(words, weight, offset, factor, thresholds):
    """Compute `reference.product_bits`; the weight is `transposed`."""
    blocks = -(-len(offset) // _WORD)
    out = torch.empty(words.shape[0], blocks, dtype=torch.int64)
    run(
        compiled(_product_bits_kernel), out.numel(), words.shape[1] * _WORD, _words(words), _words(weight),
        _padded(offset), np.int32(factor), _padded(thresholds, np.iinfo(np.int32).max), out.numpy().view(np.uint64),
    )  # fmt: skip
    return out


def level_product(levels, weight, ones):
    """Compute `reference.level_product`; the weight is `transposed`."""
    rows, words, outputs = levels.shape[0], weight.shape[0], len(ones)
    padded = torch.nn.functional.pad(levels, (0, words * _WORD - levels.shape[1]))
    planes = torch.empty(rows, _PLANES, words, dtype=torch.int64)
    run(compiled(_planes_kernel), rows * words, _WORD * _PLANES, _words(padded), _words(planes))
    out = empty((rows, outputs), torch.int32)
    run(
        compiled(_levels_kernel), rows * -(-outputs // _WORD), words * _WORD * _PLANES, _words(planes), _words(weight),
        255 * _padded(ones), out.numpy(),  # a level is the sum of the values of its bits, and 255 that of all eight
    )  # fmt: skip
    return out
