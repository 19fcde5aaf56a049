"""The chain that models of layers one after another are made of."""

from __future__ import annotations

from torch import nn

__all__ = ["Chain"]


class Chain(nn.Sequential):
    """A `torch.nn.Sequential` that can be sliced, although its own constructor takes other arguments."""

    def __getitem__(self, index: int | slice) -> nn.Module:
        return nn.Sequential(*list(self)[index]) if isinstance(index, slice) else super().__getitem__(index)
