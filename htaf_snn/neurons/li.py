"""Leaky integrator with an exponential synapse; the output is the potential.

    j = i[t-1] + x[t]        i[t] = j - dt tau_syn_inv j
    v[t] = v[t-1] + dt tau_mem_inv (v_leak - v[t-1] + j)

Units: dt in s, inverse time constants in 1/s.

Reference:
    Norse's `li_feed_forward_step`.
"""

from dataclasses import replace

from . import li_box
from .parts import decay


def update(x, v, i, *, tau_syn_inv, tau_mem_inv, v_leak, dt):
    j = i + x
    output, v = li_box.update(j, v, tau_mem_inv=tau_mem_inv, v_leak=v_leak, dt=dt)
    return output, v, decay(j, tau_syn_inv, dt)


NEURON = replace(
    li_box.NEURON,
    name="li",
    update=update,
    states={**li_box.NEURON.states, "i": 0.0},
    parameters={"tau_syn_inv": 200.0, **li_box.NEURON.parameters},
)
