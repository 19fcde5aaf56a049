"""Products of a packed network: linear layers and convolutions over bits or levels."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from .._checks import is_plain
from ..functional import BinaryWeight, level_linear, pack_bits, pack_weight, unpack_bits
from ..functional.bits import conv2d_of_bits, heaviside_sums, heaviside_values, linear_of_bits, windows
from .quickest import Quickest
from .values import (
    Bits,
    Geometry,
    Step,
    Value,
    along,
    as_float,
    as_new,
    check_window,
    misfit,
    moved,
    of_levels,
    packed,
    pair,
    sums_exactly,
)


class Product(Step):
    """A linear layer or convolution over bits, up to its thresholds or its real result.

    Args:
        weight: (O, n), or (O, C / groups, kH, kW).
        levels: the values of an input bit.
        batched: whether x has to be (B, n) or (B, C, H, W), as a folded BatchNorm or shift requires; otherwise any
            shape that the layer takes in floating point.
        thresholds: int32 (O,); with them the results are bits.
        out_levels: the values of a resulting bit; None without thresholds.
        factor: float32 (O,), by which the sums are multiplied if there are no thresholds.
        bias: (O,), or None.
        where: the geometry of a convolution; None for a linear layer.
    """

    thresholds: Tensor | None
    factor: Tensor | None
    bias: Tensor | None
    _kept: tuple[list[Tensor], list[int], dict[torch.dtype, Tensor]] | None = None
    _is_in_floats = False

    def __init__(
        self,
        weight: Tensor,
        levels: Sequence[int],
        *,
        batched: bool,
        thresholds: Tensor | None = None,
        out_levels: Sequence[int] | None = None,
        factor: Tensor | None = None,
        bias: Tensor | None = None,
        where: Geometry | None = None,
    ):
        super().__init__()
        self.shape, self.levels, self.out_levels = tuple(weight.shape), pair(levels), pair(out_levels or levels)
        self.batched, self.where = batched, where
        self.groups, self.axis = (1, -1) if where is None else (where.groups, -3)
        if where is not None:
            check_window(where)
            if where.window != self.shape[2:] or len(weight) % where.groups:
                raise ValueError(f"where: expected the window and groups of a weight {self.shape}, got {where}")
        for name, value in {"thresholds": thresholds, "factor": factor, "bias": bias}.items():
            if value is not None and value.shape != weight.shape[:1]:
                raise ValueError(f"{name}: expected one number per output, {len(weight)}, got {tuple(value.shape)}")
            self.register_buffer(name, value)
        self._register_weight(weight)

    def _register_weight(self, weight: Tensor) -> None:
        raise NotImplementedError

    def _sources(self) -> list[Tensor]:
        """Return the buffers that hold the weight."""
        raise NotImplementedError

    def _whole_weight(self) -> Tensor:
        """Return the weight that was given, float32 or int32."""
        raise NotImplementedError

    def options(self) -> dict[str, object]:
        where = None if self.where is None else self.where._asdict()
        return {"levels": self.levels, "batched": self.batched, "out_levels": self.out_levels, "where": where}

    def _saved(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        tensors = {"thresholds": self.thresholds, "factor": self.factor, "bias": self.bias, name: weight}
        return {name: value for name, value in tensors.items() if value is not None}

    def _check(self, value: Value) -> None:
        size, shape = self.shape[1] * self.groups, tuple(value.shape)
        if self.where is None:
            fits, expected = len(shape) == 2 or (len(shape) > 0 and not self.batched), f"(B, {size})"
        else:
            fits, expected = len(shape) == 4 or (len(shape) == 3 and not self.batched), f"(B, {size}, H, W)"
        if not fits or shape[self.axis] != size:
            raise ValueError(misfit(expected, shape, None if self.where is None else size))

    def _finished(self, sums: Tensor) -> Value:
        if self.thresholds is not None:
            return Bits(pack_bits(sums > self.thresholds), sums.shape[-1], self.out_levels, self.axis)
        x = sums.float()
        if self.factor is not None:
            x = x * self.factor
        if self.bias is not None:
            x = x + self.bias
        return moved(x, self.axis)

    def in_floats(self, value: Tensor) -> Tensor:
        self._check(value)
        if not value.is_floating_point() or not self._is_exact():
            return as_float(self(packed(value, self.levels, self.axis) if value.is_floating_point() else value))
        self._is_in_floats = True
        sums = self._sums_of_floats(value)
        each = (-1,) if self.where is None else (-1, 1, 1)
        if self.thresholds is not None:
            return as_new(of_levels(sums > self.thresholds.view(each), self.out_levels))
        sums += 0.0  # where it is -0.0, as the sum of integers is not
        if self.factor is not None:
            sums *= self.factor.view(each)
        if self.bias is not None:
            sums += self.bias.view(each)
        return as_new(sums)

    def release(self) -> None:
        if self._is_in_floats:
            self._kept, self._is_in_floats = None, False

    def _is_exact(self) -> bool:
        """Return whether float32 holds all sums of levels times weights."""
        raise NotImplementedError

    def _sums_of_floats(self, value: Tensor) -> Tensor:
        weight = self._weight_as(value.dtype)
        return linear(value, weight) if self.where is None else conv2d(value, weight, None, *self.where[1:])

    def _weight_as(self, dtype: torch.dtype) -> Tensor:
        """Return the weight in a type, kept until it is replaced or changed in place, where that can be seen."""
        own, kept = self._sources(), self._kept
        if any(buffer.is_inference() for buffer in own):
            return self._whole_weight().to(dtype)
        versions = [buffer._version for buffer in own]
        if kept is None or kept[1] != versions or not all(map(operator.is_, own, kept[0])):
            kept = own, versions, {}
        if dtype not in kept[2]:
            kept[2][dtype] = self._whole_weight().to(dtype)
        self._kept = kept
        return kept[2][dtype]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_kept", "_reach")}

    def _parts(self, words: Tensor, size: int) -> list[Tensor]:
        """Return the words of each group."""
        if self.groups == 1:
            return [words]
        return [pack_bits(part) for part in unpack_bits(words, size).chunk(self.groups, -1)]


class BinaryProduct(Product):
    """A product with the signs of a weight."""

    ones_0: Tensor

    def _register_weight(self, weight: Tensor) -> None:
        self._quickest = Quickest()
        for group, part in enumerate(weight.chunk(self.groups)):
            packed = pack_weight(part)
            for name in ("words", "ones", "tap_sums"):
                self.register_buffer(f"{name}_{group}", getattr(packed, name))

    def options(self) -> dict[str, object]:
        return super().options() | {"shape": self.shape}

    def tensors(self) -> dict[str, Tensor]:
        return self._saved("signs", pack_bits(self.signs().flatten(1)))

    def _weight(self, group: int) -> BinaryWeight:
        words, ones, tap_sums = (getattr(self, f"{name}_{group}") for name in ("words", "ones", "tap_sums"))
        window = None if self.where is None else self.where.window
        return BinaryWeight(words, ones, tap_sums, math.prod(self.shape[1:]), window)

    def _sources(self) -> list[Tensor]:
        return [getattr(self, f"words_{group}") for group in range(self.groups)]

    def _whole_weight(self) -> Tensor:
        return self.signs()

    def _is_exact(self) -> bool:
        return max(map(abs, self.levels)) * math.prod(self.shape[1:]) < 2**24

    def signs(self) -> Tensor:
        """Return the weight as -1 and +1, float32."""
        parts = []
        for group in range(self.groups):
            weight = self._weight(group)
            words = weight.words.T[: len(weight.ones)].unflatten(1, (len(weight.tap_sums), -1))
            parts.append(unpack_bits(words, self.shape[1]).movedim(-1, 1).reshape(-1, *self.shape[1:]))
        return torch.cat(parts).float() * 2 - 1

    def forward(self, value: Value) -> Value:
        self._check(value)
        if isinstance(value, Tensor):
            return self._finished(self._level_sums(value))
        value = along(value, self.axis)
        if self.groups == 1 and self.thresholds is not None:
            words = self._sums(value.words, 0, self.thresholds)
            return Bits(words, self.shape[0], self.out_levels, self.axis)
        parts = self._parts(value.words, value.size)
        return self._finished(torch.cat([self._sums(part, group) for group, part in enumerate(parts)], -1))

    def _level_sums(self, levels: Tensor) -> Tensor:
        is_on_cpu = levels.device.type == "cpu"
        if self.where is None:
            # torch 2.14 multiplies bytes wrongly where a row is one number.
            if not (is_on_cpu and is_plain(levels) and levels.numel() and self.shape[1] > 1):
                return level_linear(levels, self._weight(0))
            ways = [lambda: level_linear(levels, self._weight(0)), lambda: self._sums_of_bytes(levels)]
            return self._quickest((levels.numel().bit_length(), torch.get_num_threads()), ways)
        # Exact: sums of 2**44 levels fit into a double, and on a CPU those of 2**16 into a float.
        is_exact = is_on_cpu and 255 * math.prod(self.shape[1:]) < 2**24 and sums_exactly()
        kind = torch.float32 if is_exact else torch.float64
        sums = self._sums_of_floats(levels.to(kind))
        return sums.movedim(-3, -1).to(torch.int32)

    def _sums_of_bytes(self, levels: Tensor) -> Tensor:
        """Return the sums of levels by a product of signed bytes, which are 128 less."""
        signed = levels.reshape(-1, self.shape[1]).contiguous().bitwise_xor(128).view(torch.int8)
        sums = torch._int_mm(signed, self._weight_as(torch.int8).T)
        sums += 128 * (2 * self.ones_0 - self.shape[1])
        return sums.view(*levels.shape[:-1], self.shape[0])

    def _sums(self, words: Tensor, group: int, thresholds: Tensor | None = None) -> Tensor:
        weight = self._weight(group)
        if self.where is None:
            return linear_of_bits(words, weight, self.levels, thresholds)
        image = words if words.ndim == 4 else words[None]
        sums = conv2d_of_bits(image, weight, *self.where[1:4], self.levels, thresholds)
        return sums if words.ndim == 4 else sums[0]


class HeavisideProduct(Product):
    """A product with an integer weight, int32, times `factor`."""

    weight: Tensor
    rows_0: Tensor
    _reach: tuple[Tensor, int | None, float] | None = None

    def _register_weight(self, weight: Tensor) -> None:
        self.register_buffer("weight", weight)
        for group, part in enumerate(weight.chunk(self.groups)):
            self.register_buffer(f"rows_{group}", _rows(part).to(smallest_type(weight)))

    def _sources(self) -> list[Tensor]:
        return [self.weight]

    def _whole_weight(self) -> Tensor:
        return self.weight

    def _is_exact(self) -> bool:
        version = None if self.weight.is_inference() else self.weight._version
        if version is None or self._reach is None or self._reach[0] is not self.weight or self._reach[1] != version:
            sums = self.weight.double().abs().flatten(1).sum(1)
            self._reach = self.weight, version, float(sums.max()) if len(sums) else 0.0
        return max(map(abs, self.levels)) * self._reach[2] < 2**24

    def tensors(self) -> dict[str, Tensor]:
        return self._saved("weight", self.weight.to(smallest_type(self.weight)))

    def forward(self, value: Bits) -> Value:
        self._check(value)
        value = along(value, self.axis)
        words = value.words if self.where is None or value.words.ndim == 4 else value.words[None]
        if self.thresholds is None and self.factor is not None and self.levels == (0, 1) and self.groups == 1:
            words = words if self.where is None else windows(words, *self.where[:4])
            # To add -0.0 changes nothing, not even -0.0.
            bias = torch.full_like(self.factor, -0.0) if self.bias is None else self.bias
            x = heaviside_values(words, self.rows_0, self.factor, bias)
            return moved(x if x.ndim == value.words.ndim else x[0], self.axis)
        if self.where is None:
            sums = heaviside_sums(words, self.rows_0)
            if self.levels[0]:
                sums = 2 * sums - self.weight.sum(1, dtype=torch.int32)
            return self._finished(sums)
        sums = self._image_sums(words, value.size, self.where)
        return self._finished(sums if value.words.ndim == 4 else sums[0])

    def _image_sums(self, words: Tensor, size: int, where: Geometry) -> Tensor:
        parts = [windows(part, *where[:4]) for part in self._parts(words, size)]
        sums = torch.cat([heaviside_sums(p, getattr(self, f"rows_{group}")) for group, p in enumerate(parts)], -1)
        if self.levels[0]:
            inside = windows(torch.ones_like(words[:1, ..., :1]), *where[:4]).double()
            taps = self.weight.sum(1).flatten(1).T.double()
            sums = 2 * sums - (inside @ taps).to(torch.int32)
        return sums


def smallest_type(weight: Tensor) -> torch.dtype:
    """Return the smallest signed type that holds integers."""
    largest = int(weight.abs().max()) if weight.numel() else 0
    return torch.int8 if largest < 2**7 else torch.int16 if largest < 2**15 else torch.int32


def _rows(weight: Tensor) -> Tensor:
    """Return integer weights by input: (n, O), or (64 * words * taps, O) in the order of the bits of `windows`."""
    if weight.ndim == 2:
        return weight.T.contiguous()
    taps = weight.flatten(2).permute(2, 1, 0)
    return torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % 64)).flatten(0, 1).contiguous()
