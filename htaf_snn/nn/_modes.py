"""Evaluation that leaves a model's modes as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["in_eval"]


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Within the block, all modules are in eval mode; afterwards each is in the mode that it had, after an error too.

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
        for module, mode in modes:  # parents first, as theirs reaches their children
            if module.training != mode:
                module.train(mode)
