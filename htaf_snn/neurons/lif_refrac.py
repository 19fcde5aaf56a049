"""Leaky integrate-and-fire neuron with a refractory period: `lif`, silent for rho_reset time steps after a spike.

    u, z = v[t] and s[t] of `lif`        m = H(rho[t-1])
    s[t] = (1 - m) z        v[t] = (1 - m) u + m v[t-1]
    rho[t] = (1 - s[t]) relu(rho[t-1] - m) + s[t] rho_reset

The current keeps evolving while the neuron is refractory. m is hard at any hardness, and has the surrogate's gradient.
Units: those of `lif`; rho in time steps. `detach_reset` is that of `lif`; rho keeps the gradient of s.

Reference:
    Norse's `lif_refrac_feed_forward_step`, and `lif_refrac_step`, which detaches the reset.
"""

from dataclasses import replace

import torch

from . import lif
from .parts import reset_to


def refractory(s, v, before, rho, rho_reset, spike):
    mask = spike.hard(rho)
    s = (1 - mask) * s
    return s, reset_to(v, mask, before), reset_to(torch.relu(rho - mask), s, rho_reset)


def update(x, v, i, rho, *, rho_reset, spike, **of_lif):
    s, u, i = lif.update(x, v, i, spike=spike, **of_lif)
    s, v, rho = refractory(s, u, v, rho, rho_reset, spike)
    return s, v, i, rho


NEURON = replace(
    lif.NEURON,
    name="lif_refrac",
    update=update,
    states={**lif.NEURON.states, "rho": 0.0},
    parameters={**lif.NEURON.parameters, "rho_reset": 5.0},
)
