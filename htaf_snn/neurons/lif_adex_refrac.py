"""Adaptive exponential integrate-and-fire neuron with a refractory period.

    `lif_adex`, with rho and what it does to s[t] and v[t] as in `lif_refrac`

The current and the adaptation keep evolving while the neuron is refractory.

Units: those of `lif_adex`; rho in time steps.

Reference:
    Norse's `lif_adex_refrac_feed_forward_step` and `lif_adex_refrac_step`.
"""

from dataclasses import replace

from . import lif_adex
from .lif_refrac import refractory


def update(x, v, i, a, rho, *, rho_reset, spike, **of_lif_adex):
    s, u, i, a = lif_adex.update(x, v, i, a, spike=spike, **of_lif_adex)
    s, v, rho = refractory(s, u, v, rho, rho_reset, spike)
    return s, v, i, a, rho


NEURON = replace(
    lif_adex.NEURON,
    name="lif_adex_refrac",
    update=update,
    states={**lif_adex.NEURON.states, "rho": 0.0},
    parameters={**lif_adex.NEURON.parameters, "rho_reset": 5.0},
)
