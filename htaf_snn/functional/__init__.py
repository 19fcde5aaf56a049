"""Stateless functions: they check their arguments, then compute with the fastest backend."""

from .bits import (
    BinaryWeight,
    binary_conv2d,
    binary_linear,
    heaviside_linear,
    level_linear,
    pack_bits,
    pack_weight,
    unpack_bits,
)
from .sequences import leaky, lif
from .steps import htaf, htaf_derivative, smooth, spike

__all__ = [
    "BinaryWeight",
    "binary_conv2d",
    "binary_linear",
    "heaviside_linear",
    "htaf",
    "htaf_derivative",
    "leaky",
    "level_linear",
    "lif",
    "pack_bits",
    "pack_weight",
    "smooth",
    "spike",
    "unpack_bits",
]
