"""Leaky integrate-and-fire neuron with an exponential synapse.

    j = i[t-1] + x[t]        u = v[t-1] + dt tau_mem_inv (v_leak - v[t-1] + j)        s[t] = H(u - v_th)
    i[t] = j - dt tau_syn_inv j        v[t] = (1 - s[t]) u + s[t] v_reset

Units: dt in s, inverse time constants in 1/s. With `detach_reset` no gradient flows through the reset.

Reference:
    Norse's `lif_feed_forward_step`, and `lif_step`, which detaches the reset.
"""

from . import li
from .base import Neuron
from .parts import reset_to


def update(x, v, i, *, v_th, v_reset, spike, detach_reset, **of_li):
    u, _, i = li.update(x, v, i, **of_li)
    s = spike(u - v_th)
    return s, reset_to(u, s.detach() if detach_reset else s, v_reset), i


NEURON = Neuron(
    "lif",
    update,
    states={"v": "v_leak", "i": 0.0},
    parameters={
        "tau_syn_inv": 200.0,
        "tau_mem_inv": 100.0,
        "v_leak": 0.0,
        "v_th": 1.0,
        "v_reset": 0.0,
        "dt": 0.001,
    },
    options={"detach_reset": (False, True)},
    learns_at_rest=False,
)
