"""Networks built from stateless layers and neurons that take a whole sequence."""

from .spiking import SpikingCNN, SpikingMLP

__all__ = ["SpikingCNN", "SpikingMLP"]
