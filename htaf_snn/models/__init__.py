"""Networks: spiking ones for the neurons of any library, binary and deep Heaviside ones, concept bottleneck models."""

from .binarizing import binarize
from .binary import BinaryMLP, BinaryResNet, DeepHeavisideNet, ReLUNet, summary
from .icbm import ICBM, ImageEncoder
from .neurons import neuron
from .spiking import SpikingCNN, SpikingMLP

__all__ = [
    "ICBM",
    "BinaryMLP",
    "BinaryResNet",
    "DeepHeavisideNet",
    "ImageEncoder",
    "ReLUNet",
    "SpikingCNN",
    "SpikingMLP",
    "binarize",
    "neuron",
    "summary",
]
