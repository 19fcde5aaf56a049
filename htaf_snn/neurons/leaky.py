"""Leaky integrate-and-fire neuron of first order.

    u[t] = beta v[t-1] + x[t] - r[t] threshold        s[t] = H(u[t] - threshold)        r[t] = H(v[t-1] - threshold)

No gradient flows through the delayed reset r. With reset "zero" u[t] = beta (1 - r[t]) v[t-1] + x[t]. With
`reset_delay` v = u; without it a spike resets in its own time step, which the delayed reset does not repeat, and its
gradient flows through that reset.

Reference:
    Eshraghian et al. 2023, "Training spiking neural networks using lessons from deep learning", Proceedings of the
    IEEE 111:1016; snnTorch's `Leaky` for the order of decay, input and reset.
"""

from .base import RESETS, Neuron
from .parts import reset_by


def update(x, v, *, beta, threshold, spike, reset, reset_delay):
    r = spike.hard(v - threshold).detach()
    u = beta * ((1 - r) * v) + x if reset == "zero" else reset_by(beta * v + x, r, threshold, reset)
    s = spike(u - threshold)
    return s, u if reset_delay else reset_by(u, s - r, threshold, reset)


NEURON = Neuron(
    "leaky",
    update,
    states={"v": 0.0},
    parameters={"beta": None, "threshold": 1.0},
    options={"reset": RESETS, "reset_delay": (True, False)},
    clamped={"beta": (0.0, 1.0)},
)
