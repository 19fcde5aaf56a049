"""Recurrent neurons: the generated kernels of one time step, and one product with the weights per time step.

The backward pass runs back through time by itself, without an autograd graph of all steps, and forms the gradient of
the weights in one product over all of them. Inputs are (T, B, ...), states (N,) as in `autograd`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn import grad as grad_of

from ...neurons.base import Neuron, Sum
from ...surrogate import Surrogate
from .. import _dispatch
from .._operator import operator
from . import reference
from .autograd import by_parameter, refuse_second_order
from .kernel import Kernel, parsed

KINDS = ("linear", "conv2d", "elementwise")


def _padding(weight: Tensor) -> tuple[int, int]:
    return weight.shape[2] // 2, weight.shape[3] // 2


def feed(kind: str, spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what spikes (B, ...) send back to the neurons: x Wᵀ + b, a convolution, or w x for each neuron."""
    if kind == "linear":
        return functional.linear(spikes, weight, bias)
    if kind == "conv2d":
        return functional.conv2d(spikes, weight, bias, padding=_padding(weight))
    return spikes * weight


def _by_spikes(kind: str, grad: Tensor, weight: Tensor) -> Tensor:
    if kind == "linear":
        return grad @ weight
    if kind == "conv2d":
        return grad_of.conv2d_input(grad.shape, weight, grad, padding=_padding(weight))
    return grad * weight


def _by_weight(kind: str, grad: Tensor, spikes: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the weight from gradients and spikes of all time steps, (T, B, ...)."""
    if kind == "elementwise":
        return (grad * spikes).sum(0).sum_to_size(weight.shape)
    grad, spikes = grad.flatten(0, 1), spikes.flatten(0, 1)
    if kind == "linear":
        return grad.T @ spikes
    return grad_of.conv2d_weight(spikes, weight.shape, grad, padding=_padding(weight))


def _before(first: Tensor, later: Tensor) -> Tensor:
    """Return the values before each time step, from that before the first and those after each."""
    return torch.cat([first[None], later[:-1]]) if len(later) else later


def _needs_states(kernel: Kernel, parameters: Sequence[Tensor], backend: str) -> bool:
    """Return whether the backward pass of a time step needs the states before it."""
    return "start_all" in kernel.sources(kernel.scalars(parameters), backend).backward.arguments


@operator
def recurrent(
    x: Tensor, spikes: Tensor, start: list[Tensor], parameters: list[Tensor], weight: Tensor,
    bias: Optional[Tensor], kind: str, keep: bool, kernel: str, values: Tensor, backend: str,  # noqa: UP045
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Output (T, B, ...), what is saved (T, M, N), the states after each step (T, S, N) or none, the last (S, N).

    The states are returned if the backward pass needs them too.
    """
    made, size, steps = parsed(kernel), spikes.numel(), len(x)
    made = made.at(values[0].item(), made.scalars(parameters), backend)
    kernels = _dispatch.load(backend, __package__)
    step, like = kernels.of_one_step(made, parameters, values, start[0], False), start[0]
    currents = x.to(like.dtype).reshape(steps, size).contiguous()
    output = torch.empty_like(currents)
    saved = like.new_empty(
        (steps, made.sources(made.scalars(parameters), backend).saved, size), dtype=made.saved_dtype(start)
    )
    keep = keep or _needs_states(made, parameters, backend)
    # Without keeping them, the states after a time step and those before it take turns.
    ends = like.new_empty((steps if keep else 2, len(start), size))
    arrays = [kernels.array(tensor) for tensor in (currents, output, saved, ends)]
    before, end = kernels.array(torch.stack([state.contiguous() for state in start])), torch.stack(list(start))
    for t in range(steps):
        feedback = feed(kind, spikes, weight, bias).reshape(1, size)
        row, place = slice(t, t + 1), t if keep else t % 2
        step({
            "x_all": arrays[0][row], "feedback_all": kernels.array(feedback), "start_all": before,
            "output_all": arrays[1][row], "saved_all": arrays[2][t][:, None], "end_all": arrays[3][place],
        })  # fmt: skip
        before, end = arrays[3][place], ends[place]
        # A copy is aligned as the libraries' tensors are, on which the rounding of a matrix product may depend.
        spikes = output[t].clone().view(spikes.shape)
    return output.view(x.shape), saved, ends if keep else like.new_empty((0, 0, 0)), end.clone()


@torch.library.register_fake(recurrent)
def _(x, spikes, start, parameters, weight, bias, kind, keep, kernel, values, backend):
    made, size, dtype = parsed(kernel), spikes.numel(), start[0].dtype
    saved = made.sources(made.scalars(parameters), backend).saved
    return (
        x.new_empty(x.shape, dtype=dtype),
        x.new_empty((len(x), saved, size), dtype=made.saved_dtype(start)),
        x.new_empty(
            (len(x), len(start), size) if keep or _needs_states(made, parameters, backend) else (0, 0, 0), dtype=dtype
        ),
        x.new_empty((len(start), size), dtype=dtype),
    )


@operator
def recurrent_backward(
    grad_output: Tensor, grad_states: Optional[Tensor], grad_end: Tensor, output: Tensor, saved: Tensor,  # noqa: UP045
    trajectory: Tensor, x: Optional[Tensor], spikes: Tensor, start: list[Tensor], parameters: list[Tensor],  # noqa: UP045
    weight: Tensor, bias: Optional[Tensor], kind: str, kernel: str, values: Tensor, backend: str,  # noqa: UP045
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, the spikes before the first step, the start (S, N), the learned parameters (L, N), the weight."""
    made, steps, size = parsed(kernel), len(output), spikes.numel()
    kernels = _dispatch.load(backend, __package__)
    step, like = kernels.of_one_step(made, parameters, values, start[0], True), start[0]
    grad_x, learned = torch.empty_like(output), like.new_zeros((len(made.learned), size))
    of_step = learned if kernels.ACCUMULATES else torch.empty_like(learned)
    ends, back, before = like.new_empty((2, len(start), size)), torch.zeros_like(spikes), _before(spikes, output)
    currents = None if x is None else x.to(like.dtype).reshape(steps, size).contiguous()
    first = torch.stack([state.contiguous() for state in start])
    for t in range(steps - 1, -1, -1):
        incoming = (grad_output[t] + back).reshape(1, size)
        grad_end = grad_end.contiguous() if grad_states is None else grad_end + grad_states[t]
        given = {
            "grad_output_all": incoming, "grad_end_all": grad_end, "saved_all": saved[t][:, None],
            "start_all": trajectory[t - 1] if t and len(trajectory) else first,
            "grad_x_all": grad_x[t].view(1, size), "grad_start_all": ends[t % 2], "grad_parameters_all": of_step,
        }  # fmt: skip
        if currents is not None:
            feedback = feed(kind, before[t], weight, bias).reshape(1, size)
            given |= {"x_all": currents[t : t + 1], "feedback_all": feedback}
        step({name: kernels.array(tensor) for name, tensor in given.items()})
        if not kernels.ACCUMULATES:
            learned += of_step
        grad_end = ends[t % 2]
        back = _by_spikes(kind, grad_x[t], weight)
    return grad_x, back, grad_end.clone(), learned, _by_weight(kind, grad_x, before, weight)


@torch.library.register_fake(recurrent_backward)
def _(
    grad_output, grad_states, grad_end, output, saved, trajectory, x, spikes, start, parameters, weight, bias, kind,
    kernel, values, backend,
):  # fmt: skip
    learned = grad_end.new_empty((len(parsed(kernel).learned), spikes.numel()))
    return (
        torch.empty_like(output), torch.empty_like(spikes), torch.empty_like(grad_end), learned,
        torch.empty_like(weight),
    )  # fmt: skip


def _save(ctx, inputs, output):
    x, spikes, start, parameters, weight, bias, ctx.kind, ctx.keep, ctx.kernel, values, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.count, ctx.dtype = len(start), x.dtype
    made = parsed(ctx.kernel)
    keeps_input = made.sources(made.scalars(parameters), ctx.backend).keeps_input
    ctx.save_for_backward(*output[:3], x if keeps_input else None, spikes, values, weight, bias, *start, *parameters)


def _gradients(ctx, grad_output, _saved, grad_states, grad_end):
    refuse_second_order()
    output, saved, trajectory, x, spikes, values, weight, bias, *tensors = ctx.saved_tensors
    start, parameters = tensors[: ctx.count], tensors[ctx.count :]
    zero = torch.zeros_like(output) if grad_output is None else grad_output.contiguous()
    end = output.new_zeros((ctx.count, spikes.numel())) if grad_end is None else grad_end
    grad_x, by_spikes, by_start, by_learned, by_weight = recurrent_backward(
        zero, grad_states if ctx.keep else None, end, output, saved, trajectory, x, spikes, start, parameters, weight,
        bias, ctx.kind, ctx.kernel, values, ctx.backend,
    )  # fmt: skip
    by_bias = None if bias is None else grad_x.sum([i for i in range(grad_x.ndim) if i != 2])
    by_parameters = by_parameter(parsed(ctx.kernel).learned_places(), parameters, by_learned)
    return grad_x.to(ctx.dtype), by_spikes, list(by_start), by_parameters, by_weight, by_bias, *[None] * 5


torch.library.register_autograd(recurrent, _gradients, setup_context=_save)


def run_reference(
    neuron: Neuron, x: Tensor, spikes: Tensor, states: Sequence[Tensor], keywords: Mapping, surrogate: Surrogate,
    weight: Tensor, bias: Tensor | None, kind: str, keep: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Step in plain torch: the output (T, B, ...), the last states, and if `keep` all of them, each (T, B, ...)."""
    outputs, trajectory = [], []
    for current in x.to(spikes.dtype):
        given = Sum(current, feed(kind, spikes, weight, bias))
        spikes, states = reference.step(neuron, given, states, keywords, surrogate)
        outputs.append(spikes)
        trajectory.append(states)
    return reference.collected(x, outputs, states, trajectory, keep)


def run_fused(
    x: Tensor, spikes: Tensor, start: list[Tensor], parameters: list[Tensor], kernel: Kernel, values: Tensor,
    weight: Tensor, bias: Tensor | None, kind: str, keep: bool, backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Run by the kernels: as `run_reference`, from flat states and parameters."""
    output, _, trajectory, end = recurrent(
        x, spikes, start, parameters, weight, bias, kind, keep, str(kernel), values, backend
    )
    shape = spikes.shape
    kept = trajectory.view(len(x), len(start), *shape).unbind(1) if keep else ()
    return output.to(x.dtype), *end.view(len(start), *shape).unbind(), *kept
