"""What a packed network is made of: products of bits, thresholds, pools, and the modules that stay in floating point.

Values between steps are float32 tensors, `Bits`, or the uint8 levels of a quantized input.
"""

from __future__ import annotations

import inspect
import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from .. import nn as hnn
from ..functional import BinaryWeight, level_linear, pack_bits, pack_weight, unpack_bits
from ..functional.bits import conv2d_of_bits, heaviside_sums, linear_of_bits, windows
from ..nn.binary import by_channel
from ..nn.quantizing import INPUT_STEP, check_unit_range

__all__ = [
    "FUNCTIONS",
    "MODULES",
    "BinaryProduct",
    "Bits",
    "HeavisideProduct",
    "MaxPool",
    "Quantize",
    "Threshold",
    "as_float",
    "options",
    "remade",
]


@dataclass(frozen=True)
class Bits:
    """Packed activations.

    Attributes:
        words: int64, with the packed dimension last: (…, K), or (B, H, W, K) of an image.
        size: features or channels.
        levels: what the bits mean.
        axis: where the packed dimension is in floating point, -1 or -3.
    """

    words: Tensor
    size: int
    levels: tuple[int, int]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the same values in floating point."""
        shape = list(self.words.shape[:-1])
        shape.insert(len(shape) + 1 + self.axis, self.size)
        return tuple(shape)


def as_float(value: Tensor | Bits) -> Tensor:
    """A value as float32, images as (B, C, H, W)."""
    if not isinstance(value, Bits):
        return value if value.is_floating_point() else value.float() * INPUT_STEP
    low, high = value.levels
    x = unpack_bits(value.words, value.size).float() * (high - low) + low
    return _moved(x, value.axis)


def _moved(x: Tensor, axis: int) -> Tensor:
    """The last dimension moved, in the strides of a new tensor, by which torch chooses how it rounds."""
    return x if axis == -1 else x.movedim(-1, axis).clone(memory_format=torch.contiguous_format)


def _packed(x: Tensor, levels: tuple[int, int], axis: int) -> Bits:
    x = x.movedim(axis, -1)
    return Bits(pack_bits(x), x.shape[-1], levels, axis)


def _along(value: Bits, axis: int) -> Bits:
    """The same bits, packed along another dimension if need be."""
    return value if value.axis == axis else _packed(as_float(value), value.levels, axis)


def flatten(value: Tensor | Bits) -> Tensor | Bits:
    """All but the first dimension as one."""
    if not isinstance(value, Bits):
        return value.flatten(1)
    return value if value.words.ndim == 2 else _packed(as_float(value).flatten(1), value.levels, -1)


class Quantize(nn.Module):
    """Images within [0, 1] as their 256 levels."""

    def forward(self, value: Tensor | Bits) -> Tensor:
        x = as_float(value)
        check_unit_range(x)
        return hnn.QuantizeInput.levels_of(x)


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
            x = x - by_channel(self.shift, x)
        return _packed(x, self.levels, -3 if x.ndim == 4 else -1)

    def options(self) -> dict:
        return {"levels": self.levels}


class MaxPool(nn.Module):
    """The maximum of bits over windows, which is their OR.

    Args:
        window, stride, padding, dilation: of rows and columns.
        ceil_mode: as of `torch.nn.MaxPool2d`.
    """

    def __init__(self, window, stride, padding, dilation, ceil_mode: bool):
        super().__init__()
        self.window, self.stride, self.padding, self.dilation = map(tuple, (window, stride, padding, dilation))
        self.ceil_mode = ceil_mode

    def options(self) -> dict:
        return {name: getattr(self, name) for name in ("window", "stride", "padding", "dilation", "ceil_mode")}

    def forward(self, value: Bits) -> Bits:
        if len(value.shape) not in (3, 4):
            raise ValueError(f"x: expected (B, C, H, W) or (C, H, W) at MaxPool2d, got {value.shape}")
        value = _along(value, -3)
        words = value.words if value.words.ndim == 4 else value.words[None]
        if any(self.padding) and max(self.dilation) > 1:
            self._check_windows(words)
        out = reduce(torch.bitwise_or, self._taps(words).unbind(-2))
        return Bits(out.view(*value.words.shape[:-3], *out.shape[1:]), value.size, value.levels, -3)

    def _taps(self, words: Tensor) -> Tensor:
        """The words under each place of the windows, (B, H', W', taps, K); outside the image all bits are 0."""
        (rows, below), (columns, right) = (self._fit(axis, words.shape[axis + 1]) for axis in (0, 1))
        up, left = self.padding
        x = torch.nn.functional.pad(words, (0, 0, left, left + right, up, up + below))
        under = windows(x, self.window, self.stride, (0, 0), self.dilation)[:, :rows, :columns]
        return under.unflatten(-1, (-1, words.shape[-1]))

    def _fit(self, axis: int, length: int) -> tuple[int, int]:
        """How many windows there are, by torch's rule, and how far the last reaches beyond the padding."""
        step, padding = self.stride[axis], self.padding[axis]
        reach = self.dilation[axis] * (self.window[axis] - 1) + 1
        count = (length + 2 * padding - reach + (step - 1 if self.ceil_mode else 0)) // step + 1
        if self.ceil_mode and (count - 1) * step >= length + padding:
            count -= 1  # the last would begin in the padding
        return count, max((count - 1) * step + reach - length - 2 * padding, 0)

    def _check_windows(self, words: Tensor) -> None:
        if not self._taps(torch.ones_like(words[:1, ..., :1])).any(-2).all():
            raise ValueError(
                f"x: expected an image that every window of MaxPool2d meets, got {tuple(words.shape[1:3])}; dilation "
                f"{self.dilation} steps over it"
            )


class _Product(nn.Module):
    """A linear layer or convolution over bits, up to its thresholds or its real result.

    Args:
        shape: of the weight, (O, n) or (O, C / groups, kH, kW).
        levels: what the bits that come in mean.
        batched: whether x has to be (B, n) or (B, C, H, W), as BatchNorm or shifts that are folded demand; else any
            shape that the layer takes in floating point.
        thresholds: int32 (O,); with them the results are bits.
        out_levels: what those mean.
        factor: float32 (O,), what multiplies the sums if there are no thresholds.
        bias: (O,), or None.
        where: a convolution's window, stride, padding, dilation and groups; None if linear.
    """

    def __init__(self, shape, levels, *, batched, thresholds=None, out_levels=None, factor=None, bias=None, where=None):
        super().__init__()
        self.shape, self.levels, self.batched = tuple(shape), tuple(levels), batched
        self.out_levels = None if out_levels is None else tuple(out_levels)
        self.where = None if where is None else {k: v if k == "groups" else tuple(v) for k, v in where.items()}
        self.groups, self.axis = (1, -1) if where is None else (where["groups"], -3)
        for name, value in {"thresholds": thresholds, "factor": factor, "bias": bias}.items():
            self.register_buffer(name, value)

    def options(self) -> dict:
        return {name: getattr(self, name) for name in ("levels", "batched", "out_levels", "where")}

    def _checked(self, value: Tensor | Bits) -> Tensor | Bits:
        size, shape = self.shape[1] * self.groups, tuple(value.shape)
        if self.where is None:
            fits, expected = len(shape) == 2 or (shape and not self.batched), f"(B, {size})"
        else:
            fits, expected = len(shape) == 4 or (len(shape) == 3 and not self.batched), f"(B, {size}, H, W)"
        if not fits:
            raise ValueError(f"x: expected {expected} at this layer, got {shape}")
        if shape[self.axis] != size:
            raise ValueError(f"x: expected {size} features or channels at this layer, got {shape[self.axis]}")
        return _along(value, self.axis) if isinstance(value, Bits) else value

    def _finished(self, sums: Tensor) -> Tensor | Bits:
        if self.thresholds is not None:
            return Bits(pack_bits(sums > self.thresholds), sums.shape[-1], self.out_levels, self.axis)
        x = sums.float() * self.factor
        if self.bias is not None:
            x = x + self.bias
        return _moved(x, self.axis)

    def _parts(self, words: Tensor, size: int) -> list[Tensor]:
        """The words of each group."""
        if self.groups == 1:
            return [words]
        return [pack_bits(part) for part in unpack_bits(words, size).chunk(self.groups, -1)]


class BinaryProduct(_Product):
    """A binary layer; its weight is (O, n) or (O, C / groups, kH, kW), of which the signs are kept."""

    def __init__(self, weight: Tensor, levels, **options):
        super().__init__(weight.shape, levels, **options)
        for number, part in enumerate(weight.chunk(self.groups)):
            packed = pack_weight(part)
            for name in ("words", "ones", "tap_sums"):
                self.register_buffer(f"{name}_{number}", getattr(packed, name))

    def options(self) -> dict:
        return super().options() | {"shape": self.shape}

    def saved(self) -> dict[str, Tensor]:
        """The tensors of a file: of the weight, the packed signs."""
        kept = {name: getattr(self, name) for name in ("thresholds", "factor", "bias")}
        signs = pack_bits(self.signs().flatten(1))
        return {name: value for name, value in kept.items() if value is not None} | {"signs": signs}

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
        value = self._checked(value)
        if isinstance(value, Tensor):
            return self._finished(level_linear(value, self._weight(0)))
        if self.groups == 1 and self.thresholds is not None:
            words = self._sums(value.words, 0, self.thresholds)
            return Bits(words, self.shape[0], self.out_levels, self.axis)
        parts = self._parts(value.words, value.size)
        return self._finished(torch.cat([self._sums(part, number) for number, part in enumerate(parts)], -1))

    def _sums(self, words: Tensor, number: int, thresholds: Tensor | None = None) -> Tensor:
        options = {"levels": self.levels, "thresholds": thresholds}
        if self.where is None:
            return linear_of_bits(words, self._weight(number), **options)
        places = {name: self.where[name] for name in ("stride", "padding", "dilation")}
        image = words if words.ndim == 4 else words[None]
        sums = conv2d_of_bits(image, self._weight(number), **places, **options)
        return sums if words.ndim == 4 else sums[0]


class HeavisideProduct(_Product):
    """A layer with integer weights, int32 (O, n) or (O, C / groups, kH, kW), times `factor`."""

    def __init__(self, weight: Tensor, levels, **options):
        super().__init__(weight.shape, levels, **options)
        self.register_buffer("weight", weight)
        for number, part in enumerate(weight.chunk(self.groups)):
            self.register_buffer(f"rows_{number}", _rows(part))

    def saved(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        kept = {name: getattr(self, name) for name in ("thresholds", "factor", "bias", "weight")}
        return {name: value for name, value in kept.items() if value is not None}

    def forward(self, value: Bits) -> Tensor | Bits:
        value = self._checked(value)
        if self.where is None:
            sums = heaviside_sums(value.words, self.rows_0)
            if self.levels[0]:
                sums = 2 * sums - self.weight.sum(1, dtype=torch.int32)
            return self._finished(sums)
        sums = self._image_sums(value.words if value.words.ndim == 4 else value.words[None], value.size)
        return self._finished(sums if value.words.ndim == 4 else sums[0])

    def _image_sums(self, words: Tensor, size: int) -> Tensor:
        places = [self.where[name] for name in ("window", "stride", "padding", "dilation")]
        parts = [windows(part, *places) for part in self._parts(words, size)]
        sums = torch.cat([heaviside_sums(p, getattr(self, f"rows_{n}")) for n, p in enumerate(parts)], -1)
        if self.levels[0]:
            inside = windows(torch.ones_like(words[:1, ..., :1]), *places).double()
            taps = self.weight.sum(1).flatten(1).T.double()
            sums = 2 * sums - (inside @ taps).to(torch.int32)
        return sums


def _rows(weight: Tensor) -> Tensor:
    """Integer weights by input: (n, O), or (64 * words * taps, O) in the order of the bits of `windows`."""
    if weight.ndim == 2:
        return weight.T.contiguous()
    taps = weight.flatten(2).permute(2, 1, 0)
    return torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % 64)).flatten(0, 1).contiguous()


# Modules that stay as they are.
MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.PReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    hnn.RPReLU,
)
_KNOWN = {cls.__name__: cls for cls in MODULES}
FUNCTIONS: dict[str, Callable] = {"add": operator.add, "flatten": flatten}


def _names(cls: type[nn.Module]) -> set[str]:
    """All arguments of a module's constructor, but for where its numbers lie."""
    return {*inspect.signature(cls).parameters} - {"device", "dtype"}


def options(module: nn.Module, cls: type[nn.Module] | None = None) -> dict:
    """Every argument that makes a module of `MODULES` again, as JSON has it."""
    values = {name: getattr(module, name) for name in sorted(_names(cls or type(module)))}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return json.loads(json.dumps(values, default=operator.index))


def remade(kind: str, given: dict, state: dict[str, Tensor]) -> nn.Module:
    """A module of `MODULES` from its `options` and tensors, in eval mode, with numbers of its own."""
    cls = _KNOWN[kind]
    # An option that this version of torch alone has is at its default; one that it lacks cannot be honoured.
    if not given.keys() <= _names(cls):
        raise ValueError(f"{kind}: expected options of {', '.join(sorted(_names(cls)))}, got {', '.join(given)}")
    module = cls(**given)
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)
