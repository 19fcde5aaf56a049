"""Recurrent leaky integrate-and-fire neuron of first order.

    u[t] = beta v[t-1] + x[t] + W s[t-1]
    r[t] = H(v[t-1] - threshold)        v[t] = u[t] - r[t] threshold        s[t] = H(v[t] - threshold)

No gradient flows through the delayed reset r. With reset "zero" v = u - r u, which loses the input after a spike, where
`leaky` keeps it. Without `reset_delay` a spike resets in its own time step, and its gradient flows through that reset.

Reference:
    Eshraghian et al. 2023, "Training spiking neural networks using lessons from deep learning", Proceedings of the
    IEEE 111:1016; snnTorch's `RLeaky`.
"""

from dataclasses import replace

from .leaky import NEURON as LEAKY
from .parts import fire


def update(x, v, *, beta, threshold, spike, reset, reset_delay):
    return fire(beta * v + x, v, threshold, spike, reset, reset_delay)


NEURON = replace(LEAKY, name="rleaky", update=update)
