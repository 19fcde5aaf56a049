"""The definition: one step after the other in plain torch, differentiated by autograd.

`step` maps membrane potential minus threshold to spikes; `reset_step` is its hard form for the resets, the same
function where the spikes are hard. Currents are (T, ...), parameters and states broadcast to one time step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _stack(steps: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(steps) if steps else torch.zeros_like(x)


def leaky(
    x: Tensor,
    beta: Tensor,
    threshold: Tensor,
    v: Tensor,
    step: Callable[[Tensor], Tensor],
    reset_step: Callable[[Tensor], Tensor],
    reset: str,
    reset_delay: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step like snnTorch's `Leaky`: return spikes (T, ...), the last membrane potential, and all of them (T, ...)."""
    spikes, trace = [], []
    for current in x:
        reset_now = reset_step(v - threshold).detach()
        if reset == "subtract":
            v = beta * v + current - reset_now * threshold
        elif reset == "zero":
            v = beta * ((1 - reset_now) * v) + current
        else:
            v = beta * v + current
        spikes.append(step(v - threshold))
        if not reset_delay:
            # What the reset of this step has already taken is not taken twice.
            more = reset_step(v - threshold) - reset_now
            if reset == "subtract":
                v = v - more * threshold
            elif reset == "zero":
                v = v - more * v
        trace.append(v)
    return _stack(spikes, x), v, _stack(trace, x)


def cuba(
    x: Tensor,
    decay_mem: Tensor,
    decay_syn: Tensor,
    leak: Tensor,
    threshold: Tensor,
    v_reset: Tensor,
    v: Tensor,
    i: Tensor,
    step: Callable[[Tensor], Tensor],
    reset_step: Callable[[Tensor], Tensor],
    detach_reset: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Norse's LIF; decay_mem is dt * tau_mem_inv and decay_syn is -dt * tau_syn_inv.

    Returns spikes (T, ...), the last membrane potential and current, and the potentials before each reset (T, ...).
    """
    spikes, trace = [], []
    for current in x:
        jump = i + current
        v = v + decay_mem * ((leak - v) + jump)
        i = jump + decay_syn * jump
        spikes.append(step(v - threshold))
        trace.append(v)
        fired = reset_step(v - threshold)
        if detach_reset:
            fired = fired.detach()
        v = (1 - fired) * v + fired * v_reset
    return _stack(spikes, x), v, i, _stack(trace, x)
