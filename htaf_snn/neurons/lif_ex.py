"""Exponential integrate-and-fire neuron with an exponential synapse.

    j = i[t-1] + x[t]        i[t] = j - dt tau_syn_inv j
    u = v[t-1] + dt tau_mem_inv (v_leak - v[t-1] + delta_T exp((v[t-1] - v_th) / delta_T) + j)
    s[t] = H(u - v_th)        v[t] = (1 - s[t]) u + s[t] v_reset

Units: dt in s, inverse time constants in 1/s, delta_T in the unit of v.

Reference:
    Fourcaud-Trocmé et al. 2003, "How spike generation mechanisms determine the neuronal response to fluctuating
    inputs", Journal of Neuroscience 23:11628; Norse's `lif_ex_feed_forward_step` and `lif_ex_step`.
"""

import torch

from .base import Neuron
from .lif import NEURON as LIF
from .parts import decay, reset_to


def update(x, v, i, *, delta_T, tau_syn_inv, tau_mem_inv, v_leak, v_th, v_reset, dt, spike, adaptation=0.0):
    j = i + x
    upswing = delta_T * torch.exp((v - v_th) / delta_T)
    v = v + dt * tau_mem_inv * (v_leak - v + upswing + j - adaptation)
    s = spike(v - v_th)
    return s, reset_to(v, s, v_reset), decay(j, tau_syn_inv, dt)


NEURON = Neuron(
    "lif_ex", update, states=LIF.states, parameters={"delta_T": 0.5, **LIF.parameters}, learns_at_rest=False
)
