"""Compilation of formulas for the GPU by Triton, which can also interpret them on a machine without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache

import torch
import triton
import triton.language as tl

from ._elementary import ELEMENTARY
from .binding import bind

INTERPRETED = triton.knobs.runtime.interpret
BLOCK = 256


@triton.jit
def _exp(z):
    return tl.exp(z)


@triton.jit
def _abs(z):
    return tl.abs(z)


@triton.jit
def _erfc(z):
    return 1.0 - tl.erf(z)


@triton.jit
def _floor(z):
    return tl.floor(z)


@triton.jit
def _where(condition, a, b):
    return tl.where(condition, a, b)


@triton.jit
def _log(z):
    return tl.log(z)


@triton.jit
def _sqrt(z):
    return tl.sqrt_rn(z)


@triton.jit
def _sin(z):
    return tl.sin(z)


@triton.jit
def _cos(z):
    return tl.cos(z)


# The interpreter needs `tl` among the globals of every function.
_BASE = {"tl": tl, "exp": _exp, "abs": _abs, "erfc": _erfc, "floor": _floor, "where": _where}
_VOCABULARY = _BASE | {f.__name__: bind(f, _BASE, triton.jit) for f in ELEMENTARY}
VOCABULARY = _VOCABULARY | {"log": _log, "sqrt": _sqrt, "sin": _sin, "cos": _cos}
"""The names that a neuron's kernel is written with."""


@lru_cache(maxsize=256)
def bound(function: Callable[..., object]):
    """Return a formula's function compiled for the GPU, for calls from kernels."""
    # In the interpreter a constexpr would wrap what it is multiplied by.
    return bind(function, _VOCABULARY, triton.jit, constant=float if INTERPRETED else tl.constexpr)


@triton.jit
def call(function: tl.constexpr, z, p0, p1, p2, COUNT: tl.constexpr):
    """Return function(z, …) of the first COUNT parameters."""
    if COUNT == 1:
        value = function(z, p0)
    elif COUNT == 2:
        value = function(z, p0, p1)
    else:
        value = function(z, p0, p1, p2)
    return value


def padded(values: Sequence[float]) -> tuple[float, ...]:
    """Return one to three parameters of a formula as three."""
    return (*values, 0.0, 0.0)[:3]


def launch(kernel, size: int, *arguments: object, **constants: object) -> None:
    """Start a kernel over `size` elements, without fused multiply-adds: they would round differently."""
    if not size:
        return
    device = next(argument.device for argument in arguments if isinstance(argument, torch.Tensor))
    # Triton starts kernels on the present device, which need not be that of the tensors.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[(triton.cdiv(size, BLOCK),)](*arguments, size, **constants, BLOCK=BLOCK, enable_fp_fusion=False)
