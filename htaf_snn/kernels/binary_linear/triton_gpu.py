"""The operations on packed bits for the GPU, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from ..triton_gpu import INTERPRETED, on_device_of

WORD = tl.constexpr(64)
_PACKED = 16


@triton.jit
def _count_on_device(words):
    return libdevice.popc(words)


@triton.jit
def _count_in_interpreter(words):
    """Count ones by sums of 1, 2, 4 and 8 bits side by side; the multiplication adds the eight bytes."""
    ones = words - ((words >> 1) & 0x5555555555555555)
    pairs = (ones & 0x3333333333333333) + ((ones >> 2) & 0x3333333333333333)
    bytes_ = (pairs + (pairs >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((bytes_ * 0x0101010101010101) >> 56) & 0xFF


popcount = _count_in_interpreter if INTERPRETED else _count_on_device


@triton.jit
def _pack_kernel(x, out, count, size, words, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    element = n % words * WORD + tl.arange(0, WORD)[None, :]
    values = tl.load(x + n // words * size + element, mask=(n < count) & (element < size), other=0)
    bits = (values > 0).to(tl.int64) << tl.arange(0, WORD)[None, :].to(tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + n, tl.sum(bits, 1), mask=n < count)


@triton.jit
def _product_kernel(
    words, weight, offset, thresholds, out, rows, outputs, length, factor,
    BITS: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(outputs, WORD)
    m = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o = tl.program_id(1) * WORD + tl.arange(0, WORD)
    counts = tl.zeros((ROWS, DEPTH, WORD), tl.int32)
    for first in range(0, length, DEPTH):
        k = first + tl.arange(0, DEPTH)
        given = tl.load(words + m[:, None] * length + k[None, :], (m < rows)[:, None] & (k < length)[None, :], 0)
        columns = tl.load(weight + k[:, None] * blocks * WORD + o[None, :], (k < length)[:, None], 0)
        counts += popcount(given[:, :, None] ^ columns[None, :, :]).to(tl.int32)
    counts = tl.sum(counts, 1)
    inside = o < outputs
    values = tl.load(offset + o, mask=inside, other=0)[None, :] - factor * counts
    if BITS:
        above = values > tl.load(thresholds + o, mask=inside, other=0)[None, :]
        bits = (above & inside[None, :]).to(tl.int64) << tl.arange(0, WORD)[None, :].to(tl.int64)
        tl.store(out + m * blocks + tl.program_id(1), tl.sum(bits, 1), mask=m < rows)
    else:
        tl.store(out + m[:, None] * outputs + o[None, :], values, mask=(m < rows)[:, None] & inside[None, :])


def pack(x):
    """Compute `reference.pack`."""
    # The interpreter cannot compare bfloat16, and Triton has no pointers to booleans.
    x = x.to({torch.bfloat16: torch.float32, torch.bool: torch.uint8}.get(x.dtype, x.dtype)).contiguous()
    words = -(-x.shape[-1] // 64)
    out = x.new_empty(*x.shape[:-1], words, dtype=torch.int64)
    if out.numel():
        with on_device_of(x):
            _pack_kernel[(triton.cdiv(out.numel(), _PACKED),)](x, out, out.numel(), x.shape[-1], words, BLOCK=_PACKED)
    return out


def _tile(rows: int) -> dict[str, int]:
    """Return the rows of a program, and how many words it reads of each at a time; an H200 was quickest with these."""
    if rows == 1:
        return {"ROWS": 1, "DEPTH": 64}
    return {"ROWS": 4, "DEPTH": 32} if rows <= 64 else {"ROWS": 8, "DEPTH": 8}


def _product(words, weight, offset, factor, thresholds, out):
    rows, outputs, tile = words.shape[0], len(offset), _tile(words.shape[0])
    grid = (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(outputs, 64))
    if rows and outputs:
        with on_device_of(words):
            _product_kernel[grid](
                words.contiguous(), weight, offset, thresholds, out, rows, outputs, words.shape[1], factor,
                BITS=out.dtype == torch.int64, **tile,
            )  # fmt: skip
    return out


def product(words, weight, offset, factor):
    """Compute `reference.product`; the weight is `transposed`."""
    out = words.new_empty(words.shape[0], len(offset), dtype=torch.int32)
    return _product(words, weight, offset, factor, offset, out)


def product_bits(words, weight, offset, factor, thresholds):
    """Compute `reference.product_bits`; the weight is `transposed`."""
    out = words.new_empty(words.shape[0], -(-len(offset) // 64))
    return _product(words, weight, offset, factor, thresholds, out)


def level_product(levels, weight, ones):
    """Compute `reference.level_product` with a product per plane of bits; the weight is `transposed`."""
    places = torch.arange(8, device=levels.device, dtype=torch.uint8)
    planes = pack((levels >> places.view(-1, 1, 1)) & 1)
    sums = product(planes.flatten(0, 1), weight, ones, 1).view(8, len(levels), len(ones))
    return (sums << places.view(-1, 1, 1).int()).sum(0, dtype=torch.int32)
