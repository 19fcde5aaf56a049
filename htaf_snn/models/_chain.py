"""The chain that models of layers one after another are made of, and the check of their sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from numbers import Integral

from torch import Tensor, nn

from ..nn.quantizing import check_floating_images

__all__ = ["Chain", "check_sizes"]


def check_sizes(hidden: Sequence[int]) -> None:
    """Raise ValueError unless the sizes of hidden layers are positive integers, one or more."""
    valid = isinstance(hidden, Sequence) and not isinstance(hidden, str) and len(hidden)
    if not valid or not all(isinstance(size, Integral) and size > 0 and size is not True for size in hidden):
        raise ValueError(f"hidden: expected one or more positive integers, got {hidden!r}")


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` of floating-point inputs that can be sliced, although its constructor takes others."""

    def forward(self, x: Tensor) -> Tensor:
        check_floating_images(x)
        return super().forward(x)

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
