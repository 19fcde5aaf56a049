"""The checks that all public functions share, and how a message describes a value."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor, fx


def describe(value) -> str:
    """A value as a message shows it."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return repr(value)


def check_floating(name: str, x) -> None:
    """Raise TypeError unless x is a floating-point tensor."""
    if isinstance(x, fx.Proxy):  # a trace has no values
        return
    if not isinstance(x, Tensor) or not x.is_floating_point():
        bytes_ = f" (images of bytes: {name}.float() / 255)" if getattr(x, "dtype", None) == torch.uint8 else ""
        remedy = f"; write {name}.float(){bytes_}" if isinstance(x, Tensor) else ""
        raise TypeError(f"{name}: expected a floating-point tensor, got {describe(x)}{remedy}")


def check_real(name: str, x: Tensor) -> None:
    """Raise TypeError unless a tensor is of floating-point or integer numbers."""
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name}: expected a number or a real tensor, got {describe(x)}")


def check_number(name: str, value) -> None:
    """Raise ValueError unless value is a real number."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        raise ValueError(f"{name}: expected a number or a real tensor, got {value!r}")
