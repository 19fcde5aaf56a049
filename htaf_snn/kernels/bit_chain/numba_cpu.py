"""Linear layers on bits, one sample through all of them, for the CPU; compiled by Numba.

What the layers compute is defined by the steps of `deploy.steps` one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..binary_linear.numba_cpu import _ONE, _PLANES, _WORD, _ZERO, count, count_levels, plane_word
from ..numba_cpu import compiled, lowest_bit, run

LEVELS, SIGNS, INTEGERS = 0, 1, 2
"""Kinds of layers: weights of -1 and +1 for an image's levels, the same for bits, and integer weights for bits."""


class Layers(NamedTuple):
    """The layers of a chain, their arrays one after another.

    Attributes:
        table: int64 (layers, 6): kind, words of input, outputs, start in `words` or `rows`, start in `offset`, factor.
        words: uint64, of each layer of signs (K, 64 * blocks), as `binary_linear` takes them.
        rows: int32, of each layer of integers (n, 64 * blocks).
        offset: int32, of each layer (64 * blocks,); a sum is offset - factor * count, or offset + factor * sum.
        thresholds: int32, of each layer (64 * blocks,), with the greatest int32 beyond its outputs.
        scale, bias: float32 (outputs,) of the last layer, if its results are floats.
        to_floats: whether they are.
    """

    table: np.ndarray
    words: np.ndarray
    rows: np.ndarray
    offset: np.ndarray
    thresholds: np.ndarray
    scale: np.ndarray
    bias: np.ndarray
    to_floats: bool


def _chain_kernel(
    start, stop, image, bits, low, width, least, greatest, table, words, rows, offset, thresholds, scale, bias,
    to_floats, is_outside, out_bits, out,
):  # fmt: skip
    longest = max(table[:, 1].max(), (table[:, 2].max() + _WORD - 1) // _WORD)
    current, following = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    levels = np.zeros(table[0, 1] * _WORD, np.uint8)
    planes = np.empty((_PLANES, table[0, 1]), np.uint64)
    counts, sums, values = np.empty(_WORD, np.uint64), np.empty(_WORD, np.int32), np.empty(_WORD, np.int32)
    last = table.shape[0] - 1
    for m in range(start, stop):
        for layer in range(last + 1):
            kind, size, outputs, first_weight, first, factor = table[layer]
            blocks = (outputs + _WORD - 1) // _WORD
            if kind == LEVELS:
                row, inside = image[m], True
                for i in range(row.size):
                    inside &= (least <= row[i]) & (row[i] <= greatest)
                if not inside:
                    is_outside[0] = True
                    break
                for i in range(row.size):
                    unit = min(max((row[i] - low) / width, np.float32(0.0)), np.float32(1.0))
                    levels[i] = np.uint8(np.int32(np.rint(unit * np.float32(255.0))))
                eights = levels.view(np.uint64)
                for k in range(size):
                    for p in range(_PLANES):
                        planes[p, k] = plane_word(eights, k, p)
            elif layer == 0:
                for k in range(size):
                    current[k] = bits[m, k]
            for block in range(blocks):
                begin = block * _WORD
                own_offset = offset[first + begin : first + begin + _WORD]
                if kind == INTEGERS:
                    sums[:] = np.int32(0)
                    for k in range(size):
                        word = current[k]
                        while word != _ZERO:
                            at = first_weight + (k * _WORD + np.int64(lowest_bit(word))) * blocks * _WORD + begin
                            row = rows[at : at + _WORD]
                            for j in range(_WORD):
                                sums[j] += row[j]
                            word &= word - _ONE
                    for j in range(_WORD):
                        values[j] = own_offset[j] + np.int32(factor) * sums[j]
                else:
                    weight = words[first_weight : first_weight + size * blocks * _WORD].reshape(size, blocks * _WORD)
                    if kind == LEVELS:
                        count_levels(planes, weight, begin, counts)
                    else:
                        count(current[:size], weight, begin, counts)
                    for j in range(_WORD):
                        values[j] = own_offset[j] - np.int32(factor) * np.int32(counts[j])
                if layer == last and to_floats:
                    for j in range(min(_WORD, outputs - begin)):
                        out[m, begin + j] = np.float32(values[j]) * scale[begin + j] + bias[begin + j]
                else:
                    word = _ZERO
                    own = thresholds[first + begin : first + begin + _WORD]
                    for j in range(_WORD):
                        word |= np.uint64(values[j] > own[j]) << np.uint64(j)
                    following[block] = word
                    if layer == last:
                        out_bits[m, block] = word
            current, following = following, current


def chain(
    image: np.ndarray, bits: np.ndarray, layers: Layers, bounds: tuple[float, float, float, float]
) -> tuple[np.ndarray, bool]:
    """Run samples through all layers.

    Args:
        image: float32 (B, n), for a first layer of levels; otherwise (B, 0).
        bits: uint64 (B, K), for another first layer; otherwise (B, 0).
        layers: at least one.
        bounds: the range of an image, low and high, and the least and greatest value that are not outside it.

    Returns:
        float32 (B, outputs) or uint64 (B, ceil(outputs / 64)), and whether a value of an image was outside.
    """
    samples, outputs = len(image), int(layers.table[-1, 2])
    out = np.empty((samples, outputs if layers.to_floats else 0), np.float32)
    out_bits = np.empty((samples, 0 if layers.to_floats else -(-outputs // _WORD)), np.uint64)
    is_outside = np.zeros(1, np.bool_)
    low, high, least, greatest = bounds
    # The outermost float32 that lie within, so that the kernel need not compare in float64.
    inner = [np.float32(least), np.float32(greatest)]
    inner[0] = inner[0] if inner[0] >= least else np.nextafter(inner[0], np.float32(np.inf))
    inner[1] = inner[1] if inner[1] <= greatest else np.nextafter(inner[1], np.float32(-np.inf))
    run(
        compiled(_chain_kernel), samples, work(layers), image, bits, np.float32(low), np.float32(high - low), *inner,
        *layers[:-1], layers.to_floats, is_outside, out_bits, out,
    )  # fmt: skip
    return out if layers.to_floats else out_bits, bool(is_outside[0])


def work(layers: Layers) -> int:
    """Return about how many operations on words a sample takes."""
    return int(layers.words.size + layers.rows.size // 32 + (layers.table[:, 0] == LEVELS) @ layers.table[:, 1] * 64)
