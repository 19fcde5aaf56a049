"""Formulas and kernels compiled for the CPU: the vocabulary, the cache on disk, and the threads.

Kernels run in plain threads and release the GIL. Numba's own threading layers would bring a second OpenMP runtime
beside torch's, and the two spin against each other.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from types import FunctionType

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ._elementary import ELEMENTARY, clamp
from .binding import bind

__all__ = ["bound", "compiled", "empty", "inlined", "run"]

# numpy's error model: a division by zero is no exception, whose check would keep loops from being vectorised.
_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}
inlined = njit(**_OPTIONS, forceinline=True)

_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts, the first short enough that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST, _HIGHEST = np.float32(-104.0), np.float32(89.0)
# Adding and subtracting 1.5 * 2**23 rounds to an integer.
_ROUND = np.float32(12582912.0)
_ONE = np.float32(1.0)
# exp(r) = 1 + r + r**2 * q(r) for |r| <= ln(2) / 2; coefficients of the Cephes library.
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5 = (
    np.float32(c) for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 0.16666665, 0.5)
)


@intrinsic
def _as_float(_context, bits):
    def generate(_context, builder, _signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@inlined
def _power_of_two(n):
    return _as_float((n + np.int32(127)) << np.int32(23))


@inlined
def _exp32(x):
    # math.exp does not vectorise; this does. The comparisons let NaN through.
    y = _LOWEST if x < _LOWEST else (_HIGHEST if x > _HIGHEST else x)
    n = (y * _LOG2_E + _ROUND) - _ROUND
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    q = ((((_Q0 * r + _Q1) * r + _Q2) * r + _Q3) * r + _Q4) * r + _Q5
    # In two steps, as 2**n alone may be subnormal or overflow where the result does not.
    exponent = np.int32(n)
    half = exponent >> np.int32(1)
    return (q * r * r + r + _ONE) * _power_of_two(half) * _power_of_two(exponent - half)


@inlined
def _where(condition, a, b):
    return a if condition else b


def _libm(function: Callable) -> Callable:
    @inlined
    def call(z):
        return function(z)

    return call


_BASE = {"where": _where, "floor": _libm(np.floor), "erfc": _libm(math.erfc)}
_FLOAT32 = _BASE | {"exp": _exp32}
_FLOAT64 = _BASE | {"exp": _libm(math.exp), "tanh": _libm(math.tanh), "atan": _libm(math.atan)}
_VOCABULARIES = {
    torch.float32: (_FLOAT32 | {f.__name__: bind(f, _FLOAT32, inlined, np.float32) for f in ELEMENTARY}, np.float32),
    torch.float64: (_FLOAT64 | {"clamp": bind(clamp, _FLOAT64, inlined)}, float),
}


@lru_cache(maxsize=256)
def bound(function: FunctionType, dtype: torch.dtype) -> Callable:
    """A formula's function compiled for the CPU, for calls from other kernels; dtype is float32 or float64."""
    vocabulary, number = _VOCABULARIES[dtype]
    return bind(function, vocabulary, inlined, number)


def _fingerprint(function: object, known: set) -> bytes:
    """What the machine code of a function depends on: its code, and that of all it calls."""
    function = getattr(function, "py_func", function)
    if not isinstance(function, FunctionType):
        return repr(function).encode() if isinstance(function, (int, float, np.number)) else b""
    code = function.__code__
    if code in known:
        return b""
    known.add(code)
    parts = [code.co_code, repr(code.co_consts).encode(), repr(code.co_names).encode()]
    for cell in function.__closure__ or ():
        parts.append(repr(cell.cell_contents).encode())
    for name in code.co_names:
        parts.append(_fingerprint(function.__globals__.get(name), known))
    return b"\0".join(parts)


@lru_cache(maxsize=1024)
def compiled(kernel: FunctionType, **functions: Callable) -> Callable:
    """A kernel with some of the functions that it calls by name set, compiled and cached on disk.

    Numba tells cached kernels apart by their names alone, hence the digest of all the code in the name.
    """
    copy = FunctionType(kernel.__code__, {**kernel.__globals__, **functions}, kernel.__name__)
    digest = hashlib.sha256(_fingerprint(copy, set())).hexdigest()[:16]
    copy.__module__, copy.__qualname__ = kernel.__module__, f"{kernel.__name__}_{digest}"
    try:
        return njit(**_OPTIONS, cache=True)(copy)
    except RuntimeError:  # no folder for the cache can be written
        return njit(**_OPTIONS)(copy)


_MINIMUM = 16384
_threads = lru_cache(maxsize=1)(ThreadPoolExecutor)
# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


def run(kernel: Callable, size: int, work: int, *arguments) -> None:
    """Call kernel(start, stop, *arguments) so that the ranges cover `range(size)`, on as many threads as torch uses.

    Args:
        kernel: compiled, thread-safe for disjoint ranges.
        size: number of independent elements.
        work: operations for each element; little work in all stays in this thread.
        arguments: passed on.
    """
    parts = min(torch.get_num_threads(), max(1, size * work // _MINIMUM), max(1, size // 16))
    # Multiples of 16 elements keep two threads from writing to one cache line.
    cuts = [size * i // parts // 16 * 16 for i in range(parts)] + [size]
    if parts == 1:
        kernel(0, size, *arguments)
        return
    others = [_threads(torch.get_num_threads() - 1).submit(kernel, a, b, *arguments) for a, b in pairwise(cuts[1:])]
    kernel(cuts[0], cuts[1], *arguments)
    for other in others:
        other.result()


_HUGE = 2 << 20
_ADVISE_HUGE = 14


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A new CPU tensor, in large pages where the system has them.

    The kernels are so short that the faults of fresh small pages would cost more than they do.
    """
    tensor = torch.empty(shape, dtype=dtype)
    start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
    first, last = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
    if last > first and sys.platform == "linux":
        # Only advice: a system without large pages refuses it, and nothing is lost.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _ADVISE_HUGE)
    return tensor
