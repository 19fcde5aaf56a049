"""Integrate-and-fire neuron without a leak.

    u = v[t-1] + x[t]        s[t] = H(u - v_th)        v[t] = (1 - s[t]) u + s[t] v_reset

Reference:
    Norse's `iaf_feed_forward_step` and `iaf_step`.
"""

from .base import Neuron
from .parts import reset_to


def update(x, v, *, v_th, v_reset, spike):
    v = v + x
    s = spike(v - v_th)
    return s, reset_to(v, s, v_reset)


NEURON = Neuron("iaf", update, states={"v": "v_reset"}, parameters={"v_th": 1.0, "v_reset": 0.0})
