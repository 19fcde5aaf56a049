"""Argument checks shared by all public functions, and how a message describes a value."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ._hints import did_you_mean


def describe(value: object) -> str:
    """Return a value as messages show it, without the numbers of tensors."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype} and shape {value.shape}"
    if isinstance(value, Mapping) and any(isinstance(own, Tensor) for own in value.values()):
        return "a dict"
    if isinstance(value, (list, tuple)) and any(isinstance(own, Tensor) for own in value):
        return f"a {'list' if isinstance(value, list) else 'tuple'}"
    return repr(value)


def full_name(value: object) -> str:
    """Return the name of a value's class with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def check_floating(name: str, x: object, *, is_image: bool = True) -> None:
    """Raise TypeError unless x is a floating-point tensor, which is an image or event counts."""
    if isinstance(x, fx.Proxy):  # a trace has no values
        return
    if not isinstance(x, Tensor) or not x.is_floating_point():
        remedy = f"; write {name}.float()" if isinstance(x, Tensor) else ""
        if isinstance(x, np.ndarray):
            remedy = f"; write torch.from_numpy({name}).float()"
        if is_image and isinstance(x, Tensor) and x.dtype == torch.uint8:
            remedy += f" (8-bit images: {name}.float() / 255)"
        raise TypeError(f"{name}: expected a floating-point tensor, got {describe(x)}{remedy}")


def check_real(name: str, x: Tensor) -> None:
    """Raise TypeError unless a tensor has floating-point or integer numbers."""
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(f"{name}: expected a number or a real tensor, got {describe(x)}")


def check_number(name: str, value: object) -> None:
    """Raise ValueError unless value is a real number."""
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        raise ValueError(f"{name}: expected a number or a real tensor, got {value!r}")


def is_readable(x: Tensor) -> bool:
    """Return whether values may be looked at: not under a compiler, nor while a CUDA graph is captured."""
    return not (torch.compiler.is_compiling() or (x.is_cuda and torch.cuda.is_current_stream_capturing()))


def is_plain(x: Tensor) -> bool:
    """Return whether a tensor's memory may be read: it is of no subclass, and nothing traces or transforms it."""
    return (
        type(x) is Tensor
        and is_readable(x)
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch.jit.is_tracing()
        and torch.utils._python_dispatch._get_current_dispatch_mode() is None
    )


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ValueError unless value is one of the choices."""
    if value not in choices:
        expected = f"one of {', '.join(choices)}"
        raise ValueError(f"{name}: expected {expected}, got {value!r}{did_you_mean(value, expected)}")


def index_of(name: str, value: Any, size: int, kind: str = "") -> int:
    """Return an integer of any type as an int; raise ValueError unless it is from 0 to size - 1."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not 0 <= number < size:
        raise ValueError(f"{name}: expected {kind}0 to {size - 1}, got {value!r}")
    return number
