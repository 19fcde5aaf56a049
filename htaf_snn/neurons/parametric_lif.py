"""Leaky integrate-and-fire neuron with a learnable time constant, tau = 1 / sigmoid(w).

    u = v[t-1] + (v_reset - v[t-1] + x[t]) / tau        without `decay_input` v[t-1] + (v_reset - v[t-1]) / tau + x[t]
    s[t] = H(u - v_threshold)        v[t] = s[t] v_reset + (1 - s[t]) u

With reset "subtract", SpikingJelly's `v_reset=None`, v[t] = u - s[t] v_threshold, and v_reset is 0 in u. With
`detach_reset` no gradient flows through the reset. tau is in time steps.

Reference:
    Fang et al. 2021, "Incorporating learnable membrane time constant to enhance learning of spiking neural networks",
    ICCV; SpikingJelly's `ParametricLIFNode`, which spikes where u = v_threshold too; here a spike is u > v_threshold.
"""

import torch

from .base import Neuron
from .parts import reset_by, reset_to


def prepare(w, v_threshold, v_reset):
    return {"rate": torch.sigmoid(w), "v_threshold": v_threshold, "v_reset": v_reset}


def update(x, v, *, rate, v_threshold, v_reset, spike, decay_input, reset, detach_reset):
    leak = (v_reset if reset == "value" else 0.0) - v
    u = v + (leak + x) * rate if decay_input else v + leak * rate + x
    s = spike(u - v_threshold)
    fired = s.detach() if detach_reset else s
    return s, reset_to(u, fired, v_reset) if reset == "value" else reset_by(u, fired, v_threshold, reset)


NEURON = Neuron(
    "parametric_lif",
    update,
    states={"v": "v_reset"},
    parameters={"w": 0.0, "v_threshold": 1.0, "v_reset": 0.0},
    options={"decay_input": (True, False), "reset": ("value", "subtract"), "detach_reset": (False, True)},
    prepare=prepare,
)
