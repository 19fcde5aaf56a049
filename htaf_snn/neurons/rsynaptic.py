"""Recurrent leaky integrate-and-fire neuron of second order: `synaptic`, whose input includes its own spikes.

    i[t] = alpha i[t-1] + x[t] + W s[t-1], and all else as in `synaptic`

Reference:
    snnTorch's `RSynaptic`. There `reset_delay=False` raises, or resets nothing where states are passed; here it is
    that of `synaptic`.
"""

from dataclasses import replace

from .synaptic import NEURON as SYNAPTIC

NEURON = replace(SYNAPTIC, name="rsynaptic")
