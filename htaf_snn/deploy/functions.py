"""Functions and methods that forward methods call, as the modules and steps that compute the same."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.operator_schemas import normalize_function
from torch.nn import functional

from . import steps

_MODULES: dict[Callable | str, type[nn.Module]] = {
    functional.relu: nn.ReLU,
    functional.relu_: nn.ReLU,
    torch.relu: nn.ReLU,
    torch.relu_: nn.ReLU,
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    functional.relu6: nn.ReLU6,
    functional.leaky_relu: nn.LeakyReLU,
    functional.hardtanh: nn.Hardtanh,
    functional.gelu: nn.GELU,
    functional.silu: nn.SiLU,
    functional.hardswish: nn.Hardswish,
    functional.elu: nn.ELU,
    functional.sigmoid: nn.Sigmoid,
    torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    functional.tanh: nn.Tanh,
    torch.tanh: nn.Tanh,
    "tanh": nn.Tanh,
    functional.softmax: nn.Softmax,
    torch.softmax: nn.Softmax,
    "softmax": nn.Softmax,
    functional.log_softmax: nn.LogSoftmax,
    torch.log_softmax: nn.LogSoftmax,
    "log_softmax": nn.LogSoftmax,
    functional.dropout: nn.Dropout,
    functional.dropout2d: nn.Dropout2d,
    functional.max_pool2d: nn.MaxPool2d,
    functional.avg_pool2d: nn.AvgPool2d,
    functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    torch.flatten: nn.Flatten,
    "flatten": nn.Flatten,
}
_VIEWS = ("view", "reshape", torch.reshape)
_MEANS = ("mean", torch.mean)
_SIZES = ("size", getattr, operator.getitem)


def as_modules(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, str]:
    """Replace the calls of functions in a graph by modules of their own, which are added to `modules`.

    Returns:
        Why a function has no module, by nodes.
    """
    reasons = {}
    for node in list(graph.nodes):
        try:
            module = _module(node) if node.op in ("call_function", "call_method") else None
        except ValueError as error:
            reasons[node] = str(error)
            continue
        if module is not None:
            source = node.all_input_nodes[0]
            name = node.name
            while name in modules:  # of the user's own
                name += "_"
            modules[name] = module.eval()
            node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}
    for node in reversed(list(graph.nodes)):
        if node.target in _SIZES and not node.users:  # of a view that is a module now
            graph.erase_node(node)
    return reasons


def _module(node: fx.Node) -> nn.Module | None:
    """Return the module that computes what a node does; None if there is none."""
    if node.target in _VIEWS:
        return _view(node)
    if node.target in _MEANS:
        values = bound(node, lambda input, dim=None, keepdim=False: None)
        dims = values["dim"] if isinstance(values["dim"], (tuple, list)) else [values["dim"]]
        if {*dims} & {None, 0}:
            got = "all" if None in dims else f"dimensions {dims}"
            raise ValueError(f"{node.name}: cannot be packed: expected a mean over dimensions of a sample, got {got}")
        return steps.Mean(values["dim"], values["keepdim"])
    if node.target not in _MODULES or len(node.all_input_nodes) != 1:
        return None
    cls = _MODULES[node.target]
    values = _arguments(node, cls)
    known = inspect.signature(cls).parameters
    lost = {name for name, value in values.items() if name not in known and value not in (None, False)}
    if lost - {"_stacklevel"}:
        raise ValueError(f"{node.name}: cannot be packed: {', '.join(sorted(lost))} has no effect in a packed network")
    return cls(**{name: value for name, value in values.items() if name in known})


def _arguments(node: fx.Node, cls: type[nn.Module]) -> dict[str, Any]:
    """Return the arguments of a call by their names, without the tensor."""
    target: Any = node.target
    if node.op == "call_function" and str(getattr(target, "__module__", "")).startswith("torch.nn"):
        normalized = normalize_function(target, node.args, node.kwargs, normalize_to_only_use_kwargs=True)
        values = dict(normalized.kwargs) if normalized else {}
        values.pop("input", None)
        if values.get("stride") == []:  # as wide as the window
            values["stride"] = None
    else:  # their arguments have the order of the modules'
        names = [*inspect.signature(cls).parameters]
        if len(node.args) > len(names) + 1:
            raise ValueError(
                f"{node.name}: cannot be packed: expected arguments of {cls.__name__}, got {node.args[1:]}"
            )
        values = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        values.pop("input", None)
        if cls is nn.Flatten:
            values = {"start_dim": 0} | values
    if str(getattr(target, "__name__", target)).endswith("_"):
        values["inplace"] = True
    return values


def bound(node: fx.Node, signature: Callable) -> dict[str, Any]:
    """Return the arguments of a call by their names in a signature."""
    try:
        bound = inspect.signature(signature).bind(*node.args, **node.kwargs)
    except TypeError as error:
        raise ValueError(f"{node.name}: cannot be packed: {error}") from None
    bound.apply_defaults()
    return bound.arguments


def _view(node: fx.Node) -> nn.Module:
    """Return the module of a view (B, features) of all of a sample's values."""
    given: Any = node.kwargs.get("shape", node.args[1:])
    shape: Any = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    is_batch = [isinstance(length, fx.Node) and _is_batch(length) for length in shape]
    if len(shape) == 2 and is_batch[0] and shape[1] == -1:
        return nn.Flatten()
    if len(shape) == 2 and (is_batch[0] or shape[0] == -1) and isinstance(shape[1], int) and shape[1] > 0:
        return steps.Flatten(shape[1])
    expected = "a view as (x.shape[0], -1) or (-1, features)"
    raise ValueError(f"{node.name}: cannot be packed: expected {expected}, got {tuple(shape)}")


def _is_batch(node: fx.Node) -> bool:
    """Whether a node is the length of a value's first dimension."""
    if node.target == "size":
        return node.args[1:] == (0,) or dict(node.kwargs) == {"dim": 0}
    source: Any = None
    index: Any = None
    if node.target is operator.getitem:
        source, index = node.args
    is_shape = isinstance(source, fx.Node) and (
        (source.target is getattr and source.args[1] == "shape") or (source.target == "size" and len(source.args) == 1)
    )
    return is_shape and bool(index == 0)
