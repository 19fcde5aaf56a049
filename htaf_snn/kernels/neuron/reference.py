"""The definition: one time step after the other in plain torch, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...neurons.base import Neuron, Sum
from ...surrogate import Surrogate


class _Spike:
    """A surrogate as an update's `spike`."""

    def __init__(self, surrogate: Surrogate, is_hard: bool):
        self.surrogate, self.is_hard = surrogate, is_hard

    def __call__(self, u: Tensor) -> Tensor:
        return self.hard(u) if self.is_hard else self.surrogate(u)

    def hard(self, u: Tensor) -> Tensor:
        return self.surrogate.at_hardness(1.0, u)


def step(
    neuron: Neuron, x: Tensor | Sum, states: Sequence[Tensor], keywords: Mapping, surrogate: Surrogate | None
) -> tuple[Tensor, list[Tensor]]:
    """Update once: return the output at the surrogate's hardness, and the new states, whose resets are hard."""
    spike = {} if surrogate is None else {"spike": _Spike(surrogate, True)}
    output, *new = neuron.update(x, *states, **keywords, **spike)
    # A callable may itself be smooth, as one that rescales a smooth surrogate, which its hardness does not tell.
    if surrogate is not None and (surrogate.formula is None or not surrogate.is_hard()):
        output = neuron.update(x, *states, **keywords, spike=_Spike(surrogate, False))[0]
    # What depends on parameters alone may have fewer dimensions.
    shape = states[0].shape
    output, *new = (value if value.shape == shape else value.expand(shape) for value in (output, *new))
    return output, new


def run(
    neuron: Neuron, x: Tensor, states: Sequence[Tensor], keywords: Mapping, surrogate: Surrogate | None, keep: bool
) -> tuple[Tensor, ...]:
    """Return the output (T, ...) in the dtype of x, the last states, and if `keep` all of them, each (T, ...)."""
    outputs, trajectory = [], []
    for current in x.to(states[0].dtype):
        output, states = step(neuron, current, states, keywords, surrogate)
        outputs.append(output)
        trajectory.append(states)
    return collected(x, outputs, states, trajectory, keep)


def collected(
    x: Tensor, outputs: list[Tensor], states: Sequence[Tensor], trajectory: list, keep: bool
) -> tuple[Tensor, ...]:
    """Return what `run` returns, from the outputs and states of each time step."""
    if not outputs:
        empty = x.to(states[0].dtype)
        return torch.zeros_like(x), *states, *(torch.zeros_like(empty) for _ in states if keep)
    kept = [torch.stack(steps) for steps in zip(*trajectory, strict=True)] if keep else []
    return torch.stack(outputs).to(x.dtype), *states, *kept
