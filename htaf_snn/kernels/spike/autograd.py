"""The differentiable step: one saved tensor, the formula's derivative in the backward pass.

Large tensors and plain numbers go to a kernel of one pass; for the rest, and where the compiler or a second
derivative wants to see the operations, there is the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ... import formulas
from .. import _dispatch
from .._operator import operator
from . import reference

# Below this the call of a kernel takes longer than the reference's dozen passes.
_LARGE = 2**15


@operator
def primitive(x: Tensor, formula: str, values: list[float], backend: str) -> Tensor:
    """The primitive of a formula at x, in the dtype of x and contiguous."""
    return _dispatch.load(backend, __package__).primitive(x, formulas.get(formula), values)


@operator
def gradient(grad: Tensor, x: Tensor, formula: str, values: list[float], backend: str) -> Tensor:
    """grad times the derivative of a formula at x, in the dtype of x and contiguous."""
    return _dispatch.load(backend, __package__).gradient(grad, x, formulas.get(formula), values)


@torch.library.register_fake(primitive)
def _(x, formula, values, backend):
    return x.new_empty(x.shape)


@torch.library.register_fake(gradient)
def _(grad, x, formula, values, backend):
    return x.new_empty(x.shape)


def _backend(x: Tensor, formula: formulas.Formula, parameters: tuple) -> str:
    """The backend for numbers as parameters; torch where a kernel cannot compute or is not worth its call."""
    if (
        torch.compiler.is_compiling()
        or _dispatch.is_transformed()
        or x.numel() < _LARGE
        or any(isinstance(p, Tensor) for p in parameters)
        or not (formulas.is_registered(formula) and formula.portable)
    ):
        return "torch"
    return _dispatch.choose("auto", x.device, torch.float64 if x.dtype == torch.float64 else torch.float32)


def _in_plain_operations(x: Tensor, formula: formulas.Formula, smooth: bool, parameters: tuple) -> Tensor:
    """The step, to which zeros are added that carry its derivatives.

    An exported graph keeps the forward pass of an autograd function alone, and Dynamo does not follow one through
    torch.func nor with dynamic numbers.
    """
    value = reference.primitive(x, formula, parameters).detach() if smooth else reference.heaviside(x)
    if torch.compiler.is_exporting() or _dispatch.is_transformed():
        x = torch.where(x.isinf(), x.detach(), x)  # at infinity the slope's own slope may be NaN
        # The product's second derivative is that of the slope alone, as the slope's place moves half as fast as x.
        slope = reference.derivative(0.5 * x + 0.5 * x.detach(), formula, parameters)
    else:
        slope = reference.derivative(x, formula, parameters).detach()
    change = (x - x.detach()) * slope
    if any(isinstance(p, Tensor) and p.requires_grad for p in parameters):
        pairs = zip(parameters, reference.parameter_gradients(x, formula, parameters), strict=True)
        change = change + sum((p - p.detach()) * grad.detach() for p, grad in pairs if isinstance(p, Tensor))
    return value + torch.where(x.isfinite(), change, 0.0).to(x.dtype)


def step(x: Tensor, formula: formulas.Formula, smooth: bool, *parameters: float | Tensor) -> Tensor:
    """The Heaviside step with the formula's gradient, or its primitive if smooth."""
    if torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _in_plain_operations(x, formula, smooth, parameters)
        return Step.forward(x, formula, smooth, *parameters)
    function = StepWithTangent if _dispatch.is_transformed() else Step
    return function.apply(x, formula, smooth, *parameters)


class Step(torch.autograd.Function):
    """Step.apply(x, formula, smooth, *parameters): the Heaviside step, or the primitive if smooth."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, formula, smooth, *parameters):
        if not smooth:
            return reference.heaviside(x)
        backend = _backend(x, formula, parameters)
        if backend == "torch":
            return reference.primitive(x, formula, parameters)
        return primitive(x, formula.name, [float(p) for p in parameters], backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.formula, _, *parameters = inputs
        ctx.is_tensor = [isinstance(p, Tensor) for p in parameters]
        ctx.numbers = [p for p in parameters if not isinstance(p, Tensor)]
        tensors = (x, *(p for p in parameters if isinstance(p, Tensor)))
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def _saved(ctx) -> tuple[Tensor, tuple]:
        x, *tensors = ctx.saved_tensors
        tensors, numbers = iter(tensors), iter(ctx.numbers)
        return x, tuple(next(tensors if is_tensor else numbers) for is_tensor in ctx.is_tensor)

    @staticmethod
    def backward(ctx, grad):
        x, parameters = Step._saved(ctx)
        grad_x = None
        if ctx.needs_input_grad[0]:
            # With gradients enabled the operations themselves are to be differentiated.
            backend = "torch" if torch.is_grad_enabled() else _backend(x, ctx.formula, parameters)
            if backend == "torch":
                grad_x = (grad * reference.derivative(x, ctx.formula, parameters)).to(x.dtype)
            else:
                grad_x = gradient(grad, x, ctx.formula.name, [float(p) for p in parameters], backend)
        grads = [None] * len(parameters)
        if any(ctx.needs_input_grad[3:]):
            for i, slope in enumerate(reference.parameter_gradients(x, ctx.formula, parameters)):
                if ctx.needs_input_grad[3 + i]:
                    grads[i] = (grad * slope).sum_to_size(parameters[i].shape).to(parameters[i].dtype)
        return grad_x, None, None, *grads


class StepWithTangent(Step):
    """`Step` with its forward-mode derivative, in a class of its own as Dynamo compiles no function that has one."""

    @staticmethod
    def jvp(ctx, tangent, _formula, _smooth, *tangents):
        x, parameters = Step._saved(ctx)
        change = 0.0 if tangent is None else tangent * reference.derivative(x, ctx.formula, parameters)
        if any(t is not None for t in tangents):
            slopes = reference.parameter_gradients(x, ctx.formula, parameters)
            change = change + sum(t * slope for t, slope in zip(tangents, slopes, strict=True) if t is not None)
        return change.to(x.dtype)
