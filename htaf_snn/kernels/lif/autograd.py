"""The fused neurons as `torch.library` operators, and the way in which any callable gives the spikes.

Operators take currents (T, N), parameters and states (N,), all but the currents in the state's dtype, and a formula
by its name with `values`, the hardness and the formula's parameters, a float64 tensor on the CPU: numbers would be
constants of a compiled graph, and an annealed one would compile it again. Nothing but the membrane trace is saved for
the backward pass, in the requested dtype.
"""

from typing import Optional

import torch
from torch import Tensor

from ...surrogate.formula import formula_named
from .. import _dispatch
from .._operator import operator


@operator
def leaky(
    x: Tensor, beta: Tensor, threshold: Tensor, v0: Tensor, formula: str, values: Tensor, reset: str,
    delay: bool, keep: bool, save_dtype: torch.dtype, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Spikes (T, N), the trace to save, the potentials after each step (empty unless `keep`), the last one (N,)."""
    forward = _dispatch.load(backend, __package__).leaky_forward
    return forward(x, beta, threshold, v0, formula_named(formula), values.tolist(), reset, delay, keep, save_dtype)


@torch.library.register_fake(leaky)
def _(x, beta, threshold, v0, formula, values, reset, delay, keep, save_dtype, backend):
    potentials = x.new_empty(x.shape if keep else (0, 0), dtype=v0.dtype)
    return torch.empty_like(x), torch.empty_like(x, dtype=save_dtype), potentials, torch.empty_like(v0)


@operator
def leaky_backward(
    grad_spikes: Tensor, grad_potentials: Optional[Tensor], grad_last: Tensor, trace: Tensor,  # noqa: UP045
    slopes: Optional[Tensor], beta: Tensor, threshold: Tensor, v0: Tensor, formula: str, values: Tensor,  # noqa: UP045
    reset: str, delay: bool, learns: bool, keep_steps: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of the step's outputs (empty unless `keep_steps`), beta, threshold and v0, in v0's dtype.

    `slopes` (T, N) are the derivatives of the spikes, or None for the formula's.
    """
    return _dispatch.load(backend, __package__).leaky_backward(
        grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, formula_named(formula),
        values.tolist(), reset, delay, learns, keep_steps,
    )  # fmt: skip


@torch.library.register_fake(leaky_backward)
def _(
    grad_spikes, grad_potentials, grad_last, trace, slopes, beta, threshold, v0, formula, values, reset, delay,
    learns, keep_steps, backend,
):  # fmt: skip
    grad_x = torch.empty_like(trace, dtype=v0.dtype)
    grad_steps = grad_x.new_empty(grad_x.shape if keep_steps else (0, 0))
    return grad_x, grad_steps, torch.empty_like(v0), torch.empty_like(v0), torch.empty_like(v0)


@operator
def cuba(
    x: Tensor, parameters: Tensor, v0: Tensor, i0: Tensor, formula: str, values: Tensor,
    detach: bool, save_dtype: torch.dtype, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Spikes (T, N), the trace to save, the last potential and current (N,).

    `parameters` (5, N) are dt * tau_mem_inv, -dt * tau_syn_inv, leak, threshold and reset potential.
    """
    forward = _dispatch.load(backend, __package__).cuba_forward
    return forward(x, parameters, v0, i0, formula_named(formula), values.tolist(), save_dtype)


@torch.library.register_fake(cuba)
def _(x, parameters, v0, i0, formula, values, detach, save_dtype, backend):
    return torch.empty_like(x), torch.empty_like(x, dtype=save_dtype), torch.empty_like(v0), torch.empty_like(v0)


@operator
def cuba_backward(
    grad_spikes: Tensor, grad_v: Tensor, grad_i: Tensor, trace: Tensor, slopes: Optional[Tensor],  # noqa: UP045
    x: Optional[Tensor], parameters: Tensor, v0: Tensor, i0: Tensor, formula: str, values: Tensor,  # noqa: UP045
    detach: bool, keep_steps: bool, backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, of the step's outputs (empty unless `keep_steps`), the parameters, v0 and i0.

    Those of the parameters are zero where x is None.
    """
    return _dispatch.load(backend, __package__).cuba_backward(
        grad_spikes, grad_v, grad_i, trace, slopes, x, parameters, v0, i0, formula_named(formula), values.tolist(),
        detach,
        x is not None, keep_steps,
    )  # fmt: skip


@torch.library.register_fake(cuba_backward)
def _(grad_spikes, grad_v, grad_i, trace, slopes, x, parameters, v0, i0, formula, values, detach, keep_steps, backend):
    grad_x = torch.empty_like(trace, dtype=v0.dtype)
    grad_steps = grad_x.new_empty(grad_x.shape if keep_steps else (0, 0))
    return grad_x, grad_steps, torch.empty_like(parameters), torch.empty_like(v0), torch.empty_like(v0)


# Where the derivatives of the spikes are given, any formula does.
_ANY = "straight_through", torch.ones(2, dtype=torch.float64)


def _or_zeros(grad: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return like.new_zeros((), dtype=dtype).expand(like.shape) if grad is None else grad


def _refuse_second_order() -> None:
    """Raise where a backward pass is itself to be differentiated."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "create_graph: expected backend='torch' for second derivatives, which the kernels of fused neurons lack"
        )


def _unaliased(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return a function's inputs as its outputs; AOTAutograd would apply a view again outside of the function."""
    return tuple(t.clone() if torch.compiler.is_compiling() else t.view_as(t) for t in tensors)


def _save_leaky(ctx, inputs, output):
    x, beta, threshold, v0, ctx.formula, values, ctx.reset, ctx.delay, _, _, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.dtype, ctx.learns = x.dtype, beta.requires_grad or threshold.requires_grad
    ctx.save_for_backward(output[1], beta, threshold, v0, values)


def _leaky_grads(ctx, grad_spikes, _trace, grad_potentials, grad_last):
    _refuse_second_order()
    trace, beta, threshold, v0, values = ctx.saved_tensors
    grad_x, _, *grads = leaky_backward(
        _or_zeros(grad_spikes, trace, v0.dtype), grad_potentials, _or_zeros(grad_last, v0), trace, None, beta,
        threshold, v0, ctx.formula, values, ctx.reset, ctx.delay, ctx.learns, False, ctx.backend,
    )  # fmt: skip
    return grad_x.to(ctx.dtype), *grads, *[None] * 7


torch.library.register_autograd(leaky, _leaky_grads, setup_context=_save_leaky)


def _save_cuba(ctx, inputs, output):
    x, parameters, v0, i0, ctx.formula, values, ctx.detach, _, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.dtype = x.dtype
    # The gradients of the time constants need the currents, which need the input.
    ctx.save_for_backward(output[1], x if parameters.requires_grad else None, parameters, v0, i0, values)


def _cuba_grads(ctx, grad_spikes, _trace, grad_v, grad_i):
    _refuse_second_order()
    trace, x, parameters, v0, i0, values = ctx.saved_tensors
    grad_x, _, *grads = cuba_backward(
        _or_zeros(grad_spikes, trace, v0.dtype), _or_zeros(grad_v, v0), _or_zeros(grad_i, i0), trace, None, x,
        parameters, v0, i0, ctx.formula, values, ctx.detach, False, ctx.backend,
    )  # fmt: skip
    return grad_x.to(ctx.dtype), *grads, *[None] * 5


torch.library.register_autograd(cuba, _cuba_grads, setup_context=_save_cuba)


class LeakyWith(torch.autograd.Function):
    """LeakyWith.apply(x, beta, threshold, v0, steps, trace, slopes, potentials, last, reset, delay, backend).

    Joins what a callable made of the trace, `steps` (T, N) with derivatives `slopes`, to the dynamics that the trace
    is of. Returns steps, potentials and last, now as functions of all five differentiable arguments.
    """

    @staticmethod
    def forward(x, beta, threshold, v0, steps, trace, slopes, potentials, last, reset, delay, backend):
        return _unaliased(steps, potentials, last)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, beta, threshold, v0, steps, trace, slopes, _, _, ctx.reset, ctx.delay, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.dtypes = x.dtype, steps.dtype
        ctx.save_for_backward(trace, slopes, beta, threshold, v0)

    @staticmethod
    def backward(ctx, grad_spikes, grad_potentials, grad_last):
        _refuse_second_order()
        trace, slopes, beta, threshold, v0 = ctx.saved_tensors
        grad_x, grad_steps, *grads = leaky_backward(
            _or_zeros(grad_spikes, trace), grad_potentials, _or_zeros(grad_last, v0), trace, slopes, beta, threshold,
            v0, *_ANY, ctx.reset, ctx.delay, any(ctx.needs_input_grad[1:3]), True, ctx.backend,
        )  # fmt: skip
        return grad_x.to(ctx.dtypes[0]), *grads, grad_steps.to(ctx.dtypes[1]), *[None] * 7


class CubaWith(torch.autograd.Function):
    """CubaWith.apply(x, parameters, v0, i0, steps, trace, slopes, last_v, last_i, detach, backend), as `LeakyWith`."""

    @staticmethod
    def forward(x, parameters, v0, i0, steps, trace, slopes, last_v, last_i, detach, backend):
        return _unaliased(steps, last_v, last_i)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, parameters, v0, i0, steps, trace, slopes, _, _, ctx.detach, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.dtypes = x.dtype, steps.dtype
        ctx.save_for_backward(trace, slopes, x if parameters.requires_grad else None, parameters, v0, i0)

    @staticmethod
    def backward(ctx, grad_spikes, grad_v, grad_i):
        _refuse_second_order()
        trace, slopes, x, parameters, v0, i0 = ctx.saved_tensors
        grad_x, grad_steps, *grads = cuba_backward(
            _or_zeros(grad_spikes, trace), _or_zeros(grad_v, v0), _or_zeros(grad_i, i0), trace, slopes, x, parameters,
            v0, i0, *_ANY, ctx.detach, True, ctx.backend,
        )  # fmt: skip
        return grad_x.to(ctx.dtypes[0]), *grads, grad_steps.to(ctx.dtypes[1]), *[None] * 6
