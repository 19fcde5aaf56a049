"""Leaky integrate-and-fire neuron with conductance-based synapses; negative input is inhibitory.

    g_e[t] = (1 - dt tau_syn_exc_inv) (g_e[t-1] + relu(x[t]))        g_i[t] likewise, with relu(-x[t])
    u = v[t-1] + dt c_m_inv (g_l (v_rest - v[t-1]) + g_e[t] (e_rev_E - v[t-1]) + g_i[t] (e_rev_I - v[t-1]))
    s[t] = H(u - v_thresh)        v[t] = (1 - s[t]) u + s[t] v_reset

Units: potentials in mV; dt in the unit of the time constants. Norse's default time constants are in ms, its dt in s.

Reference:
    Brette et al. 2007, "Simulation of networks of spiking neurons", Journal of Computational Neuroscience 23:349;
    Norse's `coba_lif_feed_forward_step`. Its recurrent `coba_lif_step` ignores the input: it overwrites the sum.
"""

import torch

from .base import Neuron
from .parts import decay, reset_to


def charge(v, g_e, g_i, c_m_inv, g_l, e_rev_E, e_rev_I, v_rest, dt):
    return v + dt * c_m_inv * (g_l * (v_rest - v) + g_e * (e_rev_E - v) + g_i * (e_rev_I - v))


def update(x, v, g_e, g_i, *, tau_syn_exc_inv, tau_syn_inh_inv, v_reset, v_thresh, dt, spike, **membrane):
    g_e = decay(g_e + torch.relu(x), tau_syn_exc_inv, dt)
    g_i = decay(g_i + torch.relu(-x), tau_syn_inh_inv, dt)
    v = charge(v, g_e, g_i, dt=dt, **membrane)
    s = spike(v - v_thresh)
    return s, reset_to(v, s, v_reset), g_e, g_i


_SYNAPSES = {"tau_syn_exc_inv": 0.2, "tau_syn_inh_inv": 0.2, "e_rev_E": 60.0, "e_rev_I": -100.0}
_MEMBRANE = {"c_m_inv": 5.0, "g_l": 0.25, "v_rest": -20.0, "v_reset": -70.0, "v_thresh": -10.0, "dt": 0.001}
NEURON = Neuron(
    "coba_lif",
    update,
    states={"v": "v_rest", "g_e": 0.0, "g_i": 0.0},
    parameters={**_SYNAPSES, **_MEMBRANE},
    learns_at_rest=False,
)
