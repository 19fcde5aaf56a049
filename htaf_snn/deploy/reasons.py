"""Why a layer or function cannot be packed, and what to write instead."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import nn as hnn
from ..models.spiking import SpikingNet
from ..nn._graphs import VIEWS, has_hooks, traced
from ..surrogate import Surrogate
from ..surrogate.libraries import LIBRARIES
from . import modules, steps
from .network import PackedNetwork
from .over_time import NEURONS

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_LAYERS = (
    hnn.BinaryLinear, hnn.BinaryConv2d, hnn.HeavisideLinear, hnn.HeavisideConv2d, hnn.BinaryActivation, *VIEWS,
    nn.Flatten, steps.Flatten, steps.Mean, hnn.QuantizeInput, steps.ToRows, steps.FromRows, steps.MeanOverTime,
    *NEURONS, *modules.MODULES,
)  # fmt: skip
_OF_OTHER_STATISTICS = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.RMSNorm)
_FACTORS = dict.fromkeys(
    ("mul", "imul", "mul_", "div", "div_", "truediv", "itruediv"), 'scale="learned" of a binary layer, or BatchNorm'
)
_SHIFTS = dict.fromkeys(("add", "iadd", "add_", "sub", "isub", "sub_", "rsub"), "a bias of the layer, or BatchNorm")
_INSTEAD = dict.fromkeys(("sign", "sign_", "sgn", "heaviside", "gt", "ge", "where"), "htaf_snn.nn.BinaryActivation")
_INSTEAD |= dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "rms_norm"), "BatchNorm, or no normalisation,")
_INSTEAD |= {"pad": "padding= of the convolution or pool", "clamp": "nn.Hardtanh", "clip": "nn.Hardtanh"}
_OF_IMAGES = "nn.BatchNorm2d(C, affine=False), or the range of the images as htaf_snn.nn.QuantizeInput(low, high),"
_PASSES_VALUES_ON = (*VIEWS, nn.Flatten, steps.Flatten, nn.MaxPool2d)
_MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_REMEDIES = {
    "to control flow": "; move the branch out of forward",
    "interpreted as an integer": "; write the network without the loop, as htaf_snn.nn.Sequential",
}
"""What to write instead, by what `torch.fx` says of a forward that it cannot trace."""
_OWN_FOLDERS = (f"{Path(str(torch.__file__)).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}")
_aten = torch.ops.aten
_PASSED_ON = (_aten.lift_fresh_copy, _aten.lift_fresh, _aten._to_copy, _aten.detach, _aten.clone, _aten.alias)


def check_layer(name: str, module: nn.Module) -> None:
    """Raise ValueError if a layer computes something that its packed form would not."""
    kind = type_before_parametrizations(module)
    if kind not in _LAYERS:
        if (reason := _of_another_kind(name, module)) is not None:
            raise ValueError(reason)
        expected = "it is not a known module"
        if isinstance(module, _OF_OTHER_STATISTICS):
            expected = "use BatchNorm, or leave normalisation out"
        elif isinstance(module, hnn.OverTime):
            expected = "expected a neuron of htaf_snn.nn that is not recurrent; see interop.from_snntorch, from_norse"
        raise ValueError(f"{name}: {kind.__name__} cannot be packed; {expected}")
    reason = None
    if has_hooks(module):
        reason = "its hooks would be lost; remove them first"
    elif "forward" in vars(module):
        reason = "its forward was replaced"
    elif isinstance(module, hnn.BinaryActivation) and module.smooth_in_eval:
        reason = "expected an activation of two levels, got a smooth one within hardening.smooth"
    elif isinstance(module, NEURONS):
        reason = _why_not_spikes(module)
    elif kind in NORMS and module.running_mean is None:
        reason = f"{kind.__name__} without running statistics depends on the other samples of a batch"
        reason += "; write track_running_stats=True"
    elif kind is nn.MaxPool2d and module.return_indices:
        reason = "MaxPool2d returns indices too"
    elif kind is nn.Flatten and (module.start_dim, module.end_dim) != (1, -1):
        raise ValueError(f"{name}: expected Flatten(1), got {module}")
    if reason is not None:
        raise ValueError(f"{name}: cannot be packed: {reason}")


def _why_not_spikes(neuron: hnn.NeuronLayer) -> str | None:
    """Return why a neuron's output is not that of its update with spikes of 0 and 1; None if it is."""
    if not neuron.definition.spikes:
        return None
    factor = getattr(neuron, "graded_spikes_factor", 1.0)
    if not bool(torch.as_tensor(factor == 1).all()):
        return f"expected graded_spikes_factor=1, got {factor}; multiply the next layer's weights by it"
    if neuron.surrogate.formula is None and not is_strict_step(neuron.surrogate):
        remedy = "set its surrogate to one of htaf_snn, whose spikes are 1 above the threshold alone"
        return f"expected a surrogate whose spikes are known, got {neuron.surrogate!r}; {remedy}"
    if not neuron.surrogate.is_hard():
        return f"expected a surrogate of hardness 1, got {neuron.surrogate!r}"
    return None


def is_strict_step(surrogate: nn.Module) -> bool:
    """Return whether a surrogate's operations are proved to be x > 0, as a number, and nothing else."""
    try:
        traced = make_fx(surrogate)(torch.zeros(3))
        traced.graph.eliminate_dead_code()
        *nodes, output = traced.graph.nodes
        (result,) = output.all_input_nodes
    except Exception:  # it runs code of another origin
        return False
    result = _stripped(result)
    if getattr(result.target, "overloadpacket", None) is not _aten.gt:
        return False
    x, zero = result.args
    if isinstance(zero, fx.Node):
        constant = _stripped(zero)
        zero = getattr(traced, str(constant.target)) if constant.op == "get_attr" else None
    is_zero = zero is not None and bool((torch.as_tensor(zero) == 0).all())
    return is_zero and isinstance(x, fx.Node) and _stripped(x) is nodes[0] and nodes[0].op == "placeholder"


def _stripped(node: fx.Node) -> fx.Node:
    """Return the node whose numbers an operation passes on, perhaps in another type."""
    while getattr(node.target, "overloadpacket", None) in _PASSED_ON:
        node = node.all_input_nodes[0]
    return node


def graph_of(model: nn.Module, known: Mapping[str, nn.Module]) -> fx.Graph:
    """Return the graph of a network that has no time.

    Raises:
        ValueError: if it is over time; or cannot be traced: the module is named in whose forward the tracing failed.
    """
    if isinstance(model, SpikingNet):
        expected = "SpikingMLP or SpikingCNN as they are, or htaf_snn.nn.Sequential of layers and neurons"
        raise ValueError(f"model: {type(model).__name__} cannot be packed; expected {expected}")
    within: list[str] = []
    try:
        return traced(model, within)
    except Exception as error:  # tracing runs the model's own code
        for name in within:
            if (reason := _of_another_kind(name, known[name])) is not None:
                raise ValueError(reason) from error
        title = f"{within[-1]}: expected a module" if within else "model: expected a network"
        remedy = next((remedy for part, remedy in _REMEDIES.items() if part in str(error)), "")
        raise ValueError(f"{title} that torch.fx can trace: {error}{_place(error)}{remedy}") from error


def _place(error: Exception) -> str:
    """Return the last line of a model's own code that an error passed; an empty text if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*_OWN_FOLDERS, "<")):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def check_model(model: nn.Module) -> None:
    """Raise ValueError if a model is itself no network that can be packed."""
    if (reason := _of_another_kind("model", model)) is not None:
        raise ValueError(reason)
    if isinstance(model, NEURONS):
        raise ValueError("model: expected a network, got neurons alone; write htaf_snn.nn.Sequential(neurons)")


def _of_another_kind(name: str, module: nn.Module) -> str | None:
    """Return why a module cannot be packed that is not made to be a layer; None for any other."""
    kind = type(module)
    library = kind.__module__.partition(".")[0]
    if isinstance(module, PackedNetwork):
        return f"{name}: already packed"
    if isinstance(module, Surrogate):
        expected = f"htaf_snn.nn.BinaryActivation({kind.__name__}(…))"
        return f"{name}: {kind.__name__} is a surrogate, not a layer; write {expected}"
    if library in LIBRARIES:
        remedy = "replace it by a neuron of htaf_snn.nn; see interop.fuse, interop.from_snntorch and from_norse"
        return f"{name}: {library}.{kind.__name__} cannot be packed; {remedy}"
    return None


def unknown_function(node: fx.Node) -> str:
    """Return why a function cannot be packed, with what to write instead of a common one."""
    function = getattr(node.target, "__name__", str(node.target))
    expected = "modules, functions that a module computes, additions, concatenations along 1, means and views"
    instead = _INSTEAD | _FACTORS | (_SHIFTS if _has_one_value(node) else {})
    if function in instead:
        expected = f"{_OF_IMAGES if _is_of_input(node) else instead[function]} in its place"
    return f"{node.name}: {function} cannot be packed; expected {expected}"


def _has_one_value(node: fx.Node) -> bool:
    """Whether a function takes numbers beside one value of the network, which is not there twice."""
    return sum(isinstance(own, fx.Node) for own in (*node.args, *node.kwargs.values())) == 1


def _is_of_input(node: fx.Node) -> bool:
    """Whether a node scales or shifts the network's input."""
    while getattr(node.target, "__name__", str(node.target)) in _FACTORS | _SHIFTS and _has_one_value(node):
        (node,) = node.all_input_nodes
    return node.op == "placeholder"


def not_of_two_levels(name: str, layer: nn.Module, source: fx.Node, known: Mapping[str, nn.Module]) -> str:
    """Return why a layer on bits cannot take what a node gives."""
    modules_by_node = {node: known[str(node.target)] for node in source.graph.nodes if node.op == "call_module"}
    path = [source]  # back to what computed the values
    while isinstance(modules_by_node.get(path[-1]), (*_PASSES_VALUES_ON, *_MEANS)):
        path.append(path[-1].all_input_nodes[0])
    pools = [node for node in path if isinstance(modules_by_node.get(node), (nn.MaxPool2d, *_MEANS))]
    remedy = ""
    if not isinstance(modules_by_node.get(path[-1]), hnn.QuantizeInput):
        source = next(node for node in path if not isinstance(modules_by_node.get(node), _PASSES_VALUES_ON))
        if source in pools:
            remedy = "; means of bits have more levels: write nn.MaxPool2d, or put an activation behind the pool"
    elif pools and isinstance(layer, (hnn.BinaryLinear, hnn.BinaryConv2d)):
        source, remedy = pools[0], "; put the pool before QuantizeInput, or behind the layer"
    else:
        source = path[-1]
    got = "the network's input" if source.op == "placeholder" else f"the output of {source.name}"
    if (module := modules_by_node.get(source)) is not None:
        got = f"the output of {source.target}, {type(module).__name__}"
    return (
        f"{name}: {type(layer).__name__} cannot be packed: its input is not of two levels; expected a "
        f"BinaryActivation before it, or QuantizeInput before a binary layer, got {got}{remedy}"
    )
