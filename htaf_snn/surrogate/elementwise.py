"""The elementwise step, from smooth to hard: its definition in plain torch, and its derivatives.

Half precision is computed in float32. Large tensors with plain numbers as parameters go to the operators `primitive`
and `gradient`, for which `kernels.elementwise` has kernels of one pass. Everything else, and whatever a compiler or a
second derivative has to see as operations, is computed as defined here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .formula import Formula, between, formula_named, is_registered

# Below this the call of a kernel takes longer than the dozen passes here.
_LARGE = 2**15


def is_transformed() -> bool:
    """Whether a `torch.func` transform or a forward-mode derivative is at work, which kernels cannot follow."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _widen(value):
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        return value.float()
    return value


def _evaluate(function, x: Tensor, parameters: Sequence):
    wide = _widen(x)
    return function(wide, *(p.to(wide.dtype) if isinstance(p, Tensor) and not _is_number(p) else p for p in parameters))


def _is_number(value) -> bool:
    """Whether it stands for a number: of those, unlike of tensors, the products are rounded to float64."""
    return isinstance(value, Tensor) and value.dtype == torch.float64 and not (value.ndim or value.requires_grad)


def heaviside(x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0, in the dtype of x; zero and NaN do not spike."""
    return (x > 0).to(x.dtype)


def primitive(x: Tensor, formula: Formula, parameters: Sequence) -> Tensor:
    """Return the formula's smooth step at x, in the dtype of x."""
    y = _evaluate(formula.primitive, x, parameters)
    # Compiled by torch 2.11, an autograd function that ends in a cast to the same dtype has a gradient of zero.
    return y if y.dtype == x.dtype else y.to(x.dtype)


def derivative(x: Tensor, formula: Formula, parameters: Sequence) -> Tensor:
    """Return the formula's derivative at x, in float32 for half precision, else in the dtype of x."""
    return _evaluate(formula.derivative, x, parameters).to(_widen(x).dtype)


def gradient(grad: Tensor, x: Tensor, formula: Formula, parameters: Sequence) -> Tensor:
    """Return grad times the formula's derivative at x, in the dtype of x."""
    return (grad * derivative(x, formula, parameters)).to(x.dtype)


def parameter_gradients(x: Tensor, formula: Formula, parameters: Sequence) -> tuple[Tensor, ...]:
    """Return the derivatives of the primitive with respect to the learnable parameters at x, of the shape of x."""
    return _evaluate(formula.parameter_gradients, x, parameters)


def blend(x: Tensor, smooth: Tensor, hardness: float | Tensor) -> Tensor:
    """Return the mean of a smooth step at x and the hard one, weighted by the hardness; exact at both ends."""
    hard = (x > 0).to(smooth.dtype)
    step = between(smooth, hard, 1.0 - hardness, hardness)
    if isinstance(hardness, Tensor):
        step = torch.where(hardness == 1.0, hard, torch.where(hardness == 0.0, smooth, step))
    return step.to(x.dtype)


def _in_plain_operations(x: Tensor, formula: Formula, hardness: float | Tensor, parameters: Sequence) -> Tensor:
    """Return the step plus zeros that carry its derivatives.

    An exported graph keeps the forward pass of an autograd function alone, and Dynamo does not follow one through
    torch.func nor with dynamic numbers.
    """
    value = Step.forward(x, formula, hardness, *parameters).detach()
    if torch.compiler.is_exporting() or is_transformed():
        x = torch.where(x.isinf(), x.detach(), x)  # at infinity the slope's own slope may be NaN
        # The product's second derivative is that of the slope alone, as the slope's place moves half as fast as x.
        slope = derivative(0.5 * x + 0.5 * x.detach(), formula, parameters)
    else:
        slope = derivative(x, formula, parameters).detach()
    change = (x - x.detach()) * slope
    if any(isinstance(p, Tensor) and p.requires_grad for p in parameters):
        pairs = zip(parameters, parameter_gradients(x, formula, parameters), strict=False)
        change = change + sum((p - p.detach()) * grad.detach() for p, grad in pairs if isinstance(p, Tensor))
    return value + torch.where(x.isfinite(), change, 0.0).to(x.dtype)


def step(x: Tensor, formula: Formula, hardness: float | Tensor, *parameters: float | Tensor) -> Tensor:
    """Return (1 - hardness) * h(x) + hardness * H(x), with the gradient h'(x); all arguments are checked already.

    Under the compiler numbers may be float64 tensors of no dimension on the CPU.
    """
    if torch.compiler.is_compiling():
        if torch.is_grad_enabled():
            return _in_plain_operations(x, formula, hardness, parameters)
        return Step.forward(x, formula, hardness, *parameters)
    function = StepWithTangent if is_transformed() else Step
    return function.apply(x, formula, hardness, *parameters)


def _has_kernel(x: Tensor, formula: Formula, parameters: Sequence) -> bool:
    """Whether the operators compute: for plain numbers, where a kernel is worth its call."""
    if torch.compiler.is_compiling() or is_transformed() or x.numel() < _LARGE:
        return False
    if any(isinstance(p, Tensor) for p in parameters):
        return False
    _register_kernels()
    return formula.portable and formula.is_unchanged() and is_registered(formula)


@cache
def _register_kernels() -> None:
    # Who uses surrogates alone imports nothing else that would; the kernels themselves are built on this module.
    import_module("..kernels.elementwise", __package__)


class Step(torch.autograd.Function):
    """Step.apply(x, formula, hardness, *parameters), see `step`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, formula, hardness, *parameters):
        if not isinstance(hardness, Tensor) and hardness == 1.0:
            return heaviside(x)
        is_smooth = not isinstance(hardness, Tensor) and hardness == 0.0
        at = x if is_smooth else _widen(x)  # what is blended is rounded once
        if _has_kernel(x, formula, parameters):
            smooth = torch.ops.htaf_snn.primitive(at, formula.name, [float(p) for p in parameters])
        else:
            smooth = primitive(at, formula, parameters)
        return smooth if is_smooth else blend(x, smooth, hardness)

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
        remaining, numbers = iter(tensors), iter(ctx.numbers)
        return x, tuple(next(remaining if is_tensor else numbers) for is_tensor in ctx.is_tensor)

    @staticmethod
    def backward(ctx, grad):
        x, parameters = Step._saved(ctx)
        grad_x = None
        if ctx.needs_input_grad[0]:
            # With gradients enabled the operations themselves are to be differentiated.
            if not torch.is_grad_enabled() and _has_kernel(x, ctx.formula, parameters):
                numbers = [float(p) for p in parameters]
                grad_x = torch.ops.htaf_snn.gradient(grad, x, ctx.formula.name, numbers)
            else:
                grad_x = gradient(grad, x, ctx.formula, parameters)
        grads: list[Tensor | None] = [None] * len(parameters)
        if any(ctx.needs_input_grad[3:]):
            for i, slope in enumerate(parameter_gradients(x, ctx.formula, parameters)):
                if ctx.needs_input_grad[3 + i]:
                    grads[i] = (grad * slope).sum_to_size(parameters[i].shape).to(parameters[i].dtype)
        return grad_x, None, None, *grads


class StepWithTangent(Step):
    """`Step` with its forward-mode derivative, in a class of its own as Dynamo compiles no function that has one."""

    @staticmethod
    def jvp(ctx, tangent, _formula, _hardness, *tangents):
        x, parameters = Step._saved(ctx)
        change = torch.zeros_like(x) if tangent is None else tangent * derivative(x, ctx.formula, parameters)
        if any(t is not None for t in tangents):
            slopes = parameter_gradients(x, ctx.formula, parameters)
            change = change + sum(t * slope for t, slope in zip(tangents, slopes, strict=False) if t is not None)
        return change.to(x.dtype)


torch.library.define("htaf_snn::primitive", "(Tensor x, str formula, float[] values) -> Tensor")
torch.library.define("htaf_snn::gradient", "(Tensor grad, Tensor x, str formula, float[] values) -> Tensor")
torch.library.impl(
    "htaf_snn::primitive", "CompositeExplicitAutograd",
    lambda x, formula, values: primitive(x, formula_named(formula), values),
)  # fmt: skip
torch.library.impl(
    "htaf_snn::gradient", "CompositeExplicitAutograd",
    lambda grad, x, formula, values: gradient(grad, x, formula_named(formula), values),
)  # fmt: skip
torch.library.register_fake("htaf_snn::primitive", lambda x, formula, values: x.new_empty(x.shape))
torch.library.register_fake("htaf_snn::gradient", lambda grad, x, formula, values: x.new_empty(x.shape))
