"""A packed network in operations of torch alone, for exporters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, max_pool2d

from ..nn.binary import by_channel
from ..nn.quantizing import INPUT_STEP
from . import steps
from .network import PackedNetwork
from .products import Product, smallest_type

_EXACT = 2**24
"""Integers below it are exact in float32, and so are their sums in any order."""


class Plain(nn.Module):
    """The results of a packed network, with bits as floats of their two levels, and weights as small integers.

    Sums are integers that the floating-point type holds exactly, so that they do not depend on their order.

    Args:
        network: from `pack` or `load`.

    Shape:
        As the packed network's, with a batch.
    """

    def __init__(self, network: PackedNetwork):
        super().__init__()
        self.steps = nn.ModuleList(_plain(step) for step in network.steps)
        self.inputs, self.output = network.inputs, network.output
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        numbers_of_levels: set[int] = set()
        for i, (step, inputs) in enumerate(zip(self.steps, self.inputs, strict=True)):
            keeps = isinstance(step, (_Product, steps.Flatten))
            scaled = {number for number in inputs if number in numbers_of_levels and not keeps}
            given = [values[number] * INPUT_STEP if number in scaled else values[number] for number in inputs]
            if isinstance(step, _Quantize) or (isinstance(step, steps.Flatten) and inputs[0] in numbers_of_levels):
                numbers_of_levels.add(i + 1)
            values.append(step(*given))
        return values[self.output] * INPUT_STEP if self.output in numbers_of_levels else values[self.output]


def _plain(step: nn.Module) -> nn.Module:
    if isinstance(step, steps.Quantize):
        return _Quantize(step)
    if isinstance(step, steps.Threshold):
        return _Threshold(step)
    if isinstance(step, (steps.BinaryProduct, steps.HeavisideProduct)):
        return _Product(step)
    if isinstance(step, steps.MaxPool):
        return _MaxPool(step)
    return steps.Cat(None) if isinstance(step, steps.Cat) else step


class _Quantize(nn.Module):
    def __init__(self, step: steps.Quantize):
        super().__init__()
        self.quantize = step.quantize

    def forward(self, x: Tensor) -> Tensor:
        return self.quantize.rounded(x)


class _Threshold(nn.Module):
    shift: Tensor | None

    def __init__(self, step: steps.Threshold):
        super().__init__()
        self.levels = step.levels
        self.register_buffer("shift", step.shift)

    def forward(self, x: Tensor) -> Tensor:
        above = x > 0 if self.shift is None else x - by_channel(self.shift, x) > 0
        return _as_levels(above, self.levels)


def _as_levels(bits: Tensor, levels: tuple[int, int]) -> Tensor:
    low, high = levels
    return bits.float() if levels == (0, 1) else bits.float() * (high - low) + low


class _Product(nn.Module):
    weight: Tensor
    thresholds: Tensor | None
    factor: Tensor | None
    bias: Tensor | None

    def __init__(self, step: Product):
        super().__init__()
        weight = step.signs() if isinstance(step, steps.BinaryProduct) else step.weight
        assert isinstance(weight, Tensor)
        bound = int(weight.abs().double().flatten(1).sum(1).max()) if weight.numel() else 0
        if isinstance(step, steps.BinaryProduct):
            bound *= 255  # it may take an image's levels
        if step.where is not None and bound >= _EXACT:
            raise ValueError(f"model: expected sums below 2**24 in a convolution, got {bound}")
        self.register_buffer("weight", weight.to(smallest_type(weight)))
        self.dtype = torch.float32 if bound < _EXACT else torch.float64
        self.where, self.out_levels = step.where, step.out_levels
        shape = (1, -1) if step.where is None else (1, -1, 1, 1)
        for name in ("thresholds", "factor", "bias"):
            value = getattr(step, name)
            self.register_buffer(name, None if value is None else value.view(shape))

    def forward(self, x: Tensor) -> Tensor:
        x, weight = x.to(self.dtype), self.weight.to(self.dtype)
        if self.where is None:
            sums = linear(x, weight)
        else:
            sums = conv2d(x, weight, None, *self.where[1:4], self.where.groups)
        if self.thresholds is not None:
            return _as_levels(sums > self.thresholds.to(self.dtype), self.out_levels)
        sums = sums.float()
        if self.factor is not None:
            sums = sums * self.factor
        return sums if self.bias is None else sums + self.bias


class _MaxPool(nn.Module):
    def __init__(self, step: steps.MaxPool):
        super().__init__()
        self.where = (step.window, step.stride, step.padding, step.dilation, step.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, *self.where)
