"""The elementwise operations for the GPU, in Triton: one pass each, computed in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ..triton_gpu import bound, call, launch, padded


@triton.jit
def _primitive_kernel(x, out, p0, p1, p2, size, function: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    x_ = tl.load(x + n, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + n, call(function, x_, p0, p1, p2, COUNT), mask=inside)


@triton.jit
def _gradient_kernel(x, grad, out, p0, p1, p2, size, function: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = n < size
    x_ = tl.load(x + n, mask=inside, other=0.0).to(tl.float32)
    slope = call(function, x_, p0, p1, p2, COUNT)
    tl.store(out + n, tl.load(grad + n, mask=inside, other=0.0).to(tl.float32) * slope, mask=inside)


def _block(x):
    """Return the elements of a program: 4 KiB of them kept an H200's memory busiest."""
    return 4096 // x.element_size()


def primitive(x, formula, values):
    """See `surrogate.elementwise.primitive`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    # In bfloat16 the error of a short tanh is below that of rounding, unless a parameter magnifies it.
    function = bound(formula.primitive, x.dtype == torch.bfloat16 and max(map(abs, values)) <= 4)
    launch(_primitive_kernel, x.numel(), x, out, *padded(values), function=function, COUNT=len(values), block=_block(x))
    return out


def gradient(grad, x, formula, values):
    """See `surrogate.elementwise.gradient`."""
    x = x.contiguous()
    out = torch.empty_like(x)
    launch(
        _gradient_kernel, x.numel(), x, grad.contiguous(), out, *padded(values), function=bound(formula.derivative),
        COUNT=len(values), block=_block(x),
    )  # fmt: skip
    return out
