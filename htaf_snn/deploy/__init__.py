"""Trained binary, Heaviside and spiking networks with packed bits, and as C, ONNX and QONNX files.

Example:
    >>> import torch
    >>> from htaf_snn import models
    >>> net = models.BinaryMLP(64, [32, 32], 10).eval()
    >>> packed, x = pack(net), torch.rand(5, 1, 8, 8)
    >>> torch.equal(packed(x).argmax(1), net(x).argmax(1))
    True
"""

from . import steps
from .c_source import export_c
from .checking import Check, check
from .export import export_onnx
from .network import PackedNetwork, load, save
from .packing import pack
from .qonnx import export_qonnx
from .rounding import round_weights

__all__ = [
    "Check",
    "PackedNetwork",
    "check",
    "export_c",
    "export_onnx",
    "export_qonnx",
    "load",
    "pack",
    "round_weights",
    "save",
    "steps",
]
