"""The chain that models of layers one after another are made of, and the check of their sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, fx, nn

from .._checks import check_floating

__all__ = ["Chain", "check_images", "check_sizes"]


def check_sizes(hidden: Sequence[int]) -> None:
    """Raise ValueError unless the sizes of hidden layers are positive integers, one or more."""
    valid = isinstance(hidden, Sequence) and not isinstance(hidden, str) and len(hidden)
    if not valid or not all(isinstance(size, Integral) and size > 0 and size is not True for size in hidden):
        raise ValueError(f"hidden: expected one or more positive integers, got {hidden!r}")


def check_images(x: Tensor, image_shape: tuple[int, ...] | None) -> None:
    """Raise unless x is of floating point and, where the shape of an image is known, of it."""
    check_floating("x", x)
    if image_shape is not None and not isinstance(x, fx.Proxy) and x.shape[1:] != image_shape:
        raise ValueError(f"x: expected images (B, {', '.join(map(str, image_shape))}), got {tuple(x.shape)}")


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` that can be sliced, although its own constructor takes other arguments.

    Attributes:
        image_shape: (C, H, W) of the images of the training, as `training.load` sets it; others are refused then. None
            before.
    """

    image_shape: tuple[int, ...] | None = None

    def forward(self, x: Tensor) -> Tensor:
        check_images(x, self.image_shape)
        return super().forward(x)

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
