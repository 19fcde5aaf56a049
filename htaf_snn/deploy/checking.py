"""What of a network can be packed, before it is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import fx, nn

from .over_time import layers_on_spikes
from .packing import Packing, require_ready


class Layer(NamedTuple):
    """A module or function of a network.

    Attributes:
        name: of the module, or of the function in the graph of `torch.fx`.
        kind: the module's class, or the function.
        form: bits, float32, or refused.
        reason: why it is refused, and what is expected; or what would put a layer on spikes into bits.
    """

    name: str
    kind: str
    form: str
    reason: str = ""


@dataclass(frozen=True)
class Check:
    """What `check` says of a network; as text it is a table.

    Attributes:
        layers: in the order in which they compute.

    Example:
        >>> [layer.form for layer in check(nn.Sequential(nn.Linear(4, 2))).layers]
        ['float32']
    """

    layers: tuple[Layer, ...]

    @property
    def packs(self) -> bool:
        """Whether `pack` takes the network."""
        return not any(layer.form == "refused" for layer in self.layers)

    def __str__(self) -> str:
        widths = [max((len(str(layer[i])) for layer in self.layers), default=0) for i in range(3)]
        lines = [
            "  ".join(f"{part:<{width}}" for part, width in zip(layer[:3], widths, strict=True))
            for layer in self.layers
        ]
        return "\n".join(f"{line}  {layer.reason}".rstrip() for line, layer in zip(lines, self.layers, strict=True))


def check(model: nn.Module) -> Check:
    """Say of each layer whether `pack` would take it, and in which form; before or after the training.

    Args:
        model: a network in training or eval mode, on the CPU, in float32. It is not changed.

    Raises:
        TypeError: if the model is not a module.
        ValueError: if it is not float32 on the CPU, has a NaN, cannot be traced, has hooks, or changes in place what it
            uses again.

    Example:
        >>> from htaf_snn import nn as hnn
        >>> net = nn.Sequential(nn.Linear(8, 8), nn.Softshrink(), hnn.BinaryActivation(), hnn.BinaryLinear(8, 4))
        >>> print(check(net))
        0  Linear            float32
        1  Softshrink        refused  1: Softshrink cannot be packed; it is not a known module
        2  BinaryActivation  bits
        3  BinaryLinear      bits
        >>> check(net).packs
        False
    """
    if isinstance(model, nn.Module):
        model = copy.deepcopy(model).eval()
    require_ready(model)
    layers = []
    with torch.no_grad():
        packing = Packing(model)
        on_spikes = layers_on_spikes(model)
        for node in packing.graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    layers.append(Layer(node.name, "output", "refused", "model: expected one tensor as its output"))
                break
            reason = ""
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
            if form == "float32" and str(node.target) in on_spikes:
                reason = "in bits after deploy.round_weights"
            layers.append(Layer(node.name if module is None else str(node.target), kind, form, reason))
    return Check(tuple(layers))
