"""What lies between the steps of a packed network: float32, `Bits`, or the uint8 levels of a quantized input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._checks import describe
from ..functional import pack_bits, unpack_bits
from ..nn.quantizing import INPUT_STEP


@dataclass(frozen=True)
class Bits:
    """Packed activations.

    Attributes:
        words: int64, with the packed dimension last: (…, K), or (B, H, W, K) for images.
        size: number of features or channels.
        levels: the values of a 0 and a 1.
        axis: the packed dimension of the same values in floating point, -1 or -3.
    """

    words: Tensor
    size: int
    levels: tuple[int, int]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the same values in floating point."""
        shape = list(self.words.shape[:-1])
        shape.insert(len(shape) + 1 + self.axis, self.size)
        return tuple(shape)


Value = Tensor | Bits
Pair = int | Sequence[int]


def pair(value: Pair) -> tuple[int, int]:
    """Return two integers, as a module or JSON has them, as a tuple."""
    first, second = value if isinstance(value, Sequence) else (value, value)
    return int(first), int(second)


def as_float(value: Value) -> Tensor:
    """Return a value as float32, images as (B, C, H, W)."""
    if not isinstance(value, Bits):
        return value if value.is_floating_point() else value.float() * INPUT_STEP
    return moved(of_levels(unpack_bits(value.words, value.size), value.levels), value.axis)


def moved(x: Tensor, axis: int) -> Tensor:
    """Move the last dimension, with the strides of a new tensor: torch's rounding depends on them."""
    return x if axis == -1 else x.movedim(-1, axis).clone(memory_format=torch.contiguous_format)


def of_levels(bits: Tensor, levels: tuple[int, int]) -> Tensor:
    """Return the values of bits, float32."""
    low, high = levels
    return bits.float() if (low, high) == (0, 1) else bits.float() * (high - low) + low


def as_new(x: Tensor) -> Tensor:
    """Return a tensor with the strides of a new one, also along dimensions of length 1: see `moved`."""
    is_new = x.stride() == torch.empty(x.shape, device="meta").stride()
    return x if is_new else x.clone(memory_format=torch.contiguous_format)


def packed(x: Tensor, levels: tuple[int, int], axis: int) -> Bits:
    x = x.movedim(axis, -1)
    return Bits(pack_bits(x), x.shape[-1], levels, axis)


def along(value: Bits, axis: int) -> Bits:
    """Return the same bits, repacked along the given dimension if necessary."""
    return value if value.axis == axis else packed(as_float(value), value.levels, axis)


def misfit(expected: str, shape: Sequence[int], channels: int | None = None) -> str:
    """Return the message for a shape that a layer does not take; channels are those of an image that it expects."""
    hint = ""
    if channels is not None and len(shape) == 4 and shape[-1] == channels:
        hint = ", which looks like channels last; write x.movedim(-1, 1)"
    return f"x: expected {expected} at this layer, got {tuple(shape)}{hint}"


def check_shape(shape: Sequence[int]) -> None:
    """Raise ValueError unless a shape is that of an image or of features, without a batch."""
    is_known = isinstance(shape, Sequence) and len(shape) in (1, 3)
    if not is_known or not all(type(length) is int and length > 0 for length in shape):
        raise ValueError(f"shape: expected (C, H, W) or (features,), got {describe(shape)}")


def sums_exactly() -> bool:
    """Return whether float32 products and convolutions on the CPU sum integers exactly, as far as float32 holds them.

    Without oneDNN, torch convolves by transforms.
    """
    own = torch.backends.mkldnn
    precisions = {getattr(own, kind).fp32_precision for kind in ("matmul", "conv")}
    return bool(own.is_available() and own.enabled) and precisions <= {"none", "ieee"}


class Step(nn.Module):
    """A step that computes on packed values."""

    def options(self) -> dict[str, object]:
        """Return the constructor's arguments other than tensors, for JSON."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return self.state_dict()

    def in_floats(self, *values: Any, **_: Any) -> Tensor:
        """Return what `forward` does without bits on the way, from values in float32 or the levels of an input."""
        return self(*values)

    def release(self) -> None:
        """Free what is kept for `in_floats` alone."""


class Geometry(NamedTuple):
    """A convolution's window and movement, for rows and columns, and its groups."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def check_window(where: Geometry) -> None:
    """Raise ValueError unless a window, and how it moves, are possible."""
    least = {"window": 1, "stride": 1, "padding": 0, "dilation": 1}
    for name, smallest in least.items():
        if min(getattr(where, name)) < smallest:
            raise ValueError(f"{name}: expected integers >= {smallest}, got {getattr(where, name)}")
    if where.groups < 1:
        raise ValueError(f"groups: expected an integer >= 1, got {where.groups}")


def geometry(window: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Geometry:
    """Return a `Geometry` from values as a module or JSON has them."""
    return Geometry(pair(window), pair(stride), pair(padding), pair(dilation), groups)
