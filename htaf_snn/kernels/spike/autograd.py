"""The differentiable step: one saved tensor, the formula's derivative in the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from . import reference


class Step(torch.autograd.Function):
    """Step.apply(x, formula, smooth, *parameters): the Heaviside step, or the primitive if smooth."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, formula, smooth, *parameters):
        return reference.primitive(x, formula, parameters) if smooth else reference.heaviside(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.formula, _, *parameters = inputs
        ctx.is_tensor = [isinstance(p, Tensor) for p in parameters]
        ctx.numbers = [p for p in parameters if not isinstance(p, Tensor)]
        ctx.save_for_backward(x, *(p for p in parameters if isinstance(p, Tensor)))

    @staticmethod
    def backward(ctx, grad):
        x, *tensors = ctx.saved_tensors
        tensors, numbers = iter(tensors), iter(ctx.numbers)
        parameters = tuple(next(tensors if is_tensor else numbers) for is_tensor in ctx.is_tensor)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad * reference.derivative(x, ctx.formula, parameters)).to(x.dtype)
        grads = [None] * len(parameters)
        if any(ctx.needs_input_grad[3:]):
            for i, slope in enumerate(reference.parameter_gradients(x, ctx.formula, parameters)):
                if ctx.needs_input_grad[3 + i]:
                    grads[i] = (grad * slope).sum_to_size(parameters[i].shape).to(parameters[i].dtype)
        return grad_x, None, None, *grads
