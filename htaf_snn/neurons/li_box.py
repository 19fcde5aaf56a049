"""Leaky integrator without a synapse: the input is the current, the output the potential.

    v[t] = v[t-1] + dt tau_mem_inv (v_leak - v[t-1] + x[t])

Units: dt in s, tau_mem_inv in 1/s.

Reference:
    Norse's `li_box_feed_forward_step`.
"""

from .base import Neuron


def update(x, v, *, tau_mem_inv, v_leak, dt):
    v = v + dt * tau_mem_inv * (v_leak - v + x)
    return v, v


NEURON = Neuron(
    "li_box",
    update,
    states={"v": "v_leak"},
    parameters={"tau_mem_inv": 100.0, "v_leak": 0.0, "dt": 0.001},
    learns_at_rest=False,
    spikes=False,
)
