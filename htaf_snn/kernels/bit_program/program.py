"""What a program for packed networks is: operations on a sample, and their parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
        "waits", "is_by_blocks",
    )
])  # fmt: skip
"""An operation: its kind, its values and their sizes, a window with its stride (down, right), padding (up, left) and
dilation (spread), and where a product's parameters begin in the arrays of `Program`. Threads that share a sample each
compute some pixels of the result, or some words of it where it `is_by_blocks`, as a linear layer's; before an operation
that `waits`, all have finished those before it."""


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
