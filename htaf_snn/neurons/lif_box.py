"""Leaky integrate-and-fire neuron without a synapse: the input is the current.

    u = v[t-1] + dt tau_mem_inv (v_leak + x[t] - v[t-1])        s[t] = H(u - v_th)
    v[t] = (1 - s[t]) u + s[t] v_reset        with reset "subtract" (1 - s[t]) u + s[t] (u - v_th)

Units: dt in s, tau_mem_inv in 1/s.

Reference:
    Norse's `lif_box_feed_forward_step`, where the reset is the function `reset_value` or `reset_subtract`.
"""

from .base import Neuron
from .parts import reset_to


def update(x, v, *, tau_mem_inv, v_leak, v_th, v_reset, dt, spike, reset):
    v = v + dt * tau_mem_inv * (v_leak + x - v)
    s = spike(v - v_th)
    return s, reset_to(v, s, v - v_th if reset == "subtract" else v_reset)


NEURON = Neuron(
    "lif_box",
    update,
    states={"v": "v_leak"},
    parameters={"tau_mem_inv": 100.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0, "dt": 0.001},
    options={"reset": ("value", "subtract")},
    learns_at_rest=False,
)
