"""The chain that models of layers one after another are made of, and the check of their sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from numbers import Integral

from torch import nn

__all__ = ["Chain", "check_sizes"]


def check_sizes(hidden: Sequence[int]) -> None:
    """Raise ValueError unless the sizes of hidden layers are positive integers, one or more."""
    valid = isinstance(hidden, Sequence) and not isinstance(hidden, str) and len(hidden)
    if not valid or not all(isinstance(size, Integral) and size > 0 and size is not True for size in hidden):
        raise ValueError(f"hidden: expected one or more positive integers, got {hidden!r}")


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` that can be sliced, although its own constructor takes other arguments."""

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
