"""Compilation of formulas and kernels for the CPU: the vocabulary, the cache on disk, threads and memory.

Kernels release the GIL and run on the threads of torch's own OpenMP runtime where it can be reached, otherwise on plain
ones. Any other threads, Numba's threading layers included, compete with torch's, which keep spinning for milliseconds
after each parallel operation.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import pairwise
from types import FunctionType
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, extending, njit, typeof, types
from numba.core import cgutils

from ._elementary import ELEMENTARY, clamp
from .binding import bind
from .fingerprint import fingerprint

# NumPy's error model: checking for a division by zero would keep loops from being vectorised.
_jit = partial(njit, nogil=True, error_model="numpy", boundscheck=False)
inlined = _jit(forceinline=True)
# Arrays that a function is passed are counted as used in each call, atomically, unless it may not make any.
uncounted = _jit(forceinline=True, _nrt=False)
# Formulas may round as fused multiply-adds do; the dynamics of a neuron may not, or spikes would differ.
_contracted = _jit(forceinline=True, fastmath={"contract"})


def _inlined_formula(function: Callable[..., Any]) -> Any:
    # A cached kernel imports the modules of its functions, and another process may lack the user's that has a formula.
    function.__module__, function.__qualname__ = __name__, f"{function.__module__}.{function.__qualname__}"
    return _contracted(function)


_LOG2_E = np.float32(1.44269504)
# ln 2 in two parts, the first short enough that its product with an exponent is exact.
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_LOWEST, _HIGHEST = np.float32(-87.0), np.float32(88.0)
# Adding and subtracting 1.5 * 2**23 + 127 rounds to an integer; the sum's lowest bits are a float32's exponent.
_ROUND = np.float32(12582912.0 + 127.0)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
# exp(r) = 1 + r + r**2 * q(r) for |r| <= ln(2) / 2; coefficients of the Cephes library.
_Q0, _Q1, _Q2, _Q3, _Q4, _Q5 = (
    np.float32(c) for c in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 0.16666665, 0.5)
)


def _intrinsic(signature: Any, build: Callable[[ir.IRBuilder, ir.Value], ir.Value]) -> Callable[..., Any]:
    """Return an intrinsic of one argument, for which `build` adds an instruction."""

    @extending.intrinsic
    def intrinsic(_context, _value):
        return signature, lambda _context, builder, _signature, arguments: build(builder, arguments[0])

    return intrinsic


# A float32 from the bits of an int32, and the other way round.
as_float = _intrinsic(types.float32(types.int32), lambda builder, bits: builder.bitcast(bits, ir.FloatType()))
as_bits = _intrinsic(types.int32(types.float32), lambda builder, number: builder.bitcast(number, ir.IntType(32)))
# The position of the lowest one in a word that is not zero.
lowest_bit = _intrinsic(
    types.uint64(types.uint64), lambda builder, word: builder.cttz(word, ir.Constant(ir.IntType(1), 1))
)


@_inlined_formula
def _exp32(x):
    # Unlike math.exp, this vectorises. The comparisons let NaN through.
    y = _HIGHEST if x > _HIGHEST else x
    shifted = y * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    # In pairs and not by Horner's rule: a shorter chain of dependent operations.
    square = r * r
    q = (_Q0 * r + _Q1) * (square * square) + ((_Q2 * r + _Q3) * square + (_Q4 * r + _Q5))
    power_of_two = as_float(as_bits(shifted) << np.int32(23))
    # Results that would be subnormal are zero.
    return _ZERO if x < _LOWEST else (q * square + r + _ONE) * power_of_two


@inlined
def _where(condition, a, b):
    return a if condition else b


@inlined
def _divide(a, b):
    return a / b


def _libm(function: Callable) -> Callable:
    @inlined
    def call(z):
        return function(z)

    return call


_BASE = {"where": _where, "floor": _libm(np.floor), "erfc": _libm(math.erfc)}
_FLOAT32 = _BASE | {"exp": _exp32}
_FLOAT64 = _BASE | {"exp": _libm(math.exp), "tanh": _libm(math.tanh), "atan": _libm(math.atan)}
_VOCABULARIES = {
    torch.float32: (
        _FLOAT32 | {f.__name__: bind(f, _FLOAT32, _inlined_formula, np.float32) for f in ELEMENTARY},
        np.float32,
    ),
    torch.float64: (_FLOAT64 | {"clamp": bind(clamp, _FLOAT64, _inlined_formula)}, float),
}

_MORE = {"divide": _divide} | {name: _libm(getattr(np, name)) for name in ("log", "sqrt", "sin", "cos")}


@inlined
def _whole_exp32(x):
    # In two halves, so that the result overflows to infinity and underflows through the subnormal numbers.
    root = _exp32(_HALF * x)
    return root * root


NEURON_VOCABULARIES: dict[torch.dtype, tuple[dict[str, Any], Callable]] = {
    torch.float32: ({**_VOCABULARIES[torch.float32][0], **_MORE, "exp": _whole_exp32}, np.float32),
    torch.float64: ({**_VOCABULARIES[torch.float64][0], **_MORE}, float),
}
"""The names that a neuron's kernel is written with, and its number type, by dtype."""


@lru_cache(maxsize=256)
def bound(function: Callable[..., object], dtype: torch.dtype) -> Callable:
    """Return a formula's function compiled for the CPU, for calls from kernels; dtype is float32 or float64."""
    vocabulary, number = _VOCABULARIES[dtype]
    return bind(function, vocabulary, _inlined_formula, number)


@lru_cache(maxsize=1024)
def compiled(kernel: Callable[..., object], **functions: Callable) -> Callable:
    """Return a kernel compiled and cached on disk, with `functions` as globals that it calls.

    Numba tells cached kernels apart only by their names, hence the digest of all the code in the name.
    """
    return _cached(_jit, kernel, functions)


def _cached(
    decorate: Callable[..., Any], kernel: Callable[..., object], functions: Mapping[str, Callable], suffix: str = ""
) -> Any:
    assert isinstance(kernel, FunctionType)
    copy = FunctionType(kernel.__code__, {**kernel.__globals__, **functions}, kernel.__name__)
    copy.__module__, copy.__qualname__ = kernel.__module__, f"{kernel.__name__}_{fingerprint(copy)}{suffix}"
    try:
        return decorate(cache=True)(copy)
    except RuntimeError:  # no writable folder for the cache
        return decorate()(copy)


FEWEST_PER_THREAD = 16
"""Elements that `run` gives to a thread at least."""
# Operations that are worth a thread, ranges per thread and the elements of the shortest.
_WORK_PER_THREAD, _RANGES_PER_THREAD, _SHORTEST_RANGE = 16384, 8, 4096
_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_threads = lru_cache(maxsize=1)(ThreadPoolExecutor)


def _find_openmp() -> ctypes.CDLL | None:
    """Return the OpenMP runtime that torch has loaded, if it has GNU's interface, as on Linux."""
    try:
        library = ctypes.CDLL(None)
        return library if library.GOMP_parallel and library.omp_get_thread_num else None
    except (AttributeError, TypeError):
        return None


_openmp = _find_openmp()


def _after_fork() -> None:
    # A forked process has none of its parent's threads, and GNU's runtime would wait for them forever.
    global _openmp
    _openmp = None
    _threads.cache_clear()


os.register_at_fork(after_in_child=_after_fork)


def _team(work: Callable[[], None], size: int) -> None:
    """Call `work` in `size` threads at once; in fewer if OpenMP's region is nested."""
    if _openmp is None:
        others = [_threads(torch.get_num_threads() - 1).submit(work) for _ in range(size - 1)]
        work()
        for other in others:
            other.result()
        return
    errors: list[BaseException] = []

    def member(_):
        try:
            work()
        except BaseException as error:  # ctypes would only print it
            errors.append(error)

    _openmp.GOMP_parallel(_MEMBER(member), None, size, 0)
    if errors:
        raise errors[0]


def run(kernel: Callable, size: int, work: int, *arguments: object) -> None:
    """Call kernel(start, stop, *arguments) so that the ranges cover `range(size)`, on as many threads as torch uses.

    Args:
        kernel: compiled, thread-safe for disjoint ranges.
        size: number of independent elements.
        work: operations per element; little work in total stays in this thread.
        arguments: passed on.
    """
    threads = min(torch.get_num_threads(), max(1, size * work // _WORK_PER_THREAD), max(1, size // FEWEST_PER_THREAD))
    if threads == 1:
        kernel(0, size, *arguments)
        return
    # Many ranges per thread balance the load. Multiples of 16 elements keep two from writing to one cache line.
    parts = min(_RANGES_PER_THREAD * threads, max(threads, size // _SHORTEST_RANGE))
    cuts = [size * i // parts // 16 * 16 for i in range(parts)] + [size]
    ranges = deque(pairwise(cuts))

    def next_ranges() -> None:
        while ranges:
            try:
                start, stop = ranges.popleft()
            except IndexError:
                return
            kernel(start, stop, *arguments)

    _team(next_ranges, threads)


# Natively compiled functions, which the members of a team call without Python: waiting for the GIL would take them
# longer than what they compute, and an exception between two barriers would leave the others waiting forever.
_cfunc: Callable[..., Any] = cfunc  # its annotations lack the options
_native = partial(_cfunc, types.void(types.voidptr), error_model="numpy", boundscheck=False, _nrt=False)
_BYTES, _INT32 = ir.IntType(8).as_pointer(), ir.IntType(32)


@lru_cache(maxsize=1024)
def native(function: Callable[..., object], passed: str) -> Any:
    """Return a function of a pointer, see `passing`, compiled for calls from C and cached on disk.

    It must neither allocate nor raise. Its attribute `address` is what `passing` takes. As it has but a pointer, its
    place in the cache depends on what is `passed`, the text of the types that `passing` returns.
    """
    text = f"{fingerprint(passing, _calling)} {passed}"
    return _cached(_native, function, {}, f"_{hashlib.sha256(text.encode()).hexdigest()[:16]}")


def passing(*examples: object) -> tuple[Callable[..., Any], Callable[..., Any], str]:
    """Return intrinsics that pass arguments, of the types of the examples, to natively compiled functions.

    The first is called in a kernel as call(address, threads, parallel, arguments), with the address of a function of
    `native`, and calls it in this thread alone, or in several if threads > 1, by the first of `team_functions`. The
    second returns within that function the tuple of arguments that its pointer stands for. The third result is the text
    of their types.
    """
    kind = typeof(examples)

    @extending.intrinsic
    def call(_context, address, threads, parallel, arguments):
        assert arguments == kind, f"expected arguments {kind}, got {arguments}"

        def generate(context: Any, builder: ir.IRBuilder, _signature: Any, values: Any) -> Any:
            member = ir.FunctionType(ir.VoidType(), [_BYTES]).as_pointer()
            function = builder.inttoptr(values[0], member)
            data = builder.bitcast(cgutils.alloca_once_value(builder, values[3]), _BYTES)
            is_alone = builder.icmp_signed("<=", values[1], ir.Constant(values[1].type, 1))
            with builder.if_else(is_alone) as (alone, together):
                with alone:
                    builder.call(function, [data])
                with together:
                    kinds = [member, _BYTES, _INT32, _INT32]
                    start = builder.inttoptr(values[2], ir.FunctionType(ir.VoidType(), kinds).as_pointer())
                    builder.call(start, [function, data, builder.trunc(values[1], _INT32), ir.Constant(_INT32, 0)])
            return context.get_dummy_value()

        return types.void(address, threads, parallel, arguments), generate

    @extending.intrinsic
    def passed(_context, pointer):
        def generate(context: Any, builder: ir.IRBuilder, _signature: Any, values: Any) -> Any:
            return builder.load(builder.bitcast(values[0], context.get_value_type(kind).as_pointer()))

        return kind(pointer), generate

    return call, passed, str(kind)


def _calling(result: Any, kind: ir.Type) -> Callable[..., Any]:
    def build(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        value = builder.call(builder.inttoptr(address, ir.FunctionType(kind, []).as_pointer()), [])
        return value if kind == _INT32 else ir.Constant(_BYTES, None)

    return _intrinsic(result(types.int64), build)


call_for_number, call_for_nothing = _calling(types.int32, _INT32), _calling(types.void, ir.VoidType())
"""Intrinsics that call a C function at an address, which takes nothing and returns an int or nothing."""


Team = tuple[int, int, int, int]
NO_TEAM: Team = (0, 0, 0, 0)


def team_functions() -> Team:
    """Return the addresses of OpenMP's functions, `NO_TEAM` if there is no OpenMP.

    They start a team of threads, wait in it for all others, and return a thread's number and how many threads it has.
    """
    return NO_TEAM if _openmp is None else _addresses(_openmp)


@lru_cache(maxsize=1)
def _addresses(library: ctypes.CDLL) -> Team:
    names = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")
    start, wait, number, size = (ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
    return start, wait, number, size


_PAGE = 2 << 20
_KEPT_BYTES = 1 << 29
_free: dict[int, deque[np.ndarray]] = {}


def _give_back(block: np.ndarray) -> None:
    if sum(size * len(blocks) for size, blocks in list(_free.items())) + block.size <= _KEPT_BYTES:
        _free.setdefault(block.size, deque()).append(block)
    else:
        _free.clear()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return a new CPU tensor; the memory of large ones is reused once they are freed.

    Zeroing fresh pages would take the system several times as long as the kernels run. At most half a gibibyte is kept,
    and all of it is dropped when more is freed: then the sizes in use have changed.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < _PAGE:
        return torch.empty(shape, dtype=dtype)
    size = -(-nbytes // _PAGE) * _PAGE
    try:
        block = _free[size].pop()
    except (KeyError, IndexError):
        block = np.empty(size, np.uint8)
    lease = block[:nbytes]
    weakref.finalize(lease, _give_back, block).atexit = False
    storage = torch.from_numpy(lease).untyped_storage()
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)  # type: ignore[call-overload]  # stub: no default stride
