"""Spiking neurons, one file each: the equations, and the update of one time step.

`NEURONS` holds every neuron by name; `reference.run` steps one through time in plain torch.
"""

from importlib import import_module

from .base import Neuron

_FILES = """
    alpha coba_lif iaf izhikevich lapicque leaky li li_box lif lif_adex lif_adex_refrac lif_box lif_ex lif_refrac lsnn
    parametric_lif rleaky rsynaptic state_leaky synaptic
""".split()

NEURONS: dict[str, Neuron] = {name: import_module(f".{name}", __name__).NEURON for name in _FILES}
"""The neurons by name; `htaf_snn.nn.neuron` adds a user's own."""

__all__ = ["NEURONS", "Neuron"]
