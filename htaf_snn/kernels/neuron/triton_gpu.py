"""The generated kernels for the GPU, in Triton.

Inputs are (T, N) in any floating-point dtype, states (S, N) and parameters in float32. The number of time steps is an
ordinary argument.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FunctionType

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...surrogate.formula import Formula, between
from ..triton_gpu import VOCABULARY, bound, launch
from .kernel import Kernel
from .source import Source, Sources

BLOCK, _STAGES, _SHARED_BYTES = 256, 8, 48 << 10
"""Neurons per program; the time steps at most that are loaded ahead, and the memory of a program for them."""


def stages(source: Source) -> int:
    """Return how many time steps are loaded ahead of their turn, which take shared memory for each array."""
    loads = source.text.partition("for step in")[2].count("tl.load(")
    return max(1, min(_STAGES, _SHARED_BYTES // (4 * BLOCK * max(loads, 1))))


_between = bound(between)


@triton.jit
def _narrowed(value):
    """Round to bfloat16, to nearest even; what is positive stays so, as spikes are computed from it again."""
    bits = value.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    rounded = tl.where((rounded == 0) & (value > 0), 1, rounded)
    return tl.where(value == value, rounded, 0x7FC0).to(tl.int16).to(tl.bfloat16, bitcast=True)


@triton.jit
def _widened(value):
    return value.to(tl.float32)


def compiled(kernel: Kernel, scalars: tuple[str, ...]) -> tuple[Sources, Callable, Callable]:
    """Return the kernels' texts and functions."""
    # The text changes with the numbers that an update reads from outside.
    sources = kernel.sources(scalars, "triton")
    return sources, *_functions(sources, kernel.surrogate())


@lru_cache(maxsize=256)
def _functions(sources: Sources, formula: Formula | None) -> tuple[Callable, Callable]:
    names = {**VOCABULARY, "between": _between, "narrowed": _narrowed, "widened": _widened}
    if formula is not None:
        names |= {"primitive": bound(formula.primitive), "derivative": bound(formula.derivative)}
    return _function(sources.forward, names), _function(sources.backward, names)


def _function(source: Source, names: dict) -> Callable:
    # Triton reads a function's source.
    file = f"<htaf_snn {hash(source.text):x}>"
    linecache.cache[file] = (len(source.text), None, source.text.splitlines(keepends=True), file)
    namespace: dict = dict(names)
    exec(compile(source.text, file, "exec"), namespace)
    (function,) = (namespace[name] for name in ("forward", "backward") if name in namespace)
    assert isinstance(function, FunctionType)
    return triton.jit(function, do_not_specialize=["steps"])


def _arguments(kernel: Kernel, parameters: Sequence[Tensor], values: Tensor) -> tuple[tuple[str, ...], dict]:
    named = dict(zip(kernel.definition.prepared, parameters, strict=True))
    scalars = kernel.scalars(parameters)
    hardness, *numbers = values.tolist()
    arguments: dict = {f"p{i}": value for i, value in enumerate(numbers)}
    arguments |= {"hard_share": hardness, "soft_share": 1.0 - hardness}
    return scalars, arguments | {f"{name}_all": tensor.contiguous() for name, tensor in named.items()}


def _run(function: Callable, source: Source, steps: int, size: int, arguments: dict) -> None:
    arguments |= {"steps": steps}
    given = (arguments[name] for name in source.arguments if name != "size")
    launch(function, size, *given, block=BLOCK, STAGES=stages(source))


def _stacked(states: Sequence[Tensor]) -> Tensor:
    """Return states (N,) as a contiguous (S, N)."""
    return states[0].contiguous()[None] if len(states) == 1 else torch.stack(list(states))


def forward(
    x: Tensor, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: Kernel, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `autograd.neuron`."""
    steps, size = x.shape
    scalars, arguments = _arguments(kernel, parameters, values)
    sources, function, _ = compiled(kernel, scalars)
    like = start[0]
    output = x.new_empty(x.shape, dtype=like.dtype if kernel.is_given else x.dtype)
    end = like.new_empty((len(start), size))
    saved = like.new_empty((sources.saved, *x.shape), dtype=kernel.saved_dtype(start))
    states = like.new_empty((len(start), *x.shape) if kernel.keeps else (0, 0, 0))
    arguments |= {"x_all": x.contiguous(), "start_all": _stacked(start), "output_all": output, "end_all": end}
    arguments |= {"saved_all": saved, "states_all": states}
    _run(function, sources.forward, steps, size, arguments)
    return output, saved, states, end


def backward(
    grad_output: Tensor, grad_states: Tensor | None, grad_end: Tensor, saved: Tensor, slopes: Tensor | None,
    x: Tensor | None, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: Kernel, values: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `autograd.neuron_backward`."""
    steps, size = grad_output.shape
    scalars, arguments = _arguments(kernel, parameters, values)
    sources, _, function = compiled(kernel, scalars)
    like = start[0]
    grad_x = torch.empty_like(grad_output, memory_format=torch.contiguous_format)
    grad_fired = like.new_empty(grad_output.shape if kernel.is_given else (0, 0))
    grad_start = like.new_empty((len(start), size))
    grad_parameters = like.new_empty((len(kernel.learned), size))
    given = {"grad_output": grad_output, "grad_states": grad_states, "grad_end": grad_end, "slope": slopes, "x": x}
    given |= {"start": _stacked(start) if "start_all" in sources.backward.arguments else None, "saved": saved}
    arguments |= {f"{name}_all": tensor.contiguous() for name, tensor in given.items() if tensor is not None}
    arguments |= {"grad_x_all": grad_x, "grad_fired_all": grad_fired, "grad_start_all": grad_start}
    arguments |= {"grad_parameters_all": grad_parameters}
    _run(function, sources.backward, steps, size, arguments)
    return grad_x, grad_fired, grad_start, grad_parameters


ACCUMULATES = False
"""Whether the backward pass adds the gradients of learned parameters to what is there."""


def array(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor as the kernels take it."""
    return tensor


def of_one_step(
    kernel: Kernel, parameters: Sequence[Tensor], values: Tensor, like: Tensor, is_backward: bool
) -> Callable[[dict], None]:
    """Return the call of a kernel for one time step, which takes its arrays by the names of its arguments."""
    scalars, fixed = _arguments(kernel, parameters, values)
    sources, *functions = compiled(kernel, scalars)
    source = sources.backward if is_backward else sources.forward
    return lambda arrays: _run(functions[is_backward], source, 1, like.numel(), fixed | arrays)
