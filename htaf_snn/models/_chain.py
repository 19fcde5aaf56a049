"""The chain that models of layers one after another are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["Chain"]


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` that can be sliced, although its own constructor takes other arguments."""

    def __getitem__(self, index: int | slice) -> nn.Module:
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(list(self._modules.items())[index]))
        return super().__getitem__(index)
