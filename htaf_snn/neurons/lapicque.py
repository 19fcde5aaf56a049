"""Lapicque's neuron: a resistor and a capacitor in parallel, charged by a current.

    u[t] = (1 - time_step / (R C)) v[t-1] + x[t] R time_step / (R C)
    r[t] = H(v[t-1] - threshold)        v[t] = u[t] - r[t] threshold        s[t] = H(v[t] - threshold)

No gradient flows through the delayed reset r. With reset "zero" v = u - r u, which loses the input after a spike.

Units: x in A, R in ohm, C in F, time_step in s, potentials in V; or all without a dimension.

Reference:
    Lapicque 1907, "Recherches quantitatives sur l'excitation électrique des nerfs traitée comme une polarisation",
    Journal de Physiologie et de Pathologie Générale 9:620; snnTorch's `Lapicque`, which may be given beta in place of
    C = time_step / (R log(1 / beta)). There `learn_beta=True` raises at the second backward pass at the latest.
"""

from .base import RESETS, Neuron
from .parts import fire


def update(x, v, *, R, C, time_step, threshold, spike, reset):
    u = (1 - time_step / (R * C)) * v + x * R * (1 / (R * C)) * time_step
    return fire(u, v, threshold, spike, reset, reset_delay=True)


NEURON = Neuron(
    "lapicque",
    update,
    states={"v": 0.0},
    parameters={"R": 1.0, "C": None, "time_step": 1.0, "threshold": 1.0},
    options={"reset": RESETS},
)
