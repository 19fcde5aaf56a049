"""Linear maps of frames of events, which are mostly zeros."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .._checks import check_floating, describe
from ..kernels import _dispatch
from ..kernels.event_linear.autograd import compress_rows, event_product
from ..surrogate.elementwise import is_transformed

# Beyond this share of values that are not zero, or below this many values, a dense product is as fast.
_FULL, _FEW = 0.25, 1 << 16


def event_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Apply a linear map to frames of events, in time that grows with the events.

    It equals `torch.nn.functional.linear` up to rounding for finite weights, and is that where x is not mostly zeros,
    is small or needs a gradient, within `torch.func`, autocast and compiled functions, and where no kernel is
    available.

    Args:
        x: floating-point (…, F); or rows (R, F) in torch's CSR layout, as ``loaders(layout="sparse")`` makes them.
        weight: (O, F), in the dtype of x.
        bias: (O,), or None.
        backend: of the sparse product: "auto", "torch", or "numba" (CPU, float32 and float64), see `backends`.

    Returns:
        (…, O) or (R, O), dense. The gradient of rows in CSR layout is dense, too.

    Raises:
        TypeError: if x is not floating-point, or of another dtype than the weight.
        ValueError: if the sizes differ, or the backend is unknown or cannot compute on the device.
        RuntimeError: if the backend is not available.

    Example:
        >>> frames = torch.zeros(25, 32, 2312)
        >>> frames[:, :, ::50] = 1.0
        >>> event_linear(frames, torch.rand(256, 2312)).shape
        torch.Size([25, 32, 256])
    """
    check_floating("x", x)
    if type(x) not in (Tensor, torch.nn.Parameter):  # a trace or a fake tensor has no values
        return functional.linear(x, weight, bias)
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"x: expected {weight.dtype}, as the weight, got {x.dtype}")
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x: expected a last size of {weight.shape[1:]}, as the weight, got {describe(x)}")
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        raise ValueError(f"bias: expected {weight.dtype} of shape ({len(weight)},), got {describe(bias)}")
    chosen = _chosen(backend, x)
    if x.layout == torch.sparse_csr:
        if x.ndim != 2:
            raise ValueError(f"x: expected rows (R, F) in CSR layout, got shape {tuple(x.shape)}")
        if is_transformed() or torch.is_autocast_enabled(x.device.type):
            return functional.linear(x.to_dense(), weight, bias)
        if x.requires_grad:
            return functional.linear(x, weight, bias)
        rows = x.crow_indices(), x.col_indices(), x.values()
        out = event_product(*rows, weight, chosen)
        return out if bias is None else out + bias
    if chosen == "torch" or not _pays(x):
        return functional.linear(x, weight, bias)
    rows = compress_rows(x.detach().flatten(0, -2), chosen)
    if len(rows[1]) > _FULL * x.numel():
        return functional.linear(x, weight, bias)
    out = event_product(*rows, weight, chosen)
    out = out if bias is None else out + bias
    return out.view(*x.shape[:-1], len(weight))


def _chosen(backend: str, x: Tensor) -> str:
    """Return the backend; there is no kernel for GPUs, whose dense product is fast, nor for short floats."""
    suits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if backend == "triton" or (backend == "numba" and not suits):
        _dispatch.check_name(backend)
        raise ValueError(f"backend: {backend!r} cannot compute a linear map of {x.dtype} on {x.device.type}; use auto")
    return _dispatch.choose(backend, x.device, x.dtype) if suits or backend != "auto" else "torch"


def _pays(x: Tensor) -> bool:
    """Return whether a kernel for sparse rows may be faster, and computes all that is asked for."""
    special = is_transformed() or torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
    return x.ndim > 1 and x.numel() >= _FEW and not x.requires_grad and not special
