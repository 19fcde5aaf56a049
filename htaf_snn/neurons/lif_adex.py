"""Adaptive exponential integrate-and-fire neuron with an exponential synapse: `lif_ex` and an adaptation current.

    u, s[t], v[t], i[t] as in `lif_ex`, where a[t-1] is subtracted from the current j of u
    a[t] = a[t-1] + dt tau_ada_inv (adaptation_current (v[t-1] - v_leak) - a[t-1]) + s[t] adaptation_spike

Units: those of `lif_ex`.

Reference:
    Brette and Gerstner 2005, "Adaptive exponential integrate-and-fire model as an effective description of neuronal
    activity", Journal of Neurophysiology 94:3637; Norse's `lif_adex_feed_forward_step` and `lif_adex_step`.
"""

from dataclasses import replace

from . import lif_ex


def update(x, v, i, a, *, adaptation_current, adaptation_spike, tau_ada_inv, v_leak, dt, spike, **of_lif_ex):
    s, after, i = lif_ex.update(x, v, i, v_leak=v_leak, dt=dt, spike=spike, adaptation=a, **of_lif_ex)
    a = a + dt * tau_ada_inv * (adaptation_current * (v - v_leak) - a)
    return s, after, i, a + s * adaptation_spike


NEURON = replace(
    lif_ex.NEURON,
    name="lif_adex",
    update=update,
    states={**lif_ex.NEURON.states, "a": 0.0},
    parameters={
        "adaptation_current": 4.0,
        "adaptation_spike": 0.02,
        "tau_ada_inv": 2.0,
        **lif_ex.NEURON.parameters,
    },
)
