"""Layers: spiking neurons over whole sequences, binary layers, concepts, and what joins them to ordinary layers."""

from .binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    HeavisideConv2d,
    HeavisideLinear,
    RPReLU,
    clip_weights,
)
from .concept import ConceptLayer, RelaxedBernoulli
from .quantizing import QuantizeInput
from .sequential import Sequential, TimeDistributed
from .spiking import LIF, Leaky, LIFState

__all__ = [
    "LIF",
    "BinaryActivation",
    "BinaryConv2d",
    "BinaryLinear",
    "ConceptLayer",
    "HeavisideConv2d",
    "HeavisideLinear",
    "LIFState",
    "Leaky",
    "QuantizeInput",
    "RPReLU",
    "RelaxedBernoulli",
    "Sequential",
    "TimeDistributed",
    "clip_weights",
]
