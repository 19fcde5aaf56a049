"""Layers: spiking neurons over whole sequences, and what joins them to ordinary layers."""

from .spiking import LIF, Leaky, LIFState, Sequential, TimeDistributed

__all__ = ["LIF", "LIFState", "Leaky", "Sequential", "TimeDistributed"]
