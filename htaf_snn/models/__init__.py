"""Networks: spiking ones for the neurons of any library, binary and deep Heaviside ones, concept bottleneck models."""

from .binarizing import binarize
from .binary import BinaryCNN, BinaryMLP, BinaryResNet, DeepHeavisideNet, ReLUNet, ReLUResNet, summary
from .deep import PLIFNet, SEWResNet, Spikformer, SpikingVGG11
from .icbm import ICBM, ImageEncoder
from .neurons import neuron
from .spiking import SpikingCNN, SpikingMLP, SpikingNet

__all__ = [
    "ICBM",
    "BinaryCNN",
    "BinaryMLP",
    "BinaryResNet",
    "DeepHeavisideNet",
    "ImageEncoder",
    "PLIFNet",
    "ReLUNet",
    "ReLUResNet",
    "SEWResNet",
    "Spikformer",
    "SpikingCNN",
    "SpikingMLP",
    "SpikingNet",
    "SpikingVGG11",
    "binarize",
    "neuron",
    "summary",
]
