"""Linear layers and convolutions of a packed network on one sample, for the CPU; compiled by Numba."""

from __future__ import annotations

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
from ..numba_cpu import uncounted
from ..vectors import numba_cpu as vectors
from .program import INTEGERS, LEVELS, PLANES, SCALED, SIGNS, TO_BITS


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
def share(size, part, parts):
    """Return where one of equal parts of so many elements begins and ends."""
    return size * part // parts, size * (part + 1) // parts


@uncounted
def _join(words, size, position, out):
    """Write so many bits of each word one after another from a position on."""
    at, filled, size = position >> 6, np.uint64(position & 63), np.uint64(size)
    joined, mask = _ZERO, ~_ZERO >> (np.uint64(_WORD) - size)
    for word in words:
        own = word & mask
        joined |= own << filled
        filled += size
        if filled >= np.uint64(_WORD):
            out[at] = joined
            at, filled = at + 1, filled - np.uint64(_WORD)
            joined = (own >> _ONE) >> (size - filled - _ONE)  # not by 64 at once
    if filled:
        out[at] = joined


@uncounted
def _strip(o, packed, group, top, bottom, strip, length):
    """Write rows of a group's bits, pixel after pixel without gaps, with the padding as bits that are 0."""
    size = o.channels // o.groups
    strip[top * length : bottom * length] = _ZERO
    for row in range(max(top - o.up, 0), min(bottom - o.up, o.rows)):
        first = (row + o.up) * length
        if o.groups == 1 and size <= _WORD:
            at = o.source + row * o.columns
            _join(packed[at : at + o.columns], size, o.left * size, strip[first : first + length])
            continue
        for column in range(o.columns):
            at = o.source + (row * o.columns + column) * o.words
            _copy_bits(packed, at, group * size, size, strip, first, (column + o.left) * size)


@uncounted
def _runs(o, strip, length, top, bottom, run_words, runs):
    """Collect for rows of the strip and each output's column what a row of the window covers, in whole words."""
    size, columns, spread = o.channels // o.groups, o.window_columns, o.spread_columns
    if spread == 1:  # neighbours in a row of the window are neighbours in the strip
        mask = ~_ZERO >> np.uint64(-size * columns & 63)
        for row in range(top, bottom):
            for x in range(o.out_columns):
                out, begin = (row * o.out_columns + x) * run_words, x * o.right * size
                at, shift = row * length + (begin >> 6), np.uint64(begin & 63)
                for k in range(run_words):
                    rest = (strip[at + k + 1] << _ONE) << (np.uint64(_WORD - 1) - shift)  # not by 64 at once
                    runs[out + k] = (strip[at + k] >> shift) | rest
                runs[out + run_words - 1] &= mask
        return
    runs[top * o.out_columns * run_words : bottom * o.out_columns * run_words] = _ZERO
    for row in range(top, bottom):
        for x in range(o.out_columns):
            out = (row * o.out_columns + x) * run_words
            for piece in range(columns):
                begin = (x * o.right + piece * spread) * size
                _copy_bits(strip, row * length, begin, size, runs, out, piece * size)


@uncounted
def _level_strip(o, levels, group, top, bottom, strip, length):
    """Write rows of a group's levels, those of a pixel side by side, with the padding as levels of 0."""
    size = o.channels // o.groups
    strip[top * length : bottom * length] = np.uint8(0)
    for c in range(size):
        first = o.source + (group * size + c) * o.rows * o.columns
        for row in range(max(top - o.up, 0), min(bottom - o.up, o.rows)):
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
def product(o, part, parts, packed, levels, floats, words, integers, numbers, scratch):
    """Compute a part of the pixels of a convolution, or of the outputs of a linear layer, whose window is a pixel."""
    bytes_, missing, planes, values, strip, runs, level_strip = scratch
    own, size, kind = o.outputs // o.groups, o.channels // o.groups, o.product
    blocks, stride, factor = (own + _WORD - 1) // _WORD, (own + _WORD - 1) // _WORD * _WORD, np.int32(o.factor)
    run_words = (size * o.window_columns + _WORD - 1) // _WORD
    inputs = size * o.window_rows * o.window_columns
    is_levels = kind == LEVELS or kind == PLANES
    length = (inputs + _WORD - 1) // _WORD if is_levels else o.window_rows * run_words
    step = (inputs if kind == LEVELS else length * _WORD if kind == INTEGERS else length) * stride
    # The last word of a row is read with the one after it.
    strip_words = ((o.columns + 2 * o.left) * size + _WORD - 1) // _WORD + 1
    strip_length = (o.columns + 2 * o.left) * size
    pixels = o.out_rows * o.out_columns
    if o.is_by_blocks:
        (begin_pixel, end_pixel), (begin_block, end_block) = (0, 1), share(blocks, part, parts)
        begin_word, end_word = begin_block, end_block
    else:
        (begin_pixel, end_pixel), (begin_block, end_block) = share(pixels, part, parts), (0, blocks)
        begin_word, end_word = begin_pixel * o.out_words, end_pixel * o.out_words
    if begin_word == end_word:
        return
    begin_row, end_row = begin_pixel // o.out_columns, (end_pixel - 1) // o.out_columns + 1
    # The rows that the windows cover, with the padding.
    first_row, last_row = begin_row * o.down, (end_row - 1) * o.down + (o.window_rows - 1) * o.spread_rows + 1
    bytes_[inputs : length * _WORD] = np.uint8(0)
    if o.result == TO_BITS:
        packed[o.out + begin_word : o.out + end_word] = _ZERO
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
            _level_strip(o, levels, group, first_row, last_row, level_strip, strip_length)
        else:
            _strip(o, packed, group, first_row, last_row, strip, strip_words)
            _runs(o, strip, strip_words, first_row, last_row, run_words, runs)
        for y in range(begin_row, end_row):
            top = y * o.down - o.up
            first_pixel = y * o.out_columns
            for x in range(max(begin_pixel - first_pixel, 0), min(end_pixel - first_pixel, o.out_columns)):
                left, pixel = x * o.right - o.left, first_pixel + x
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
                for block in range(begin_block, end_block):
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
