"""Neuron whose potential is an alpha function of each input: the difference of two exponentials.

    e[t] = alpha i_exc[t-1] + x[t]        j[t] = beta i_inh[t-1] - x[t]        r[t] = H(v[t-1] - threshold)
    u[t] = (log(alpha) / (log(beta) - log(alpha)) + 1) (e[t] + j[t])        alpha > beta
    i_exc, i_inh, v = (1 - r) e, (1 - r) j, (1 - r) u        s[t] = H(v[t] - threshold)

No gradient flows through the delayed reset r, which loses the input after a spike. As in snnTorch, reset "subtract"
lowers i_exc, not v, by the threshold, sets i_inh to 0, and adds the previous i_inh to v.

Reference:
    snnTorch's `Alpha`, where `learn_alpha=True` raises.
"""

from .base import Neuron


def prepare(alpha, beta, threshold):
    return {"alpha": alpha, "beta": beta, "threshold": threshold, "gain": alpha.log() / (beta.log() - alpha.log()) + 1}


def update(x, v, i_exc, i_inh, *, alpha, beta, threshold, gain, spike, reset):
    r = spike.hard(v - threshold).detach()
    e, j = alpha * i_exc + x, beta * i_inh - x
    u = gain * (e + j)
    if reset == "subtract":
        e, j, u = e - r * threshold, j - r * j, u + r * i_inh
    elif reset == "zero":
        e, j, u = e - r * e, j - r * j, u - r * u
    return spike(u - threshold), u, e, j


NEURON = Neuron(
    "alpha",
    update,
    states={"v": 0.0, "i_exc": 0.0, "i_inh": 0.0},
    parameters={"alpha": None, "beta": None, "threshold": 1.0},
    options={"reset": ("zero", "subtract", "none")},
    clamped={"alpha": (0.0, 1.0), "beta": (0.0, 1.0)},
    greater={"alpha": "beta"},
    prepare=prepare,
)
