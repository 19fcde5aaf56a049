"""Spiking neurons, one file each: the equations, and the update of one time step.

`NEURONS` holds every neuron by name; `reference.run` steps one through time in plain torch.
"""

from . import (
    alpha,
    coba_lif,
    iaf,
    izhikevich,
    lapicque,
    leaky,
    li,
    li_box,
    lif,
    lif_adex,
    lif_adex_refrac,
    lif_box,
    lif_ex,
    lif_refrac,
    lsnn,
    parametric_lif,
    rleaky,
    rsynaptic,
    state_leaky,
    synaptic,
)
from .base import Neuron

NEURONS: dict[str, Neuron] = {
    module.NEURON.name: module.NEURON
    for module in (
        alpha,
        coba_lif,
        iaf,
        izhikevich,
        lapicque,
        leaky,
        li,
        li_box,
        lif,
        lif_adex,
        lif_adex_refrac,
        lif_box,
        lif_ex,
        lif_refrac,
        lsnn,
        parametric_lif,
        rleaky,
        rsynaptic,
        state_leaky,
        synaptic,
    )
}

__all__ = ["NEURONS", "Neuron"]
