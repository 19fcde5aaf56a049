"""A product of packed bits with integer weights for the GPU, in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..triton_gpu import on_device_of

_OUTPUTS, _DEPTH = 128, 32


@triton.jit
def _product_kernel(words, weight, out, inputs, outputs, length, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr):
    m = tl.program_id(0).to(tl.int64)
    o = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    sums = tl.zeros((DEPTH, OUTPUTS), tl.int32)
    for first in range(0, inputs, DEPTH):
        i = first + tl.arange(0, DEPTH)
        bit = (tl.load(words + m * length + i // 64, i < inputs, 0) >> (i % 64)) & 1
        is_set = o[None, :] < (bit * outputs)[:, None]
        sums += tl.load(weight + i.to(tl.int64)[:, None] * outputs + o[None, :], is_set, 0)
    tl.store(out + m * outputs + o, tl.sum(sums, 0), mask=o < outputs)


def product(words, weight):
    """Compute `reference.product`."""
    rows, (inputs, outputs) = words.shape[0], weight.shape
    out = words.new_empty(rows, outputs, dtype=torch.int32)
    if rows and outputs:
        grid = (rows, triton.cdiv(outputs, _OUTPUTS))
        with on_device_of(words):
            _product_kernel[grid](
                words.contiguous(), weight.contiguous(), out, inputs, outputs, words.shape[1], OUTPUTS=_OUTPUTS,
                DEPTH=_DEPTH,
            )  # fmt: skip
    return out
