"""What the conversions of all libraries share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .._checks import full_name
from ..functional.sequences import State
from ..nn import NeuronLayer, RecurrentLayer


def hold(module: nn.Module, name: str, value: Tensor) -> None:
    """Let a module hold this very tensor, a parameter or a buffer, in place of what it holds by that name."""
    delattr(module, name)
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def check_layer(layer: object, layers: Mapping[str, type[NeuronLayer]]) -> str:
    """Return the name of a layer's class; raise TypeError unless it is one of these."""
    name = type(layer).__name__
    if layers.get(name) is not type(layer):
        raise TypeError(f"layer: expected one of htaf_snn.nn's {', '.join(layers)}, got {full_name(layer)}")
    return name


def state_names(layer: NeuronLayer) -> list[str]:
    """Return the names of a layer's states, in order, the fed-back spikes `z` of a recurrent layer first."""
    return [*(["z"] if isinstance(layer, RecurrentLayer) else []), *layer.definition.states]


def states(state: State, layer: NeuronLayer) -> Sequence[Tensor]:
    """Return the tensors of a layer's state; raise ValueError unless there is one for each of its states."""
    names = state_names(layer)
    tensors = (state,) if isinstance(state, Tensor) else tuple(state)
    if len(tensors) != len(names):
        raise ValueError(f"state: expected ({', '.join(names)}), got {len(tensors)} tensors")
    return tensors
