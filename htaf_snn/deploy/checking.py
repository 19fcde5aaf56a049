"""What of a network can be packed, before it is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import fx, nn

from .. import nn as hnn
from .._checks import check_choice
from ..nn.binary import LEVELS
from .over_time import layers_on_spikes
from .packing import MONOTONE, Packing, require_ready
from .qonnx import require_onnx
from .reasons import NORMS
from .targets import TARGETS, why_not_written

WEIGHTED = (
    nn.Linear, nn.Conv2d, hnn.BinaryLinear, hnn.BinaryConv2d, hnn.EventLinear,
    nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear, nn.RNNBase,
    nn.MultiheadAttention,
)  # fmt: skip
"""Layers that multiply by weights, packed or refused."""


class Layer(NamedTuple):
    """A module or function of a network.

    Attributes:
        name: of the module, or of the function in the graph of `torch.fx`.
        kind: the module's class, or the function.
        form: bits, float32, or refused.
        reason: why it is refused or not written, and what is expected; or what would put it into bits.
        is_written: whether the export that was asked for writes it.
    """

    name: str
    kind: str
    form: str
    reason: str = ""
    is_written: bool = True


@dataclass(frozen=True)
class Check:
    """What `check` says of a network; as text it is a table.

    Attributes:
        layers: in the order in which they compute.
        target: the export that was asked for: "c", "onnx", "qonnx" or None.
        on_bits: the number of layers with weights that compute on bits.
        weighted: the number of all layers with weights.

    Example:
        >>> [layer.form for layer in check(nn.Sequential(nn.Linear(4, 2))).layers]
        ['float32']
    """

    layers: tuple[Layer, ...]
    target: str | None = None
    on_bits: int = 0
    weighted: int = 0

    @property
    def packs(self) -> bool:
        """Whether `pack` takes the network; not whether anything is on bits, which `on_bits` says."""
        return not any(layer.form == "refused" for layer in self.layers)

    @property
    def exports(self) -> bool:
        """Whether the network packs, and its layers are written by the export that was asked for."""
        return self.packs and all(layer.is_written for layer in self.layers)

    def __str__(self) -> str:
        widths = [max((len(str(layer[i])) for layer in self.layers), default=0) for i in range(3)]
        lines = [
            "  ".join(f"{part:<{width}}" for part, width in zip(layer[:3], widths, strict=True))
            for layer in self.layers
        ]
        lines = [f"{line}  {layer.reason}".rstrip() for line, layer in zip(lines, self.layers, strict=True)]
        summary = f"{self.on_bits} of {self.weighted} weight layers on bits"
        if not self.packs:
            summary += "; pack refuses the network"
        if self.packs and self.weighted and not self.on_bits:
            summary += ": packing makes the network neither smaller nor faster"
        if self.target is not None:
            missing = sum(not layer.is_written for layer in self.layers)
            rows = f"{missing} of {len(self.layers)} rows cannot be" if missing else f"all {len(self.layers)} rows are"
            summary += f"; {rows} written in {self.target.upper()}"
        return "\n".join([*lines, summary])


def check(model: nn.Module, target: str | None = None) -> Check:
    """Say of each layer whether `pack` would take it, and in which form; before or after the training.

    Args:
        model: a network in training or eval mode, on the CPU, in float32. It is not changed.
        target: also say what this export would not write: "c", "onnx" or "qonnx", of the packed network. The shape of
            images is not known here, so that an export may still refuse a layer for the shape that it gets.

    Raises:
        TypeError: if the model is not a module.
        ValueError: if the target is unknown; or the model is not float32 on the CPU, has a NaN, cannot be traced or has
            hooks.
        ImportError: if onnx, which the target "qonnx" needs, is not installed.

    Example:
        >>> from htaf_snn import nn as hnn
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.Softshrink(), hnn.BinaryActivation(), hnn.BinaryLinear(8, 4))
        >>> print(check(net))
        0  Linear            float32
        1  Softshrink        refused  1: Softshrink cannot be packed; it is not a known module
        2  BinaryActivation  bits
        3  BinaryLinear      bits
        1 of 2 weight layers on bits; pack refuses the network
        >>> check(net).packs
        False
    """
    if isinstance(model, nn.Module):
        model = copy.deepcopy(model).eval()
    require_ready(model)
    if target is not None:
        check_choice("target", target, TARGETS)
    if target == "qonnx":
        require_onnx()
    layers, on_bits, weighted = [], 0, 0
    with torch.no_grad():
        packing = Packing(model)
        on_spikes = layers_on_spikes(model)
        for node in packing.graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    reason = "model: expected one tensor as its output"
                    layers.append(Layer(node.name, "output", "refused", reason, target is None))
                break
            reason, before = "", len(packing.steps)
            try:
                packing.add(node)
            except ValueError as error:
                reason = str(error)
                packing.add_nothing(node)
            if node.op == "placeholder" and not reason:
                continue
            module = packing.modules.get(str(node.target))
            kind = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
            form = "refused" if reason else "bits" if packing.is_in_bits(node) else "float32"
            if isinstance(module, WEIGHTED):
                weighted, on_bits = weighted + 1, on_bits + (form == "bits")
            if form == "float32":
                is_on_spikes = str(node.target) in on_spikes
                reason = "would be on bits after deploy.round_weights" if is_on_spikes else _hint(packing, node)
            is_written = target is None or form != "refused"
            if target is not None and len(packing.steps) > before:
                missing = why_not_written(packing.steps, target)
                is_written, reason = missing is None, reason if missing is None else missing
            name = node.name if module is None else str(node.target)
            layers.append(Layer(name, kind, form, reason, is_written))
    return Check(tuple(layers), target, on_bits, weighted)


def _hint(packing: Packing, node: fx.Node) -> str:
    """Return what would put a layer in floating point into bits, or an empty text."""
    module, user = packing.modules.get(str(node.target)), node
    if type(module) in (nn.Linear, nn.Conv2d) and packing.levels_of(node.all_input_nodes[0]) in LEVELS:
        return f"would be on bits as htaf_snn.nn.Heaviside{type(module).__name__}"
    if isinstance(module, nn.MaxPool2d):
        while len(user.users) == 1 and isinstance(_module_behind(packing, user), (*NORMS, *MONOTONE)):
            user = next(iter(user.users))
        if len(user.users) == 1 and isinstance(_module_behind(packing, user), hnn.BinaryActivation):
            return "move it behind the activation: bits instead of float32"
    return ""


def _module_behind(packing: Packing, node: fx.Node) -> nn.Module | None:
    return packing.modules.get(str(next(iter(node.users)).target))
