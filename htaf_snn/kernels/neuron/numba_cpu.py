"""The generated kernels for the CPU, compiled by Numba.

Arrays of inputs are (T, N) and contiguous, those of states (S, N), all of one dtype. Nothing is contracted to fused
multiply-adds, which would round differently from the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType, FunctionType

import numpy as np
import torch
from torch import Tensor

from ...surrogate.formula import Formula, between
from ..binary_linear.numba_cpu import plane_word
from ..numba_cpu import NEURON_VOCABULARIES, as_bits, as_float, bound, compiled, empty, inlined, run
from .kernel import Kernel
from .source import Source, Sources, bits_source
from .trace import UnsupportedError

_between = inlined(between)
# The work of a neuron and time step, in operations, which `run` weighs against the cost of a thread.
_FORWARD_WORK, _BACKWARD_WORK = 1, 4


@inlined
def _narrowed(value):
    """Round to bfloat16, to nearest even; what is positive stays so, as spikes are computed from it again."""
    bits = as_bits(np.float32(value))
    rounded = (bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16)
    rounded = np.int32(1) if rounded == 0 and value > 0 else rounded
    return np.uint16(rounded if value == value else np.int32(0x7FC0))


@inlined
def _widened(bits):
    return as_float(np.int32(bits) << np.int32(16))


def _compiled(kernel: Kernel, scalars: tuple[str, ...], dtype: torch.dtype) -> tuple[Sources, Callable, Callable]:
    # The text changes with the numbers that an update reads from outside.
    sources = kernel.sources(scalars, "numba")
    return sources, *_functions(sources, kernel.surrogate(), dtype)


@lru_cache(maxsize=256)
def _functions(sources: Sources, formula: Formula | None, dtype: torch.dtype) -> tuple[Callable, Callable]:
    vocabulary, number = NEURON_VOCABULARIES[dtype]
    names = {**vocabulary, "np": np, "between": _between, "narrowed": _narrowed, "widened": _widened}
    if formula is not None:
        names |= {"primitive": bound(formula.primitive, dtype), "derivative": bound(formula.derivative, dtype)}
    return _function(sources.forward, names, number), _function(sources.backward, names, number)


def _function(source: Source, names: dict, number: Callable) -> Callable:
    # Numba keeps compiled code beside the file in which a function is said to stand.
    module = compile(source.text, __file__, "exec")
    (code,) = (constant for constant in module.co_consts if isinstance(constant, CodeType))
    constants = tuple(number(c) if isinstance(c, float) else c for c in code.co_consts)
    function = FunctionType(code.replace(co_consts=constants), names, code.co_name)
    function.__module__ = __name__
    return compiled(function)


def _array(tensor: Tensor, like: Tensor) -> np.ndarray:
    """Return a contiguous array in the dtype of `like`.

    NumPy copies: torch's threads keep spinning for a while after a parallel copy, and slow ours down.
    """
    return np.ascontiguousarray(tensor.detach().to(like.dtype).numpy())


def _stacked(states: Sequence[Tensor]) -> np.ndarray:
    return np.stack([state.detach().numpy() for state in states])


def array(tensor: Tensor) -> np.ndarray:
    """Return a contiguous tensor as the kernels take it."""
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()


def _parameters(
    kernel: Kernel, parameters: Sequence[Tensor], values: Tensor, like: Tensor
) -> tuple[tuple[str, ...], dict]:
    """Return the names of scalar parameters, and all parameters and the surrogate's numbers by argument."""
    number = like.numpy().dtype.type
    named = dict(zip(kernel.definition.prepared, parameters, strict=True))
    scalars = kernel.scalars(parameters)
    hardness, *numbers = values.tolist()
    arguments: dict = {f"p{i}": number(value) for i, value in enumerate(numbers)}
    arguments |= {"hard_share": number(hardness), "soft_share": number(1.0 - hardness)}
    for name, tensor in named.items():
        arguments |= {name: number(tensor.item())} if name in scalars else {f"{name}_all": _array(tensor, like)}
    return scalars, arguments


def _run(function: Callable, source: Source, size: int, work: int, arguments: dict) -> None:
    run(function, size, work, *(arguments[name] for name in source.arguments[2:]))


def forward(
    x: Tensor, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: Kernel, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `autograd.neuron`."""
    (steps, size), like = x.shape, start[0]
    scalars, arguments = _parameters(kernel, parameters, values, like)
    sources, function, _ = _compiled(kernel, scalars, like.dtype)
    output, end = empty(x.shape, like.dtype), torch.empty((len(start), size), dtype=like.dtype)
    saved = empty((sources.saved, *x.shape), kernel.saved_dtype(start))
    states = empty((len(start), *x.shape) if kernel.keeps else (0, 0, 0), like.dtype)
    arguments |= {"x_all": _array(x, like), "start_all": _stacked(start), "end_all": end.numpy()}
    arguments |= {"output_all": output.numpy(), "states_all": states.numpy(), "saved_all": array(saved)}
    _run(function, sources.forward, size, steps * _FORWARD_WORK, arguments)
    return output if kernel.is_given else output.to(x.dtype), saved, states, end


def backward(
    grad_output: Tensor, grad_states: Tensor | None, grad_end: Tensor, saved: Tensor, slopes: Tensor | None,
    x: Tensor | None, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: Kernel, values: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """See `autograd.neuron_backward`."""
    (steps, size), like = grad_output.shape, start[0]
    scalars, arguments = _parameters(kernel, parameters, values, like)
    sources, _, function = _compiled(kernel, scalars, like.dtype)
    grad_x, grad_start = empty(grad_output.shape, like.dtype), torch.empty((len(start), size), dtype=like.dtype)
    grad_fired = empty(grad_output.shape if kernel.is_given else (0, 0), like.dtype)
    grad_parameters = torch.from_numpy(np.zeros((len(kernel.learned), size), like.numpy().dtype))
    given = {"grad_output": grad_output, "grad_states": grad_states, "grad_end": grad_end, "slope": slopes, "x": x}
    arguments |= {f"{name}_all": _array(tensor, like) for name, tensor in given.items() if tensor is not None}
    arguments |= {"start_all": _stacked(start), "saved_all": array(saved), "grad_x_all": grad_x.numpy()}
    arguments |= {"grad_fired_all": grad_fired.numpy(), "grad_start_all": grad_start.numpy()}
    arguments |= {"grad_parameters_all": grad_parameters.numpy()}
    _run(function, sources.backward, size, steps * _BACKWARD_WORK, arguments)
    return grad_x, grad_fired, grad_start, grad_parameters


ACCUMULATES = True
"""Whether the backward pass adds the gradients of learned parameters to what is there."""


def of_one_step(
    kernel: Kernel, parameters: Sequence[Tensor], values: Tensor, like: Tensor, is_backward: bool
) -> Callable[[dict], None]:
    """Return the call of a kernel for one time step, which takes its arrays by the names of its arguments."""
    scalars, fixed = _parameters(kernel, parameters, values, like)
    sources, *functions = _compiled(kernel, scalars, like.dtype)
    source, work = (sources.backward, _BACKWARD_WORK) if is_backward else (sources.forward, _FORWARD_WORK)
    return lambda arrays: _run(functions[is_backward], source, like.numel(), work, fixed | arrays)


@lru_cache(maxsize=256)
def _spikes(kernel: Kernel, scalars: tuple[str, ...]) -> tuple[Source, Callable] | None:
    values = zip(kernel.definition.options.items(), kernel.options, strict=True)
    try:
        source = bits_source(kernel.definition, {name: own[index] for (name, own), index in values}, scalars)
    except UnsupportedError:
        return None
    vocabulary, number = NEURON_VOCABULARIES[torch.float32]
    return source, _function(source, {**vocabulary, "np": np, "plane_word": plane_word}, number)


def spikes(x: Tensor, start: Tensor, parameters: Sequence[Tensor], kernel: Kernel) -> Tensor | None:
    """Return the spikes of inputs as bits, at hardness 1; None for neurons that have no such kernel.

    Args:
        x: float32 (T, B, F), contiguous.
        start: float32 (S, F), the states before the first time step.
        parameters: float32, each () or (F,), in the order of the update.
        kernel: of which the neuron and its options count.

    Returns:
        int64 words (T, B, ceil(F / 64)), as those of `binary_linear`.
    """
    named = dict(zip(kernel.definition.prepared, parameters, strict=True))
    scalars = kernel.scalars(parameters)
    made = _spikes(kernel, scalars)
    if made is None:
        return None
    source, function = made
    out = torch.empty(*x.shape[:2], -(-x.shape[2] // 64), dtype=torch.int64)
    arguments: dict = {name: np.float32(named[name].item()) for name in scalars}
    arguments |= {f"{name}_all": array(value) for name, value in named.items() if name not in scalars}
    arguments |= {"x_all": array(x), "start_all": array(start), "out_all": out.numpy().view(np.uint64)}
    _run(function, source, out[0].numel(), 64 * len(x), arguments)
    return out
