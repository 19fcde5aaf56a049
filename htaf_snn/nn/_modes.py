"""Evaluation that preserves a model's training modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode within the block; afterwards restore each one's mode, also after an error.

    Example:
        >>> net = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
        >>> with in_eval(net):
        ...     [module.training for module in net]
        [False, False]
        >>> [module.training for module in net]
        [False, True]
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:  # parents first, as their mode spreads to their children
            if module.training != mode:
                module.train(mode)
