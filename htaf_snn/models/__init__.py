"""Networks: spiking ones for the neurons of any library, binary ones, deep Heaviside networks."""

from .binary import BinaryMLP, BinaryResNet, DeepHeavisideNet, ReLUNet, binarize, summary
from .spiking import SpikingCNN, SpikingMLP

__all__ = [
    "BinaryMLP",
    "BinaryResNet",
    "DeepHeavisideNet",
    "ReLUNet",
    "SpikingCNN",
    "SpikingMLP",
    "binarize",
    "summary",
]
