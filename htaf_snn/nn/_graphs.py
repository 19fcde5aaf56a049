"""A network's operations by `torch.fx`, read without leaving a trace in the network."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import fx, nn

from .binary import BinaryActivation, BinaryConv2d, BinaryLinear, HeavisideConv2d, HeavisideLinear, RPReLU
from .quantizing import QuantizeInput

__all__ = ["VIEWS", "changed_in_place", "has_hooks", "traced"]

_LEAVES = (BinaryActivation, BinaryConv2d, BinaryLinear, HeavisideConv2d, HeavisideLinear, QuantizeInput, RPReLU)
# In eval mode their output is a view of their input.
VIEWS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _LEAVES) or super().is_leaf_module(module, name)


def traced(model: nn.Module) -> fx.Graph:
    """The graph of a network, whose layers of torch and of this package are single nodes.

    Raises:
        Exception: of any kind, as tracing runs the model's own code.
    """
    with _unchanged(model):
        return _Tracer().trace(model)


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Within the block a forward pass may set attributes of modules; afterwards they are as before."""
    kept = [(module, dict(vars(module))) for module in model.modules()]
    inner = [(one, dict(one)) for _, before in kept for one in before.values() if isinstance(one, dict)]
    try:
        yield
    finally:
        for one, before in (*((vars(module), before) for module, before in kept), *inner):
            one.clear()
            one.update(before)


def has_hooks(module: nn.Module) -> bool:
    """Whether hooks of a module's own see or change its forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def changed_in_place(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Each operation in place that changes a value which is used again, and that use."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}  # the node whose memory a value lies in
    for node in graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        in_place = node.target is operator.iadd or (getattr(module, "inplace", False) and not isinstance(module, VIEWS))
        is_view = isinstance(module, (*VIEWS, nn.Flatten)) or node.target in (torch.flatten, "flatten")
        if not node.all_input_nodes or not (in_place or is_view):
            continue
        source = node.all_input_nodes[0]
        memory[node] = memory.get(source, source)
        if in_place:
            aliases = [one for one in places if memory.get(one, one) is memory[node] and places[one] < places[node]]
            users = [user for one in aliases for user in one.users if places[user] > places[node]]
            yield from ((node, user) for user in users[:1])
