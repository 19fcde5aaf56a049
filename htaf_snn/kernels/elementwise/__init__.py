"""Kernels of one pass for the operators of `surrogate.elementwise`, on CPUs and GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from ...surrogate import elementwise
from ...surrogate.formula import formula_named
from .. import _dispatch


def _kernels(x: Tensor):
    backend = _dispatch.choose("auto", x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)
    return elementwise if backend == "torch" else _dispatch.load(backend, __package__)


def primitive(x: Tensor, formula: str, values: list[float]) -> Tensor:
    """Return the primitive of a formula at x, in the dtype of x."""
    return _kernels(x).primitive(x, formula_named(formula), values)


def gradient(grad: Tensor, x: Tensor, formula: str, values: list[float]) -> Tensor:
    """Return grad times the derivative of a formula at x, in the dtype of x."""
    return _kernels(x).gradient(grad, x, formula_named(formula), values)


for _device in ("CPU", "CUDA"):
    torch.library.impl("htaf_snn::primitive", _device, primitive)
    torch.library.impl("htaf_snn::gradient", _device, gradient)
