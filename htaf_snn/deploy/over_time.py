"""Networks over sequences as graphs: neurons see time, all other layers see one row per time step and sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import fx, nn

from .. import nn as hnn
from ..models.spiking import Layered, SpikingNet
from ..nn._graphs import VIEWS, has_hooks
from . import steps

NEURONS = tuple(
    layer for layer in vars(hnn).values()
    if isinstance(layer, type) and issubclass(layer, hnn.NeuronLayer) and hasattr(layer, "definition")
    if not issubclass(layer, hnn.RecurrentLayer)
)  # fmt: skip
"""The layers of neurons whose update a packed network can compute."""
_CHAINS = (nn.Sequential.forward, hnn.Sequential.forward)


def graph_over_time(model: nn.Module, modules: dict[str, nn.Module]) -> fx.Graph | None:
    """Return the graph of a network over sequences, whose new modules are added to `modules`; None for other networks.

    Neurons, and what leads from rows back to time, take the frames too, for their numbers of time steps and samples.
    """
    if isinstance(model, Layered) and _has_own_forward(model):
        return None
    if isinstance(model, Layered):
        graph = _Graph(modules, model.frame_shape)
        for i, (layer, neurons) in enumerate(zip(model.layers, model.neurons, strict=True)):
            graph.add(f"layers.{i}", layer)
            graph.add_over_time(f"neurons.{i}", neurons)
        graph.add_over_time("mean", steps.MeanOverTime())
        graph.add("readout", model.readout)
        return graph.finished()
    if _is_chain(model) and any(isinstance(module, hnn.OverTime) for module in model.modules()):
        graph = _Graph(modules, None)
        graph.add("", model)
        graph.add_over_time("sequence", steps.FromRows())
        return graph.finished()
    return None


def layers_on(node: fx.Node, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield the names of the linear layers and convolutions that take a node's spikes, maybe pooled or flattened."""
    for user in node.users:
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, (nn.Linear, nn.Conv2d, hnn.BinaryLinear, hnn.BinaryConv2d)):
            yield str(user.target)
        elif isinstance(module, (*VIEWS, nn.Flatten, nn.MaxPool2d)):
            yield from layers_on(user, modules)


def layers_on_spikes(model: nn.Module) -> set[str]:
    """Return the names of the linear layers and convolutions whose inputs are spikes; none for other networks."""
    modules = dict(model.named_modules(remove_duplicate=False))
    graph = graph_over_time(model, modules)
    neurons = [] if graph is None else [node for node in graph.nodes if _spikes(modules.get(str(node.target)))]
    return {name for neuron in neurons for name in layers_on(neuron, modules)}


def _spikes(module: nn.Module | None) -> bool:
    return isinstance(module, NEURONS) and module.definition.spikes


def _has_own_forward(model: Layered) -> bool:
    own = type(model)
    return own.features is not Layered.features or own.forward is not SpikingNet.forward or "forward" in vars(model)


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward in _CHAINS and "forward" not in vars(module)


class _Graph:
    """A graph of modules that follow each other, from frames to the last one's result."""

    def __init__(self, modules: dict[str, nn.Module], frame_shape: tuple[int, ...] | None):
        self._graph, self._modules = fx.Graph(), modules
        self._frames = self._last = self._graph.placeholder("frames")
        self._last = self._call(self._named("rows", steps.ToRows(frame_shape)), self._frames)

    def add(self, name: str, module: nn.Module) -> None:
        """Add a module on rows; chains are taken apart, and the neurons in them are added over time."""
        prefix = f"{name}." if name else ""
        if _is_chain(module):
            if has_hooks(module):
                raise ValueError(f"{name or 'model'}: cannot be packed: hooks would be lost; remove them first")
            for own, layer in module._modules.items():
                assert layer is not None  # `nn.Sequential` would call it
                self.add(prefix + own, layer)
        elif isinstance(module, hnn.TimeDistributed):
            self.add(f"{prefix}layer", module.layer)
        elif isinstance(module, hnn.OverTime):
            self.add_over_time(name, module)
        else:
            self._last = self._call(name, self._last)

    def add_over_time(self, name: str, module: nn.Module) -> None:
        """Add a module that takes rows and the frames."""
        known = self._modules.get(name) is module
        self._last = self._call(name if known else self._named(name, module), self._last, self._frames)

    def finished(self) -> fx.Graph:
        self._graph.output(self._last)
        return self._graph

    def _call(self, name: str, *inputs: fx.Node) -> fx.Node:
        return self._graph.create_node("call_module", name, inputs)

    def _named(self, name: str, module: nn.Module) -> str:
        while name in self._modules:  # of the user's own
            name += "_"
        self._modules[name] = module.eval()
        return name
