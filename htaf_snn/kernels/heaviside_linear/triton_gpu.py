"""A product of packed bits with integer weights for the GPU, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_BLOCK = 128


@triton.jit
def _product_kernel(words, weight, out, inputs, outputs, length, BLOCK: tl.constexpr):
    m = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = weight + o
    sums = tl.zeros((BLOCK,), tl.int32)
    for i in range(inputs):
        bit = (tl.load(words + m * length + i // 64) >> (i % 64)) & 1
        sums += tl.load(row, mask=o < bit * outputs, other=0)
        row += outputs
    tl.store(out + m * outputs + o, sums, mask=o < outputs)


def product(words, weight):
    """Compute `reference.product`."""
    rows, (inputs, outputs) = words.shape[0], weight.shape
    out = words.new_empty(rows, outputs, dtype=torch.int32)
    if rows and outputs:
        grid = (rows, triton.cdiv(outputs, _BLOCK))
        _product_kernel[grid](
            words.contiguous(), weight.contiguous(), out, inputs, outputs, words.shape[1], BLOCK=_BLOCK
        )
    return out
