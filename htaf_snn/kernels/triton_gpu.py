"""Compilation of formulas for the GPU by Triton, which can also interpret them on a machine without one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from ._elementary import ELEMENTARY
from .binding import bind

INTERPRETED = triton.knobs.runtime.interpret


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
def _short_tanh(z):
    """Compute tanh in one instruction, with a relative error of 2**-11."""
    return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [z], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _divide(a, b):
    return tl.div_rn(a, b)


@triton.jit
def _sqrt(z):
    return tl.sqrt_rn(z)


@triton.jit
def _precise_exp(z):
    return libdevice.exp(z)


@triton.jit
def _log(z):
    return libdevice.log(z)


@triton.jit
def _sin(z):
    return libdevice.sin(z)


@triton.jit
def _cos(z):
    return libdevice.cos(z)


@triton.jit
def _log_in_interpreter(z):
    return tl.log(z)


@triton.jit
def _sin_in_interpreter(z):
    return tl.sin(z)


@triton.jit
def _cos_in_interpreter(z):
    return tl.cos(z)


# The interpreter needs `tl` among the globals of every function.
_BASE = {"tl": tl, "exp": _exp, "abs": _abs, "erfc": _erfc, "floor": _floor, "where": _where}
_VOCABULARY = _BASE | {f.__name__: bind(f, _BASE, triton.jit) for f in ELEMENTARY}
_MORE = {"divide": _divide, "sqrt": _sqrt}
if INTERPRETED:
    _MORE |= {"log": _log_in_interpreter, "sin": _sin_in_interpreter, "cos": _cos_in_interpreter}
else:
    # Those of the language are approximations, from which spikes would differ.
    _MORE |= {"exp": _precise_exp, "log": _log, "sin": _sin, "cos": _cos}
VOCABULARY = _VOCABULARY | _MORE
"""The names that a neuron's kernel is written with."""


@lru_cache(maxsize=256)
def bound(function: Callable[..., object], is_short: bool = False):
    """Return a formula's function compiled for the GPU, for calls from kernels.

    Args:
        function: the formula's.
        is_short: whether a relative error of 2**-11 in tanh is none in the result; a long tanh is slower than memory.
    """
    vocabulary = _VOCABULARY | ({"tanh": _short_tanh} if is_short and not INTERPRETED else {})
    # In the interpreter a constexpr would wrap what it is multiplied by.
    return bind(function, vocabulary, triton.jit, constant=float if INTERPRETED else tl.constexpr)


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


def on_device_of(*arguments: object) -> AbstractContextManager:
    """Return a context in which kernels start on the device of the first tensor, as Triton starts them on another."""
    device = next(argument.device for argument in arguments if isinstance(argument, torch.Tensor))
    is_elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if is_elsewhere else nullcontext()


def launch(kernel, size: int, *arguments: object, block: int, **constants: object) -> None:
    """Start a kernel over `size` elements, without fused multiply-adds: they would round differently."""
    if not size:
        return
    with on_device_of(*arguments):
        kernel[(triton.cdiv(size, block),)](*arguments, size, **constants, BLOCK=block, enable_fp_fusion=False)
