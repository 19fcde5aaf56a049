"""Steps of a packed network on one sample after another, for the CPU; compiled by Numba.

What a step computes is defined in `deploy.steps`. Between the steps, images lie with the channels last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..binary_linear.numba_cpu import (
    _ONE,
    _PLANES,
    _WORD,
    _ZERO,
    count,
    count_16,
    count_32,
    count_levels,
    plane_word,
)
from ..numba_cpu import compiled, run, uncounted
from ..vectors import numba_cpu as vectors

QUANTIZE, LOAD, LOAD_BITS, STORE, STORE_BITS, PRODUCT, POOL, ADD, TO_FLOATS, PRELU, THRESHOLD, FLATTEN = range(12)
"""Kinds of operations."""
SIGNS, INTEGERS, LEVELS, PLANES = range(4)
"""Kinds of products: weights of -1 and +1 for bits, integer weights for bits, weights of -1 and +1 for levels one by
one, without dilation of columns, and for eight planes of levels, slower to prepare and faster to multiply."""
TO_BITS, SCALED, LOOKED_UP = range(3)
"""What a product's sums become: bits by thresholds, floats by a factor and a bias, or floats from a table."""

OPERATION = np.dtype([
    (name, np.int64) for name in (
        "kind", "source", "other", "out",  # where values begin, in the memory of their type
        "rows", "columns", "channels", "words", "out_rows", "out_columns", "outputs", "out_words",  # of the values
        "window_rows", "window_columns", "down", "right", "up", "left", "spread_rows", "spread_columns", "groups",
        "product", "result", "weight", "offset", "thresholds", "outside", "factor", "reach", "numbers",
    )
])  # fmt: skip
"""An operation: its kind, its values and their sizes, a window with its stride (down, right), padding (up, left) and
dilation (spread), and where a product's parameters begin in the arrays of `Program`."""


class Program(NamedTuple):
    """Operations, and their parameters one after another.

    Attributes:
        operations: of the type `OPERATION`.
        words: uint64; of each product with signs and each of its groups (K, 64 * blocks), as `binary_linear` takes it;
            unless the input is levels, each row of a convolution's window begins with a new word.
        integers: int32; of each product and group integer weights (n, 64 * blocks), if it has any, and (64 * blocks,)
            offsets, thresholds, with the greatest int32 beyond the outputs, and sums at each tap (taps, 64 * blocks).
        numbers: float32; factors and biases, tables, shifts, slopes, and the bounds of images.
        sizes: of the memory for floats, words and levels, the longest patch in words, the most taps of a
            window, and the longest strip and the longest runs in words.
        work: about how many operations on words a sample takes.
    """

    operations: np.ndarray
    words: np.ndarray
    integers: np.ndarray
    numbers: np.ndarray
    sizes: tuple[int, int, int, int, int, int, int]
    work: int


@uncounted
def _put(words, first, position, word, size):
    """Set the bits of a word, at most 64, from a position in a row of words that are still 0 there."""
    at, shift = first + (position >> 6), np.uint64(position & 63)
    words[at] |= word << shift
    if shift and np.int64(shift) + size > _WORD:
        words[at + 1] |= word >> (np.uint64(_WORD) - shift)


@uncounted
def _copy_bits(source, first, begin, size, out, out_first, position):
    """Copy bits from one row of words to another."""
    for done in range(0, size, _WORD):
        at, shift = first + ((begin + done) >> 6), np.uint64((begin + done) & 63)
        length = min(_WORD, size - done)
        word = source[at] >> shift
        if shift and np.int64(shift) + length > _WORD:
            word |= source[at + 1] << (np.uint64(_WORD) - shift)
        if length < _WORD:
            word &= (_ONE << np.uint64(length)) - _ONE
        _put(out, out_first, position + done, word, length)


@uncounted
def _strip(o, packed, group, strip, length):
    """Write a group's bits row by row, pixel after pixel without gaps, with the padding as bits that are 0."""
    size = o.channels // o.groups
    strip[:] = _ZERO
    for row in range(o.rows):
        first = (row + o.up) * length
        for column in range(o.columns):
            at = o.source + (row * o.columns + column) * o.words
            _copy_bits(packed, at, group * size, size, strip, first, (column + o.left) * size)


@uncounted
def _runs(o, strip, length, run_words, runs):
    """Collect for each row of the strip and each output's column what a row of the window covers, in whole words."""
    size, columns, spread = o.channels // o.groups, o.window_columns, o.spread_columns
    # Neighbours in a row of the window are neighbours in the strip.
    run, pieces = (size * columns, 1) if spread == 1 else (size, columns)
    runs[:] = _ZERO
    for row in range(o.rows + 2 * o.up):
        for x in range(o.out_columns):
            out = (row * o.out_columns + x) * run_words
            for piece in range(pieces):
                begin = (x * o.right + piece * spread) * size
                _copy_bits(strip, row * length, begin, run, runs, out, piece * size)


@uncounted
def _level_strip(o, levels, group, strip, length):
    """Write a group's levels row by row, those of a pixel side by side, with the padding as levels of 0."""
    size = o.channels // o.groups
    strip[:] = np.uint8(0)
    for c in range(size):
        first = o.source + (group * size + c) * o.rows * o.columns
        for row in range(o.rows):
            out = (row + o.up) * length + o.left * size + c
            for column in range(o.columns):
                strip[out + column * size] = levels[first + row * o.columns + column]


@uncounted
def _gather_levels(o, strip, length, y, x, bytes_):
    """Collect the levels under the window at an output's row and column."""
    size, columns, spread = o.channels // o.groups, o.window_columns, o.spread_columns
    run, pieces = (size * columns, 1) if spread == 1 else (size, columns)
    first, position = y * o.down * length + x * o.right * size, 0
    for _ in range(o.window_rows):
        for piece in range(pieces):
            begin = first + piece * spread * size
            for n in range(run):
                bytes_[position + n] = strip[begin + n]
            position += run
        first += o.spread_rows * length


@uncounted
def _outside(o, y, x, missing):
    """List the taps of the window at an output's row and column that lie outside the image; return how many."""
    count, top, left = 0, y * o.down - o.up, x * o.right - o.left
    for i in range(o.window_rows):
        row = top + i * o.spread_rows
        for j in range(o.window_columns):
            column = left + j * o.spread_columns
            if not (0 <= row < o.rows and 0 <= column < o.columns):
                missing[count] = i * o.window_columns + j
                count += 1
    return count


_sum, _sum_32, _sum_16 = (vectors.summing(outputs) for outputs in (_WORD, 32, 16))
_weigh, _weigh_32, _weigh_16 = (vectors.weighing(outputs) for outputs in (_WORD, 32, 16))


@uncounted
def _sums(
    kind, width, runs, levels, planes, at, rows, size, step, words, integers, weight, stride, offset, factor, values
):  # fmt: skip
    """Compute the sums of up to 64 outputs for a window: its runs of bits, its levels, or their planes."""
    if kind == SIGNS:
        if width == 16:
            count_16(runs, at, rows, size, step, words, weight, stride, integers, offset, factor, values)
        elif width == 32:
            count_32(runs, at, rows, size, step, words, weight, stride, integers, offset, factor, values)
        else:
            count(runs, at, rows, size, step, words, weight, stride, integers, offset, factor, values)
    elif kind == INTEGERS:
        if width == 16:
            _sum_16(runs, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
        elif width == 32:
            _sum_32(runs, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
        else:
            _sum(runs, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
    elif kind == LEVELS:
        if width == 16:
            _weigh_16(levels, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
        elif width == 32:
            _weigh_32(levels, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
        else:
            _weigh(levels, at, rows, size, step, integers, weight, stride, integers, offset, factor, values)
    else:
        count_levels(planes, at, rows, size, step, words, weight, stride, integers, offset, factor, values)


@uncounted
def _finish(o, pixel, output, length, values, thresholds, integers, numbers, floats, packed):
    """Write up to 64 outputs of a pixel."""
    if o.result == TO_BITS:
        if length <= 16:
            word = vectors.above_16(values, 0, integers, thresholds)
        else:
            word = vectors.above(values, 0, integers, thresholds)
        _put(packed, o.out + pixel * o.out_words, output, word, length)
        return
    outputs = o.outputs
    out = o.out + pixel * outputs + output
    if o.result == SCALED:
        scale, bias = o.numbers + output, o.numbers + outputs + output
        for j in range(length):
            floats[out + j] = np.float32(values[j]) * numbers[scale + j] + numbers[bias + j]
        return
    table = o.numbers + o.reach * outputs + output
    for j in range(0, length, 16):
        if j + 16 <= length:
            vectors.look_up(values, j, numbers, table + j, outputs, floats, out + j)
        else:
            for rest in range(j, length):
                floats[out + rest] = numbers[table + np.int64(values[rest]) * outputs + rest]


@uncounted
def _product(o, packed, levels, floats, words, integers, numbers, scratch):
    """Compute a linear layer, whose window is its one pixel, or a convolution."""
    bytes_, missing, planes, values, long_strip, long_runs, long_level_strip = scratch
    own, size, kind = o.outputs // o.groups, o.channels // o.groups, o.product
    blocks, stride, factor = (own + _WORD - 1) // _WORD, (own + _WORD - 1) // _WORD * _WORD, np.int32(o.factor)
    run_words = (size * o.window_columns + _WORD - 1) // _WORD
    inputs = size * o.window_rows * o.window_columns
    is_levels = kind == LEVELS or kind == PLANES
    length = (inputs + _WORD - 1) // _WORD if is_levels else o.window_rows * run_words
    step = (inputs if kind == LEVELS else length * _WORD if kind == INTEGERS else length) * stride
    # The last word of a row is read with the one after it.
    strip_words = ((o.columns + 2 * o.left) * size + _WORD - 1) // _WORD + 1
    strip = long_strip[: strip_words * (o.rows + 2 * o.up)]
    strip_length = (o.columns + 2 * o.left) * size
    level_strip = long_level_strip[: strip_length * (o.rows + 2 * o.up)]
    runs = long_runs[: (o.rows + 2 * o.up) * o.out_columns * run_words]
    bytes_[inputs : length * _WORD] = np.uint8(0)
    if o.result == TO_BITS:
        packed[o.out : o.out + o.out_rows * o.out_columns * o.out_words] = _ZERO
    # The rows of a window among the runs, or among the levels.
    rows, row_size, row_step = o.window_rows, run_words, o.spread_rows * o.out_columns * run_words
    if kind == LEVELS:
        row_size, row_step = o.window_columns * size, o.spread_rows * strip_length
    elif kind == PLANES:
        rows, row_size = 1, length
    # Where the window begins, if all of it lies within the image.
    bottom, right = o.rows - (o.window_rows - 1) * o.spread_rows, o.columns - (o.window_columns - 1) * o.spread_columns
    for group in range(o.groups):
        if kind == PLANES and o.rows * o.columns == 1 and size == inputs:  # a linear layer's window is all there is
            for n in range(inputs):
                bytes_[n] = levels[o.source + group * size + n]
        elif is_levels:
            _level_strip(o, levels, group, level_strip, strip_length)
        else:
            _strip(o, packed, group, strip, strip_words)
            _runs(o, strip, strip_words, run_words, runs)
        for y in range(o.out_rows):
            top = y * o.down - o.up
            for x in range(o.out_columns):
                left, pixel = x * o.right - o.left, y * o.out_columns + x
                at = (y * o.down * o.out_columns + x) * run_words
                if kind == PLANES:
                    at = 0
                    if o.rows * o.columns > 1 or size < inputs:
                        _gather_levels(o, level_strip, strip_length, y, x, bytes_)
                    eights = bytes_.view(np.uint64)
                    for k in range(length):
                        for p in range(_PLANES):
                            planes[p * length + k] = plane_word(eights, k, p)
                elif kind == LEVELS:
                    at = y * o.down * strip_length + x * o.right * size
                is_inside = 0 <= top < bottom and 0 <= left < right
                beyond = 0 if is_inside or o.outside < 0 else _outside(o, y, x, missing)
                for block in range(blocks):
                    first = block * _WORD
                    count, begin = min(_WORD, own - first), group * stride + first
                    width = 16 if count <= 16 else 32 if count <= 32 else _WORD
                    _sums(
                        kind, width, runs, level_strip, planes, at, rows, row_size, row_step, words, integers,
                        o.weight + group * step + first, stride, o.offset + begin, factor, values,
                    )  # fmt: skip
                    for i in range(beyond):
                        tap = o.outside + missing[i] * o.groups * stride + begin
                        for j in range(width):
                            values[j] += integers[tap + j]
                    thresholds, output = o.thresholds + begin, group * own + first
                    _finish(o, pixel, output, count, values, thresholds, integers, numbers, floats, packed)


@uncounted
def _pool(o, packed):
    """Compute the OR of the bits under each window; outside the image they are 0."""
    first = o.out
    for y in range(o.out_rows):
        for x in range(o.out_columns):
            packed[first : first + o.words] = _ZERO
            for i in range(o.window_rows):
                row = y * o.down - o.up + i * o.spread_rows
                for j in range(o.window_columns):
                    column = x * o.right - o.left + j * o.spread_columns
                    if 0 <= row < o.rows and 0 <= column < o.columns:
                        at = o.source + (row * o.columns + column) * o.words
                        for k in range(o.words):
                            packed[first + k] |= packed[at + k]
            first += o.words


@uncounted
def _threshold(o, floats, numbers, packed):
    for pixel in range(o.rows * o.columns):
        at, out = o.source + pixel * o.channels, o.out + pixel * o.words
        for k in range(o.words):
            word, end = _ZERO, min((k + 1) * _WORD, o.channels)
            for first in range(k * _WORD, end, 16):
                bits = _ZERO
                if first + 16 <= end:
                    bits = vectors.above_shift(floats, at + first, numbers, o.numbers + first)
                else:
                    for c in range(first, end):
                        bit = np.uint64(floats[at + c] - numbers[o.numbers + c] > np.float32(0.0))
                        bits |= bit << np.uint64(c - first)
                word |= bits << np.uint64(first & 63)
            packed[out + k] = word


@uncounted
def _prelu(o, floats, numbers):
    before = numbers[o.numbers : o.numbers + o.channels]
    slope = numbers[o.numbers + o.channels : o.numbers + 2 * o.channels]
    after = numbers[o.numbers + 2 * o.channels : o.numbers + 3 * o.channels]
    for pixel in range(o.rows * o.columns):
        x = floats[o.source + pixel * o.channels : o.source + (pixel + 1) * o.channels]
        out = floats[o.out + pixel * o.channels : o.out + (pixel + 1) * o.channels]
        for c in range(o.channels):
            value = x[c] - before[c]
            out[c] = (value if value > np.float32(0.0) else slope[c] * value) + after[c]


@uncounted
def _to_floats(o, packed, numbers, floats):
    for pixel in range(o.rows * o.columns):
        for c in range(o.channels):
            word = packed[o.source + pixel * o.words + (c >> 6)]
            bit = (word >> np.uint64(c & 63)) & _ONE
            floats[o.out + pixel * o.channels + c] = numbers[o.numbers + np.int64(bit)]


@uncounted
def _flatten(o, packed):
    """Gather bits in the order of channels, rows and columns."""
    pixels = o.rows * o.columns
    packed[o.out : o.out + o.out_words] = _ZERO
    for pixel in range(pixels):
        for c in range(o.channels):
            bit = (packed[o.source + pixel * o.words + (c >> 6)] >> np.uint64(c & 63)) & _ONE
            at = c * pixels + pixel
            packed[o.out + (at >> 6)] |= bit << np.uint64(at & 63)


@uncounted
def _quantize(o, row, numbers, levels):
    """Return whether all values of an image are within bounds, and convert them to levels if they are."""
    low, width = numbers[o.numbers], numbers[o.numbers + 1]
    least, greatest = numbers[o.numbers + 2], numbers[o.numbers + 3]
    x, inside = row[o.source : o.source + o.channels], True
    for i in range(x.size):
        inside &= (least <= x[i]) & (x[i] <= greatest)
    if inside:
        for i in range(x.size):
            unit = min(max((x[i] - low) / width, np.float32(0.0)), np.float32(1.0))
            levels[o.out + i] = np.uint8(np.int32(np.rint(unit * np.float32(255.0))))
    return inside


@uncounted
def _transpose(source, first, rows, columns, out, out_first):
    # In squares of as many as a cache line holds, along the lines of the longer side.
    for top in range(0, rows, 16):
        for left in range(0, columns, 16):
            bottom, right = min(top + 16, rows), min(left + 16, columns)
            if rows > columns:
                for j in range(left, right):
                    for i in range(top, bottom):
                        out[out_first + j * rows + i] = source[first + i * columns + j]
            else:
                for i in range(top, bottom):
                    for j in range(left, right):
                        out[out_first + j * rows + i] = source[first + i * columns + j]


def _program_kernel(
    start, stop, image, bits, operations, words, integers, numbers, sizes, is_outside, out, out_bits
):  # fmt: skip
    floats, packed, levels = np.empty(sizes[0], np.float32), np.empty(sizes[1], np.uint64), np.empty(sizes[2], np.uint8)
    scratch = (
        np.empty(sizes[3] * _WORD, np.uint8), np.empty(sizes[4], np.int64),
        np.empty(_PLANES * sizes[3], np.uint64), np.empty(_WORD, np.int32),
        np.empty(sizes[5], np.uint64), np.empty(sizes[6], np.uint64), np.empty(sizes[5] * _WORD, np.uint8),
    )  # fmt: skip
    for m in range(start, stop):
        for i in range(operations.size):
            o = operations[i]
            pixels = o.rows * o.columns
            if o.kind == PRODUCT:
                _product(o, packed, levels, floats, words, integers, numbers, scratch)
            elif o.kind == POOL:
                _pool(o, packed)
            elif o.kind == ADD:
                first, second = floats[o.source : o.source + o.channels], floats[o.other : o.other + o.channels]
                total = floats[o.out : o.out + o.channels]
                for c in range(o.channels):
                    total[c] = first[c] + second[c]
            elif o.kind == PRELU:
                _prelu(o, floats, numbers)
            elif o.kind == THRESHOLD:
                _threshold(o, floats, numbers, packed)
            elif o.kind == TO_FLOATS:
                _to_floats(o, packed, numbers, floats)
            elif o.kind == FLATTEN:
                _flatten(o, packed)
            elif o.kind == QUANTIZE:
                if not _quantize(o, image[m], numbers, levels):
                    is_outside[0] = True
                    break
            elif o.kind == LOAD:
                _transpose(image[m], o.source, o.channels, pixels, floats, o.out)
            elif o.kind == LOAD_BITS:
                packed[o.out : o.out + o.words] = bits[m, o.source : o.source + o.words]
            elif o.kind == STORE:
                _transpose(floats, o.source, pixels, o.channels, out[m], o.out)
            else:
                out_bits[m, o.out : o.out + o.words] = packed[o.source : o.source + o.words]


def run_program(
    program: Program, image: np.ndarray, bits: np.ndarray, outputs: int, out_words: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Run samples through a program.

    Args:
        program: its operations write all outputs.
        image: float32 (B, n), the values in floating point that it takes, each in the order of channels, rows, columns.
        bits: uint64 (B, K), the bits that it takes, with the channels last.
        outputs: how many floats a sample's results have.
        out_words: how many words they have.

    Returns:
        float32 (B, outputs) and uint64 (B, out_words), and whether a value of an image was out of its range.
    """
    samples = len(image)
    out, out_bits = np.empty((samples, outputs), np.float32), np.empty((samples, out_words), np.uint64)
    is_outside = np.zeros(1, np.bool_)
    run(
        compiled(_program_kernel), samples, program.work, image, bits, *program[:-1], is_outside, out, out_bits
    )  # fmt: skip
    return out, out_bits, bool(is_outside[0])
