"""The linear map of sparse rows as torch operators, with the gradient of the weight; events have none."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _dispatch
from .._operator import operator
from . import reference


def _kernels(backend: str):
    return reference if backend == "torch" else _dispatch.load(backend, __package__)


@operator
def compress_rows(x: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `reference.compress`."""
    return _kernels(backend).compress(x)


@torch.library.register_fake(compress_rows)
def _(x, backend):
    size = torch.library.get_ctx().new_dynamic_size()
    crow = x.new_empty(x.shape[0] + 1, dtype=torch.int64)
    return crow, x.new_empty(size, dtype=torch.int32), x.new_empty(size)


@operator
def event_product(crow: Tensor, columns: Tensor, values: Tensor, weight: Tensor, backend: str) -> Tensor:
    """Compute `reference.product`."""
    return _kernels(backend).product(crow, columns, values, weight)


@torch.library.register_fake(event_product)
def _(crow, columns, values, weight, backend):
    return weight.new_empty(crow.shape[0] - 1, weight.shape[0])


@operator
def event_weight_gradient(
    crow: Tensor, columns: Tensor, values: Tensor, grad: Tensor, features: int, backend: str
) -> Tensor:
    """Compute `reference.weight_gradient`."""
    return _kernels(backend).weight_gradient(crow, columns, values, grad, features)


@torch.library.register_fake(event_weight_gradient)
def _(crow, columns, values, grad, features, backend):
    return grad.new_empty(grad.shape[1], features)


def _save(ctx, inputs, output):
    crow, columns, values, weight, ctx.backend = inputs
    ctx.save_for_backward(crow, columns, values)
    ctx.features = weight.shape[1]


def _gradients(ctx, grad):
    crow, columns, values = ctx.saved_tensors
    gradient = event_weight_gradient(crow, columns, values, grad.contiguous(), ctx.features, ctx.backend)
    return None, None, None, gradient, None


torch.library.register_autograd(event_product, _gradients, setup_context=_save)


def _save_rows(ctx, inputs, output):
    crow, columns, values, _, _, ctx.backend = inputs
    ctx.save_for_backward(crow, columns, values)


def _second(ctx, grad):
    return None, None, None, event_product(*ctx.saved_tensors, grad.contiguous(), ctx.backend), None, None


torch.library.register_autograd(event_weight_gradient, _second, setup_context=_save_rows)
