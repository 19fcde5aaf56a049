"""The generated kernels as `torch.library` operators.

Operators take inputs (T, N), states, each (N,), and parameters, each () or (N,), in the order of the update; all but
the inputs in the states' dtype. A kernel is given as text, and the hardness and the formula's parameters as
`values`, a float64 tensor on the CPU: numbers would be constants of a compiled graph, and an annealed one would compile
it again.
"""

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor

from .. import _dispatch
from .._operator import operator
from .kernel import parsed


def _forward(
    x: Tensor, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: str, values: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    made = parsed(kernel)
    made = made.at(values[0].item(), made.scalars(parameters), backend)
    return _dispatch.load(backend, __package__).forward(x, start, parameters, made, values)


@operator
def neuron(
    x: Tensor, start: list[Tensor], parameters: list[Tensor], kernel: str, values: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output (T, N), what is saved (M, T, N), the states after each step (S, T, N) or none, and the last (S, N)."""
    return _forward(x, start, parameters, kernel, values, backend)


@torch.library.register_fake(neuron)
def _(x, start, parameters, kernel, values, backend):
    made = parsed(kernel)
    saved = made.sources(made.scalars(parameters), backend).saved
    return (
        x.new_empty(x.shape, dtype=start[0].dtype if made.is_given else x.dtype),
        x.new_empty((saved, *x.shape), dtype=made.saved_dtype(start)),
        x.new_empty((len(start), *x.shape) if made.keeps else (0, 0, 0), dtype=start[0].dtype),
        x.new_empty((len(start), x.shape[1]), dtype=start[0].dtype),
    )


def _backward(
    grad_output: Tensor, grad_states: Tensor | None, grad_end: Tensor, saved: Tensor, slopes: Tensor | None,
    x: Tensor | None, start: Sequence[Tensor], parameters: Sequence[Tensor], kernel: str, values: Tensor, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _dispatch.load(backend, __package__).backward(
        grad_output, grad_states, grad_end, saved, slopes, x, start, parameters, parsed(kernel), values
    )


@operator
def neuron_backward(
    grad_output: Tensor, grad_states: Optional[Tensor], grad_end: Tensor, saved: Tensor,  # noqa: UP045
    slopes: Optional[Tensor], x: Optional[Tensor], start: list[Tensor], parameters: list[Tensor],  # noqa: UP045
    kernel: str, values: Tensor, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of the spikes where they are given, of the start (S, N), of the learned parameters (L, N)."""
    return _backward(grad_output, grad_states, grad_end, saved, slopes, x, start, parameters, kernel, values, backend)


@torch.library.register_fake(neuron_backward)
def _(grad_output, grad_states, grad_end, saved, slopes, x, start, parameters, kernel, values, backend):
    made = parsed(kernel)
    like = grad_output if backend == "triton" else grad_end
    return (
        like.new_empty(grad_output.shape),
        grad_end.new_empty(grad_output.shape if made.is_given else (0, 0)),
        grad_end.new_empty(grad_end.shape),
        grad_end.new_empty((len(made.learned), grad_end.shape[1])),
    )


def _incoming(
    ctx, keeps: bool, grad_output: Tensor | None, grad_states: Tensor | None, grad_end: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients of what an operator returned, zeros in place of None."""

    def or_zeros(grad: Tensor | None, *shape: int) -> Tensor:
        return like.new_zeros(()).expand(shape) if grad is None else grad

    steps, size = ctx.shape
    kept = or_zeros(grad_states, ctx.states, steps, size) if keeps else None
    end = like.new_zeros((ctx.states, size)) if grad_end is None else grad_end
    return or_zeros(grad_output, steps, size), kept, end


def refuse_second_order() -> None:
    """Raise where a backward pass is itself to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph: expected backend='torch' for second derivatives, which the kernels of fused neurons lack"
        )


def by_parameter(learned: tuple[int, ...], parameters: Sequence[Tensor], gradients: Tensor) -> list[Tensor | None]:
    """Return the gradient of each parameter, None of those not learned, from those of the learned ones (L, N)."""
    found = dict(zip(learned, gradients, strict=True))
    return [found[i].sum_to_size(tensor.shape) if i in found else None for i, tensor in enumerate(parameters)]


def _needed(ctx, x: Tensor, parameters: Sequence[Tensor]) -> Tensor | None:
    """Return the input if the backward pass needs it."""
    made = parsed(ctx.kernel)
    return x if made.sources(made.scalars(parameters), ctx.backend).keeps_input else None


def _save(ctx, inputs, output):
    x, start, parameters, ctx.kernel, values, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.shape, ctx.dtype, ctx.states = x.shape, x.dtype, len(start)
    ctx.save_for_backward(output[1], _needed(ctx, x, parameters), values, *start, *parameters)


def _gradients(ctx, grad_output, _saved, grad_states, grad_end, compute=neuron_backward):
    refuse_second_order()
    saved, x, values, *tensors = ctx.saved_tensors
    start, parameters = tensors[: ctx.states], tensors[ctx.states :]
    grad_x, _, grad_start, grads = compute(
        *_incoming(ctx, parsed(ctx.kernel).keeps, grad_output, grad_states, grad_end, start[0]), saved, None, x, start,
        parameters, ctx.kernel, values, ctx.backend,
    )  # fmt: skip
    by_parameters = by_parameter(parsed(ctx.kernel).learned_places(), parameters, grads)
    return grad_x.to(ctx.dtype), list(grad_start), by_parameters, None, None, None


torch.library.register_autograd(neuron, _gradients, setup_context=_save)


class EagerNeuron(torch.autograd.Function):
    """The operator `neuron` without its way through torch's dispatcher, which takes longer than a kernel on a GPU."""

    @staticmethod
    def forward(ctx, x, kernel, values, backend, count, *tensors):
        start, parameters = tensors[:count], tensors[count:]
        output, saved, states, end = _forward(x, start, parameters, kernel, values, backend)
        _save(ctx, (x, start, parameters, kernel, values, backend), (output, saved))
        return output, states, end

    @staticmethod
    def backward(ctx, grad_output, grad_states, grad_end):
        grad_x, by_start, by_parameters, *_ = _gradients(ctx, grad_output, None, grad_states, grad_end, _backward)
        return grad_x, None, None, None, None, *by_start, *by_parameters


def _unaliased(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return a function's inputs as its outputs; AOTAutograd would apply a view again outside of the function."""
    return tuple(t.clone() if torch.compiler.is_compiling() else t.view_as(t) for t in tensors)


class NeuronWith(torch.autograd.Function):
    """NeuronWith.apply(x, spikes, saved, slopes, states, end, kernel, learned, values, backend, count, *tensors).

    Joins what a callable made of the potentials, `spikes` (T, N) with derivatives `slopes`, to the dynamics that they
    are of. Returns spikes, states and end, now as functions of the input, the spikes and the tensors: `count` states at
    the start and the parameters, those at the places `learned` with a gradient.
    """

    @staticmethod
    def forward(x, spikes, saved, slopes, states, end, kernel, learned, values, backend, count, *tensors):
        return _unaliased(spikes, states, end)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, spikes, saved, slopes, states, _, ctx.kernel, ctx.learned, values, ctx.backend, ctx.states, *tensors = inputs
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.dtypes, ctx.keeps = x.shape, (x.dtype, spikes.dtype), len(states) > 0
        # A compiler cannot look at the kernel.
        needed = x if torch.compiler.is_compiling() else _needed(ctx, x, tensors[ctx.states :])
        ctx.save_for_backward(saved, slopes, needed, values, *tensors)

    @staticmethod
    def backward(ctx, grad_spikes, grad_states, grad_end):
        refuse_second_order()
        saved, slopes, x, values, *tensors = ctx.saved_tensors
        start, parameters = tensors[: ctx.states], tensors[ctx.states :]
        grad_x, grad_fired, grad_start, grads = neuron_backward(
            *_incoming(ctx, ctx.keeps, grad_spikes, grad_states, grad_end, start[0]), saved, slopes, x, start,
            parameters, ctx.kernel, values, ctx.backend,
        )  # fmt: skip
        by_parameters = by_parameter(ctx.learned, parameters, grads)
        return grad_x.to(ctx.dtypes[0]), grad_fired.to(ctx.dtypes[1]), *[None] * 9, *grad_start, *by_parameters
