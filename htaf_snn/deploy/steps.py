"""What a packed network is made of: products of bits, thresholds, and the few modules that stay in floating point.

Values between steps are float32 tensors, `Bits`, or the uint8 levels of a quantized input. Images in bits have their
channels last.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import nn as hnn
from ..functional import (
    BinaryWeight,
    binary_conv2d,
    binary_linear,
    heaviside_linear,
    level_linear,
    pack_bits,
    pack_weight,
    unpack_bits,
)
from ..functional.bits import windows
from ..nn.binary import INPUT_STEP

__all__ = ["FUNCTIONS", "MODULES", "BinaryProduct", "Bits", "HeavisideProduct", "Quantize", "Threshold", "as_float"]


@dataclass(frozen=True)
class Bits:
    """Packed activations.

    Attributes:
        words: int64, (B, K) or (B, H, W, K).
        size: features or channels.
        levels: what the bits mean.
    """

    words: Tensor
    size: int
    levels: tuple[int, int]


def as_float(value: Tensor | Bits) -> Tensor:
    """A value as float32, images as (B, C, H, W)."""
    if not isinstance(value, Bits):
        return value if value.is_floating_point() else value.float() * INPUT_STEP
    low, high = value.levels
    x = unpack_bits(value.words, value.size).float() * (high - low) + low
    return x.movedim(-1, 1).contiguous()


def flatten(value: Tensor | Bits) -> Tensor | Bits:
    """All but the first dimension as one."""
    if not isinstance(value, Bits):
        return value.flatten(1)
    if value.words.ndim == 2:
        return value
    x = as_float(value).flatten(1)
    return Bits(pack_bits(x), x.shape[1], value.levels)


class Quantize(nn.Module):
    """Images within [0, 1] as their 256 levels."""

    def forward(self, value: Tensor) -> Tensor:
        low, high = (bound.item() for bound in value.aminmax()) if value.numel() else (0, 1)
        if not (low >= 0 and high <= 1):
            raise ValueError(f"x: expected values within [0, 1], got {low} to {high}")
        return hnn.QuantizeInput.levels_of(value)


class Threshold(nn.Module):
    """Bits of where a value is greater than a shift.

    Args:
        shift: (channels,), or None for 0.
        levels: what the bits mean.
    """

    def __init__(self, levels: tuple[int, int], shift: Tensor | None = None):
        super().__init__()
        self.levels = tuple(levels)
        self.register_buffer("shift", shift)

    def forward(self, value: Tensor | Bits) -> Bits:
        x = as_float(value)
        if self.shift is not None:
            x = x - self.shift.view(-1, *[1] * (x.ndim - 2))
        x = x.movedim(1, -1)
        return Bits(pack_bits(x), x.shape[-1], self.levels)

    def options(self) -> dict:
        return {"levels": self.levels}


class _Product(nn.Module):
    """A linear layer or convolution over bits, up to its thresholds or its real result.

    Args:
        levels: what the bits that come in mean.
        thresholds: int32 (O,); with them the results are bits.
        out_levels: what those mean.
        factor: float32 (O,), what multiplies the sums if there are no thresholds.
        bias: (O,), or None.
        where: a convolution's window, stride, padding, dilation and groups; None if linear.
    """

    def __init__(self, levels, thresholds=None, out_levels=None, factor=None, bias=None, where=None):
        super().__init__()
        self.levels, self.out_levels = tuple(levels), None if out_levels is None else tuple(out_levels)
        self.where = None if where is None else {k: v if k == "groups" else tuple(v) for k, v in where.items()}
        for name, value in {"thresholds": thresholds, "factor": factor, "bias": bias}.items():
            self.register_buffer(name, value)

    def options(self) -> dict:
        return {"levels": self.levels, "out_levels": self.out_levels, "where": self.where}

    def _finished(self, sums: Tensor) -> Tensor | Bits:
        if self.thresholds is not None:
            return Bits(pack_bits(sums - self.thresholds), sums.shape[-1], self.out_levels)
        x = sums.float() * self.factor
        if self.bias is not None:
            x = x + self.bias
        return x.movedim(-1, 1).contiguous()

    def _check(self, value: Tensor | Bits, size: int) -> None:
        got = value.size if isinstance(value, Bits) else value.shape[1]
        if got != size:
            raise ValueError(f"x: expected {size} features or channels at this layer, got {got}")


class BinaryProduct(_Product):
    """A binary layer; its weight is (O, n) or (O, C / groups, kH, kW), of which the signs are kept."""

    def __init__(self, weight: Tensor, levels, **options):
        super().__init__(levels, **options)
        self.shape = tuple(weight.shape)
        self.groups = 1 if self.where is None else self.where["groups"]
        for number, part in enumerate(weight.chunk(self.groups)):
            packed = pack_weight(part)
            for name in ("words", "ones", "tap_sums"):
                self.register_buffer(f"{name}_{number}", getattr(packed, name), persistent=False)

    def _weight(self, number: int) -> BinaryWeight:
        tensors = (getattr(self, f"{name}_{number}") for name in ("words", "ones", "tap_sums"))
        size = torch.Size(self.shape[1:]).numel()
        return BinaryWeight(*tensors, size, self.shape[2:] or None)

    def signs(self) -> Tensor:
        """The weight as -1 and +1, float32."""
        taps = len(self.tap_sums_0)
        parts = []
        for number in range(self.groups):
            weight = self._weight(number)
            words = weight.words.T[: len(weight.ones)].unflatten(1, (taps, -1))
            parts.append(unpack_bits(words, self.shape[1]).movedim(-1, 1).reshape(-1, *self.shape[1:]))
        return torch.cat(parts).float() * 2 - 1

    def forward(self, value: Tensor | Bits) -> Tensor | Bits:
        self._check(value, self.shape[1] * self.groups)
        if isinstance(value, Tensor):
            return self._finished(level_linear(value, self._weight(0)))
        if self.groups == 1 and self.thresholds is not None:
            words = self._sums(value.words, 0, thresholds=self.thresholds)
            return Bits(words, self.shape[0], self.out_levels)
        parts = [value.words]
        if self.groups > 1:
            x = unpack_bits(value.words, value.size)
            parts = [pack_bits(part) for part in x.chunk(self.groups, -1)]
        return self._finished(torch.cat([self._sums(part, number) for number, part in enumerate(parts)], -1))

    def _sums(self, words: Tensor, number: int, **options) -> Tensor:
        options |= {"levels": self.levels}
        if self.where is None:
            return binary_linear(words, self._weight(number), **options)
        places = {name: self.where[name] for name in ("stride", "padding", "dilation")}
        return binary_conv2d(words, self._weight(number), **places, **options)


class HeavisideProduct(_Product):
    """A layer with integer weights, int32 (O, n) or (O, C / groups, kH, kW), times `factor`."""

    def __init__(self, weight: Tensor, levels, **options):
        super().__init__(levels, **options)
        self.register_buffer("weight", weight)
        groups = 1 if self.where is None else self.where["groups"]
        for number, part in enumerate(weight.chunk(groups)):
            self.register_buffer(f"rows_{number}", _rows(part), persistent=False)
        self.groups = groups

    def forward(self, value: Bits) -> Tensor | Bits:
        self._check(value, self.weight.shape[1] * self.groups)
        if self.where is None:
            sums = heaviside_linear(value.words, self.rows_0)
            if self.levels[0]:
                sums = 2 * sums - self.weight.sum(1, dtype=torch.int32)
            return self._finished(sums)
        x = unpack_bits(value.words, value.size)
        places = [self.where[name] for name in ("window", "stride", "padding", "dilation")]
        parts = [windows(pack_bits(part), *places) for part in x.chunk(self.groups, -1)]
        sums = torch.cat([heaviside_linear(p, getattr(self, f"rows_{n}")) for n, p in enumerate(parts)], -1)
        if self.levels[0]:
            inside = windows(torch.ones_like(value.words[:1, ..., :1]), *places).double()
            taps = self.weight.sum(1).flatten(1).T.double()
            sums = 2 * sums - (inside @ taps).to(torch.int32)
        return self._finished(sums)


def _rows(weight: Tensor) -> Tensor:
    """Integer weights by input: (n, O), or (64 * words * taps, O) in the order of the bits of `windows`."""
    if weight.ndim == 2:
        return weight.T.contiguous()
    taps = weight.flatten(2).permute(2, 1, 0)
    return torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % 64)).flatten(0, 1).contiguous()


# Modules that stay as they are, with the arguments that make them again.
MODULES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    nn.BatchNorm1d: ("num_features", "eps", "affine"),
    nn.BatchNorm2d: ("num_features", "eps", "affine"),
    nn.ReLU: (),
    nn.PReLU: ("num_parameters",),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.AvgPool2d: ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    nn.AdaptiveAvgPool2d: ("output_size",),
    hnn.RPReLU: ("channels",),
}
FUNCTIONS: dict[str, Callable] = {"add": operator.add, "flatten": flatten}
