"""The elementwise operations for the CPU, compiled by Numba: one pass each."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..numba_cpu import bound, compiled, empty, run


def function(x, *values):
    """Stand for the formula's function, which `_run` puts in its place."""


_WORK = 16


def _primitive_kernel(start, stop, x, values, out):
    x, out = x[start:stop], out[start:stop]
    for j in range(out.size):
        out[j] = function(x[j], *values)


def _gradient_kernel(start, stop, x, values, out, grad):
    x, out, grad = x[start:stop], out[start:stop], grad[start:stop]
    for j in range(out.size):
        out[j] = grad[j] * function(x[j], *values)


def _flat(tensor: Tensor, dtype: torch.dtype) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().to(dtype).numpy()).reshape(-1)


def _run(kernel, formulas_function, x: Tensor, values: list[float], *more: Tensor) -> Tensor:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = empty(x.shape, dtype)
    number = out.numpy().dtype.type
    run(
        compiled(kernel, function=bound(formulas_function, dtype)), x.numel(), _WORK, _flat(x, dtype),
        tuple(number(value) for value in values), out.view(-1).numpy(), *(_flat(tensor, dtype) for tensor in more),
    )  # fmt: skip
    return out.to(x.dtype)


def primitive(x, formula, values):
    """See `surrogate.elementwise.primitive`."""
    return _run(_primitive_kernel, formula.primitive, x, values)


def gradient(grad, x, formula, values):
    """See `surrogate.elementwise.gradient`."""
    return _run(_gradient_kernel, formula.derivative, x, values, grad)
