"""Leaky integrate-and-fire neuron with an adaptive threshold, the neuron of LSNNs.

    u = v[t-1] + dt tau_mem_inv (v_leak - v[t-1] + i[t-1])        i[t] = i[t-1] - dt tau_syn_inv i[t-1] + x[t]
    w = b[t-1] + dt tau_adapt_inv (v_th - b[t-1])        s[t] = H(u - w)
    v[t] = (1 - s[t]) u + s[t] v_reset        b[t] = w + s[t] beta

Units: dt in s, inverse time constants in 1/s; Norse's tau_adapt_inv of 1/800 thus means 800 s, not ms. With
`detach_reset` no gradient flows through the reset and the rise of the threshold.

Reference:
    Bellec et al. 2018, "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS; Norse's
    `lsnn_feed_forward_step`, and `lsnn_step`, which detaches the reset.
"""

from .base import Neuron
from .lif import NEURON as LIF
from .parts import decay, reset_to


def update(
    x, v, i, b, *, tau_syn_inv, tau_mem_inv, tau_adapt_inv, v_leak, v_th, v_reset, beta, dt, spike, detach_reset
):
    v = v + dt * tau_mem_inv * (v_leak - v + i)
    b = b + dt * tau_adapt_inv * (v_th - b)
    s = spike(v - b)
    fired = s.detach() if detach_reset else s
    return s, reset_to(v, fired, v_reset), decay(i, tau_syn_inv, dt) + x, b + fired * beta


NEURON = Neuron(
    "lsnn",
    update,
    states={**LIF.states, "b": "v_th"},
    parameters={**LIF.parameters, "tau_adapt_inv": 1 / 800, "beta": 1.8},
    options=LIF.options,
    learns_at_rest=False,
)
