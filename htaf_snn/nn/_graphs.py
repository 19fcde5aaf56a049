"""A network's operations as a graph of `torch.fx`, read without changing the network."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from .binary import BinaryActivation, BinaryConv2d, BinaryLinear, HeavisideConv2d, HeavisideLinear, RPReLU
from .events import EventLinear
from .quantizing import QuantizeInput

_LEAVES = (
    BinaryActivation, BinaryConv2d, BinaryLinear, EventLinear, HeavisideConv2d, HeavisideLinear, QuantizeInput, RPReLU,
)  # fmt: skip
# Modules whose output in eval mode is a view of their input.
VIEWS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class _Tracer(fx.Tracer):
    def __init__(self, within: list[str]):
        super().__init__()
        self._within = within

    def call_module(self, m: nn.Module, *arguments: Any) -> Any:
        self._within.append(self.path_of_module(m))
        result = super().call_module(m, *arguments)
        self._within.pop()
        return result

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _LEAVES) or super().is_leaf_module(module, name)


def traced(model: nn.Module, within: list[str] | None = None) -> fx.Graph:
    """Return the graph of a network, in which each layer of torch and of this package is one node.

    Args:
        model: the network.
        within: receives the names of the modules in whose forward the tracing fails, the innermost last.

    Raises:
        Exception: of any kind, as tracing runs the model's own code.
    """
    with _unchanged(model):
        return _Tracer([] if within is None else within).trace(model)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Restore all attributes of the modules after the block, in which a forward pass may set them."""
    attributes = [vars(module) for module in model.modules()]
    inner = [value for values in attributes for value in values.values() if isinstance(value, dict)]
    before = [(values, dict(values)) for values in (*attributes, *inner)]
    try:
        yield
    finally:
        for values, saved in before:
            values.clear()
            values.update(saved)


def has_hooks(module: nn.Module) -> bool:
    """Return whether hooks of the module itself observe or change its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def changed_in_place(
    graph: fx.Graph, modules: Mapping[str, nn.Module], views: tuple[type[nn.Module], ...] = (*VIEWS, nn.Flatten)
) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield each in-place operation that changes a value used again later, with that later use.

    The results of `views` share the memory of their inputs.
    """
    places = {node: place for place, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}  # from a node to the one whose memory it shares
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        in_place = node.target in (operator.iadd, "add_") or (
            getattr(module, "inplace", False) and not isinstance(module, VIEWS)
        )
        is_view = isinstance(module, views) or node.target in (torch.flatten, "flatten")
        if not node.all_input_nodes or not (in_place or is_view):
            continue
        source = node.all_input_nodes[0]
        memory[node] = memory.get(source, source)
        if in_place:
            earlier = [other for other in places if places[other] < places[node]]
            aliases = [other for other in earlier if memory.get(other, other) is memory[node]]
            users = [user for alias in aliases for user in alias.users if places[user] > places[node]]
            yield from ((node, user) for user in users[:1])
