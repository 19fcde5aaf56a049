"""Leaky integrate-and-fire neuron of second order, with a synaptic current.

    i[t] = alpha i[t-1] + x[t]        u[t] = beta v[t-1] + i[t]
    r[t] = H(v[t-1] - threshold)        v[t] = u[t] - r[t] threshold        s[t] = H(v[t] - threshold)

No gradient flows through the delayed reset r. With reset "zero" v = u - r u; the current is never reset. Without
`reset_delay` a spike resets in its own time step, and its gradient flows through that reset.

Reference:
    Eshraghian et al. 2023, "Training spiking neural networks using lessons from deep learning", Proceedings of the
    IEEE 111:1016; snnTorch's `Synaptic`, whose `syn` and `mem` are i and v.
"""

from .base import RESETS, Neuron
from .parts import fire


def update(x, v, i, *, alpha, beta, threshold, spike, reset, reset_delay):
    i = alpha * i + x
    return *fire(beta * v + i, v, threshold, spike, reset, reset_delay), i


NEURON = Neuron(
    "synaptic",
    update,
    states={"v": 0.0, "i": 0.0},
    parameters={"alpha": None, "beta": None, "threshold": 1.0},
    options={"reset": RESETS, "reset_delay": (True, False)},
    clamped={"alpha": (0.0, 1.0), "beta": (0.0, 1.0)},
)
