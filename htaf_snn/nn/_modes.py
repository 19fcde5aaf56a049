"""Evaluation and tracing that leave a model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["has_hooks", "in_eval", "unchanged"]


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


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Within the block a forward pass may set attributes of modules, as tracing does; afterwards they are as before.

    Example:
        >>> net = nn.Identity()
        >>> with unchanged(net):
        ...     net.state = 1
        >>> hasattr(net, "state")
        False
    """
    kept = [(module, dict(vars(module))) for module in model.modules()]
    inner = [(one, dict(one)) for _, before in kept for one in before.values() if isinstance(one, dict)]
    try:
        yield
    finally:
        for one, before in (*((vars(module), before) for module, before in kept), *inner):
            one.clear()
            one.update(before)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks of a module's own see or change its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
