"""Steps of a packed network on samples one after another, alone or shared by threads, for the CPU; compiled by Numba.

What a step computes is defined in `deploy.steps`. Between the steps, images lie with the channels last.
"""

from __future__ import annotations

import numpy as np
import torch

from ..binary_linear.numba_cpu import _ONE, _PLANES, _WORD, _ZERO
from ..numba_cpu import (
    FEWEST_PER_THREAD,
    NO_TEAM,
    Team,
    call_for_nothing,
    call_for_number,
    compiled,
    native,
    passing,
    run,
    team_functions,
    uncounted,
)
from ..vectors import numba_cpu as vectors
from .products import product, share
from .program import (
    ADD,
    FLATTEN,
    LOAD,
    LOAD_BITS,
    OPERATION,
    POOL,
    PRELU,
    PRODUCT,
    QUANTIZE,
    STORE,
    THRESHOLD,
    TO_FLOATS,
    Program,
)


@uncounted
def _pool(o, begin, end, packed):
    """Compute the OR of the bits under the windows of some pixels; outside the image they are 0."""
    for pixel in range(begin, end):
        y, x, first = pixel // o.out_columns, pixel % o.out_columns, o.out + pixel * o.words
        packed[first : first + o.words] = _ZERO
        for i in range(o.window_rows):
            row = y * o.down - o.up + i * o.spread_rows
            for j in range(o.window_columns):
                column = x * o.right - o.left + j * o.spread_columns
                if 0 <= row < o.rows and 0 <= column < o.columns:
                    at = o.source + (row * o.columns + column) * o.words
                    for k in range(o.words):
                        packed[first + k] |= packed[at + k]


@uncounted
def _add(o, begin, end, floats):
    size = o.channels
    first = floats[o.source + begin * size : o.source + end * size]
    second = floats[o.other + begin * size : o.other + end * size]
    total = floats[o.out + begin * size : o.out + end * size]
    for i in range(total.size):
        total[i] = first[i] + second[i]


@uncounted
def _threshold(o, begin, end, floats, numbers, packed):
    for pixel in range(begin, end):
        at, out = o.source + pixel * o.channels, o.out + pixel * o.words
        for k in range(o.words):
            word, last = _ZERO, min((k + 1) * _WORD, o.channels)
            for first in range(k * _WORD, last, 16):
                bits = _ZERO
                if first + 16 <= last:
                    bits = vectors.above_shift(floats, at + first, numbers, o.numbers + first)
                else:
                    for c in range(first, last):
                        bit = np.uint64(floats[at + c] - numbers[o.numbers + c] > np.float32(0.0))
                        bits |= bit << np.uint64(c - first)
                word |= bits << np.uint64(first & 63)
            packed[out + k] = word


@uncounted
def _prelu(o, begin, end, floats, numbers):
    before = numbers[o.numbers : o.numbers + o.channels]
    slope = numbers[o.numbers + o.channels : o.numbers + 2 * o.channels]
    after = numbers[o.numbers + 2 * o.channels : o.numbers + 3 * o.channels]
    for pixel in range(begin, end):
        x = floats[o.source + pixel * o.channels : o.source + (pixel + 1) * o.channels]
        out = floats[o.out + pixel * o.channels : o.out + (pixel + 1) * o.channels]
        for c in range(o.channels):
            value = x[c] - before[c]
            out[c] = (value if value > np.float32(0.0) else slope[c] * value) + after[c]


@uncounted
def _to_floats(o, begin, end, packed, numbers, floats):
    for pixel in range(begin, end):
        for c in range(o.channels):
            word = packed[o.source + pixel * o.words + (c >> 6)]
            bit = (word >> np.uint64(c & 63)) & _ONE
            floats[o.out + pixel * o.channels + c] = numbers[o.numbers + np.int64(bit)]


@uncounted
def _flatten(o, begin, end, packed):
    """Gather some words of bits in the order of channels, rows and columns."""
    pixels = o.rows * o.columns
    c, pixel = begin * _WORD // pixels, begin * _WORD % pixels
    for k in range(begin, end):
        word = _ZERO
        for place in range(min(_WORD, o.channels * pixels - k * _WORD)):
            bit = (packed[o.source + pixel * o.words + (c >> 6)] >> np.uint64(c & 63)) & _ONE
            word |= bit << np.uint64(place)
            pixel += 1
            if pixel == pixels:
                c, pixel = c + 1, 0
        packed[o.out + k] = word


@uncounted
def _quantize(o, begin, end, row, numbers, levels):
    """Return whether some values of an image are within bounds, and convert them to levels if they are."""
    low, width = numbers[o.numbers], numbers[o.numbers + 1]
    least, greatest = numbers[o.numbers + 2], numbers[o.numbers + 3]
    x, out, inside = row[o.source + begin : o.source + end], levels[o.out + begin : o.out + end], True
    for i in range(x.size):
        inside &= (least <= x[i]) & (x[i] <= greatest)
    if inside:
        for i in range(x.size):
            unit = min(max((x[i] - low) / width, np.float32(0.0)), np.float32(1.0))
            out[i] = np.uint8(np.int32(np.rint(unit * np.float32(255.0))))
    return inside


@uncounted
def _transpose(source, first, rows, columns, begin_row, end_row, begin, end, out, out_first):
    """Transpose some rows and columns of a matrix."""
    # In squares of as many as a cache line holds, along the lines of the longer side.
    for top in range(begin_row, end_row, 16):
        for left in range(begin, end, 16):
            bottom, right = min(top + 16, end_row), min(left + 16, end)
            if rows > columns:
                for j in range(left, right):
                    for i in range(top, bottom):
                        out[out_first + j * rows + i] = source[first + i * columns + j]
            else:
                for i in range(top, bottom):
                    for j in range(left, right):
                        out[out_first + j * rows + i] = source[first + i * columns + j]


# Examples of the arguments of `_program_samples`.
_WORDS, _BYTES, _INTS, _FLOATS = (np.empty((1, 1), kind) for kind in (np.uint64, np.uint8, np.int32, np.float32))
_MEMORY = (_FLOATS, _WORDS, _BYTES)
_SCRATCH = (_BYTES, np.empty((1, 1), np.int64), _WORDS, _INTS, _WORDS, _WORDS, _BYTES)
_PARAMETERS = (np.empty(1, OPERATION), _WORDS[0], _INTS[0], _FLOATS[0])
_call, _passed, _TYPES = passing(
    0, 0, 0, _FLOATS, _WORDS, *_PARAMETERS, np.empty(1, np.bool_), _FLOATS, _WORDS, _MEMORY, _SCRATCH, NO_TEAM
)  # fmt: skip


def _program_samples(pointer):
    """Compute samples: up to a given one each in one thread of a team, then each in all of them."""
    (
        start, stop, together, image, bits, operations, words, integers, numbers, is_outside, out, out_bits,
        memory, scratch, team,
    ) = _passed(pointer)  # fmt: skip
    _, wait, own_number, size = team
    number, threads = (call_for_number(own_number), call_for_number(size)) if wait else (0, 1)
    own_scratch = (
        scratch[0][number], scratch[1][number], scratch[2][number], scratch[3][number], scratch[4][number],
        scratch[5][number], scratch[6][number],
    )  # fmt: skip
    for m in range(start, stop):
        if m >= together:
            part, parts, own = number, threads, 0
        elif (m - start) % threads == number:
            part, parts, own = 0, 1, number
        else:
            continue
        floats, packed, levels = memory[0][own], memory[1][own], memory[2][own]
        for i in range(operations.size):
            o = operations[i]
            if parts > 1 and o.waits:
                call_for_nothing(wait)
            pixels = o.rows * o.columns
            begin, end = share(pixels, part, parts)
            if o.kind == PRODUCT:
                product(o, part, parts, packed, levels, floats, words, integers, numbers, own_scratch)
            elif o.kind == POOL:
                begin, end = share(o.out_rows * o.out_columns, part, parts)
                _pool(o, begin, end, packed)
            elif o.kind == ADD:
                _add(o, begin, end, floats)
            elif o.kind == PRELU:
                _prelu(o, begin, end, floats, numbers)
            elif o.kind == THRESHOLD:
                _threshold(o, begin, end, floats, numbers, packed)
            elif o.kind == TO_FLOATS:
                _to_floats(o, begin, end, packed, numbers, floats)
            elif o.kind == FLATTEN:
                begin, end = share(o.out_words, part, parts)
                _flatten(o, begin, end, packed)
            elif o.kind == QUANTIZE:
                begin, end = share(pixels * o.channels, part, parts)
                if not _quantize(o, begin, end, image[m], numbers, levels):
                    is_outside[0] = True  # and go on, as other threads may wait
            elif o.kind == LOAD:
                _transpose(image[m], o.source, o.channels, pixels, 0, o.channels, begin, end, floats, o.out)
            elif o.kind == LOAD_BITS:
                for k in range(begin * o.words, end * o.words):
                    packed[o.out + k] = bits[m, o.source + k]
            elif o.kind == STORE:
                _transpose(floats, o.source, pixels, o.channels, begin, end, 0, o.channels, out[m], o.out)
            else:
                for k in range(begin * o.words, end * o.words):
                    out_bits[m, o.out + k] = packed[o.source + k]


def _program_kernel(
    start, stop, image, bits, operations, words, integers, numbers, sizes, is_outside, out, out_bits,
    samples, threads, together, team,
):  # fmt: skip
    memory = (
        np.empty((threads, sizes[0]), np.float32), np.empty((threads, sizes[1]), np.uint64),
        np.empty((threads, sizes[2]), np.uint8),
    )  # fmt: skip
    scratch = (
        np.empty((threads, sizes[3] * _WORD), np.uint8), np.empty((threads, sizes[4]), np.int64),
        np.empty((threads, _PLANES * sizes[3]), np.uint64), np.empty((threads, _WORD), np.int32),
        np.empty((threads, sizes[5]), np.uint64), np.empty((threads, sizes[6]), np.uint64),
        np.empty((threads, sizes[5] * _WORD), np.uint8),
    )  # fmt: skip
    arguments = (
        start, stop, together, image, bits, operations, words, integers, numbers, is_outside, out, out_bits, memory,
        scratch, team,
    )  # fmt: skip
    _call(samples, threads, team[0], arguments)


# Work of few samples, or of one, that is worth a thread: one that sleeps first has to be woken.
_WORK_TO_SHARE = 65536


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
    arguments = image, bits, *program[:-1], is_outside, out, out_bits
    kernel, function = compiled(_program_kernel), native(_program_samples, _TYPES).address
    threads, together, team = _sharing(samples, program.work)
    if threads > 1:
        kernel(0, samples, *arguments, function, threads, together, team)
    else:
        run(kernel, samples, program.work, *arguments, function, 1, samples, NO_TEAM)
    return out, out_bits, bool(is_outside[0])


def _sharing(samples: int, work: int) -> tuple[int, int, Team]:
    """Return how many threads compute few samples, from which sample on all share each, and a team's functions."""
    most, team = torch.get_num_threads(), team_functions()
    if not team[0] or samples >= FEWEST_PER_THREAD * most:
        return 1, samples, team
    threads = max(1, min(most, max(min(samples, samples * work // _WORK_TO_SHARE), work // _WORK_TO_SHARE)))
    is_shared = threads * _WORK_TO_SHARE <= work
    return threads, samples - samples % threads if is_shared else samples, team
