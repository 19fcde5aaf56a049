"""Leaky integrator that spikes but is never reset, so that it is linear in its input.

    tau = 1 / (1 - beta + 1e-12)        v[t] = exp(-1 / tau) v[t-1] + x[t]        s[t] = H(v[t] - threshold)

The factor per step is exp(beta - 1), not beta. tau is in time steps.

Reference:
    snnTorch's `StateLeaky`, which convolves the input with exp(-t / tau), and so rounds differently.
"""

import torch

from .base import Neuron


def prepare(beta, threshold):
    tau = 1 / (1 - beta + 1e-12)
    return {"decay": torch.exp(-1 / tau), "threshold": threshold}


def update(x, v, *, decay, threshold, spike):
    v = decay * v + x
    return spike(v - threshold), v


NEURON = Neuron("state_leaky", update, states={"v": 0.0}, parameters={"beta": None, "threshold": 1.0}, prepare=prepare)
