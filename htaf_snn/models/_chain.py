"""The base of models that are chains of layers, and checks of their sizes and images."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TypeGuard, TypeVar, overload

import torch
from torch import Tensor, fx, nn

from .._checks import check_choice, check_floating, describe

NORMS = ("batch", "none")
Layer = TypeVar("Layer", bound=nn.Module)


def check_counts(**counts: object) -> None:
    """Raise ValueError unless each number is an integer of at least 1."""
    for name, count in counts.items():
        if not _is_count(count):
            raise ValueError(f"{name}: expected an integer of at least 1, got {describe(count)}")


def check_sizes(**sizes: object) -> None:
    """Raise ValueError unless the sizes of a network's layers are positive integers, one or more."""
    for name, values in sizes.items():
        if not _are_counts(values) or not values:
            raise ValueError(f"{name}: expected one or more positive integers, got {describe(values)}")


def check_shape(in_shape: object, *, or_features: bool = False) -> None:
    """Raise ValueError unless `in_shape` is (C, H, W) or, where that is possible, a number of features."""
    if or_features and _is_count(in_shape):
        return
    if not (_are_counts(in_shape) and len(in_shape) == 3):
        features = "the number of features or " if or_features else ""
        raise ValueError(
            f"in_shape: expected {features}(C, H, W), three integers of at least 1, got {describe(in_shape)}"
        )


def _is_count(value: object) -> bool:
    # NumPy's integers too, unlike `configuration.is_count`, whose values are stored.
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _are_counts(values: object) -> TypeGuard[Sequence[int]]:
    return isinstance(values, Sequence) and all(map(_is_count, values))


def check_start(norm: str, identity: float) -> None:
    """Raise TypeError or ValueError unless the norm is known and the identity's multiple finite and not negative."""
    check_choice("norm", norm, NORMS)
    if isinstance(identity, bool) or not isinstance(identity, Real):
        raise TypeError(f"identity: expected a number, got {identity!r}")
    if not 0 <= identity < math.inf:
        raise ValueError(f"identity: expected a finite number >= 0, got {identity!r}")


@torch.no_grad()
def add_identity(layer: Layer, factor: float) -> Layer:
    """Add a multiple of the identity to the weights of a linear layer or convolution that keeps its width."""
    weight = layer.get_parameter("weight")
    if factor and weight.shape[0] == weight.shape[1]:
        same = nn.init.eye_ if weight.ndim == 2 else nn.init.dirac_
        weight.add_(same(torch.empty_like(weight)), alpha=factor)
    return layer


def check_images(x: Tensor, image_shape: tuple[int, ...] | None) -> None:
    """Raise TypeError or ValueError unless x is floating-point and, if an image's shape is known, has that shape."""
    check_floating("x", x)
    if image_shape is not None and not isinstance(x, fx.Proxy) and x.shape[1:] != image_shape:
        raise ValueError(f"x: expected images (B, {', '.join(map(str, image_shape))}), got {tuple(x.shape)}")


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` that can be sliced, although its own constructor takes other arguments.

    Attributes:
        image_shape: (C, H, W) of the training images, as `training.load` sets it; images of other shapes are then
            refused. None before.
    """

    image_shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.image_shape)
        return super().forward(x)

    @overload
    def __getitem__(self, index: slice) -> nn.Sequential: ...
    @overload
    def __getitem__(self, index: int) -> nn.Module: ...
    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
