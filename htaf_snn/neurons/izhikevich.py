"""Izhikevich's neuron.

    p = v[t-1] + tau_inv dt (sq v[t-1]² + mn v[t-1] + bias - u[t-1] + x[t])        s[t] = H(p - v_th)
    q = u[t-1] + tau_inv dt a (b v[t-1] - u[t-1])
    v[t] = (1 - s[t]) p + s[t] c        u[t] = (1 - s[t]) q + s[t] (q + d)

Units: v, u, c and d in mV, dt in s; a time step lasts tau_inv dt ms of Izhikevich's time. The defaults are those of
Norse's `tonic_spiking`, where u_rest = b v_rest. v_rest and u_rest have no gradient.

Reference:
    Izhikevich 2003, "Simple model of spiking neurons", IEEE Transactions on Neural Networks 14:1569; Norse's
    `izhikevich_feed_forward_step` and `izhikevich_recurrent_step`.
"""

from .base import Neuron
from .parts import reset_to


def prepare(v_rest, u_rest, **of_update):
    return of_update


def update(x, v, u, *, a, b, c, d, sq, mn, bias, v_th, tau_inv, dt, spike):
    p = v + tau_inv * dt * (sq * (v * v) + mn * v + bias - u + x)
    q = u + tau_inv * dt * a * (b * v - u)
    s = spike(p - v_th)
    return s, reset_to(p, s, c), reset_to(q, s, q + d)


_SHAPE = {"a": 0.02, "b": 0.2, "c": -65.0, "d": 6.0}
_PARABOLA = {"sq": 0.04, "mn": 5.0, "bias": 140.0}
NEURON = Neuron(
    "izhikevich",
    update,
    states={"v": "v_rest", "u": "u_rest"},
    parameters={
        **_SHAPE,
        **_PARABOLA,
        "v_th": 30.0,
        "tau_inv": 250.0,
        "dt": 0.001,
        "v_rest": -70.0,
        "u_rest": -14.0,
    },
    prepare=prepare,
)
