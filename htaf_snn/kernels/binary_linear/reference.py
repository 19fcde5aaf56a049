"""The definition of the operations on packed bits, in plain torch.

Bit k of word j, counted from the lowest, is element 64 * j + k; the unused bits of the last word are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 64


def pack(x: Tensor) -> Tensor:
    """Return words (…, ceil(n / 64)), int64, whose bits are set where x (…, n) is greater than 0."""
    missing = -x.shape[-1] % WORD
    bits = torch.nn.functional.pad((x > 0).to(torch.int64), (0, missing)).unflatten(-1, (-1, WORD))
    # The highest bit is the sign; adding distinct powers of two wraps around as it should.
    return (bits << torch.arange(WORD, device=x.device)).sum(-1)


def unpack(words: Tensor, size: int) -> Tensor:
    """Return the first `size` bits (…, size) of words, int64 zeros and ones."""
    bits = (words[..., None] >> torch.arange(WORD, device=words.device)) & 1
    return bits.flatten(-2)[..., :size]


def differing(words: Tensor, weight: Tensor) -> Tensor:
    """Return the number of bits that differ between each row of words (M, K) and of weight (O, K): int32 (M, O)."""
    a, b = (unpack(w, w.shape[-1] * WORD).double() for w in (words, weight))
    return (a @ (1 - b).T + (1 - a) @ b.T).to(torch.int32)


def product(words: Tensor, weight: Tensor, offset: Tensor, factor: int) -> Tensor:
    """Return offset (O,) minus `factor` times the number of bits that differ, int32 (M, O)."""
    return offset - factor * differing(words, weight)


def product_bits(words: Tensor, weight: Tensor, offset: Tensor, factor: int, thresholds: Tensor) -> Tensor:
    """Return where `product` is greater than the thresholds (O,), as words (M, ceil(O / 64))."""
    return pack(product(words, weight, offset, factor) > thresholds)


def level_product(levels: Tensor, weight: Tensor) -> Tensor:
    """Return the sums, int32 (M, O), of levels (M, n), uint8, times weights -1 and +1 whose words are (O, K)."""
    signs = 2 * unpack(weight, levels.shape[1]) - 1
    return (levels.double() @ signs.double().T).to(torch.int32)
