"""Layers: spiking neurons over whole sequences, binary layers, concepts, and what joins them to ordinary layers."""

from .binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    HeavisideConv2d,
    HeavisideLinear,
    HTAFActivation,
    RPReLU,
    smooth_activations,
)
from .concept import ConceptLayer, RelaxedBernoulli
from .hardening import AnnealAlpha, clip_weights, hardening_gap, recalibrate
from .quantizing import QuantizeInput
from .sequential import Sequential, TimeDistributed
from .spiking import LIF, Leaky, LIFState

__all__ = [
    "LIF",
    "AnnealAlpha",
    "BinaryActivation",
    "BinaryConv2d",
    "BinaryLinear",
    "ConceptLayer",
    "HTAFActivation",
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
    "hardening_gap",
    "recalibrate",
    "smooth_activations",
]
