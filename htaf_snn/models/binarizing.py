"""Conversion of any network to a binary one, whose layers are replaced in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import nn as hnn
from ..nn._graphs import changed_in_place, traced
from ..surrogate import Surrogate, SurrogateLike
from .binary import copies

_REPLACED = (nn.Linear, nn.Conv2d, nn.ReLU)
# Attributes of those layers that the binary ones do not use.
_OWN = {"inplace", "padding_mode", "transposed", "output_padding", "_reversed_padding_repeated_twice"}
# Modules of torch.nn.modules.activation that are no activations between layers.
_OTHERS = (nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.MultiheadAttention)
# All of torch.nn.functional but softmax and its kind; those that change their input have one more "_".
_ACTIVATIONS = (
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
    "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "threshold",
)  # fmt: skip
_NAMES = (*_ACTIVATIONS, *(f"{name}_" for name in _ACTIVATIONS))
_FUNCTIONS = {functional.linear: "linear", functional.conv2d: "conv2d"} | {
    getattr(owner, name): name for owner in (functional, torch) for name in _NAMES if hasattr(owner, name)
}
_METHODS = tuple(name for name in _NAMES if hasattr(torch.Tensor, name))


def binarize(model: nn.Module, skip: Collection[str] = (), *, surrogate: SurrogateLike = "htaf") -> nn.Module:
    """Replace Linear by BinaryLinear, Conv2d by BinaryConv2d and ReLU by an activation of -1 and +1, in place.

    The new layers take over the parameters of those that they replace, as latent weights and biases, and their hooks
    and modes; a module that is used in several places stays one module. Layers that receive the input or return the
    scores are usually skipped.

    Args:
        model: any network.
        skip: names of modules, as in `named_modules`, that stay as they are, with everything inside them.
        surrogate: as in `BinaryMLP`.

    Returns:
        The model.

    Raises:
        TypeError: if `model` is not a module, `skip` not a collection of names, or as `htaf_snn.surrogate.resolve`.
        ValueError: if the surrogate is unknown, a name in `skip` is not a module's, a convolution's padding is not a
            number of zeros, or a layer has something that its binary form cannot take over. Then nothing is replaced.

    Warns:
        UserWarning: naming what stays as it is: `linear`, `conv2d` and the activation functions of
            `torch.nn.functional`, but softmax and its kind, that forward methods call, there, in torch or as methods;
            layers of subclasses; and the activations of `torch.nn` other than ReLU. Or if forward methods cannot be
            traced to find them.

    Example:
        >>> net = binarize(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), skip=["2"])
        >>> [type(layer).__name__ for layer in net]
        ['BinaryLinear', 'BinaryActivation', 'Linear']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {model!r}")
    if type_before_parametrizations(model) in _REPLACED:
        raise ValueError(f"model: expected a network with layers in it, got {model}; write nn.Sequential(layer)")
    known = dict(model.named_modules(remove_duplicate=False))
    _check_skip(skip, known)
    places = {name: module for name, module in known.items() if name and not _is_within(name, skip)}
    new_surrogate, number = copies(surrogate), next(model.parameters(), None)
    binary: dict[int, nn.Module] = {}
    for name, module in places.items():
        if type_before_parametrizations(module) in _REPLACED and id(module) not in binary:
            binary[id(module)] = _taken_over(name, module, _binary_form(name, module, new_surrogate, number))
    replaced = [name for name, module in places.items() if id(module) in binary]
    _check_shared(replaced, skip, known)
    remaining = _check_forward(model, places, {*replaced})
    _check_references(known, binary, skip)
    for name in replaced:
        parent, _, own = name.rpartition(".")
        setattr(known[parent], own, binary[id(known[name])])
    if remaining:
        stays = ", ".join(f"{function} of {name or 'the model itself'}" for name, function in remaining.items())
        remedy = "only nn.ReLU, nn.Linear and nn.Conv2d become binary: write as such what is to be binary"
        if named := [name for name in remaining if name]:
            remedy = f"skip the modules that are to stay, as in skip={named[:1]}; {remedy}"
        warnings.warn(f"model: these stay as they are: {stays}; {remedy}", stacklevel=2)
    return model


def _is_within(name: str, skip: Collection[str]) -> bool:
    return any(name == skipped or name.startswith(f"{skipped}.") for skipped in skip)


def _check_skip(skip: Collection[str], known: dict[str, nn.Module]) -> None:
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise TypeError(f"skip: expected a list of names of modules, such as [{str(skip)!r}], got {skip!r}")
    unknown = [name for name in skip if not isinstance(name, str) or not name or name not in known]
    if unknown:
        names = ", ".join(map(repr, [name for name in known if name][:8]))
        raise ValueError(f"skip: expected names of modules, such as {names}, got {', '.join(map(repr, unknown))}")


def _check_shared(replaced: list[str], skip: Collection[str], known: dict[str, nn.Module]) -> None:
    """Raise ValueError if a module that contains a replaced one is skipped under another name."""
    skipped = {id(module): name for name, module in known.items() if _is_within(name, skip)}
    for name in replaced:
        parent = known[name.rpartition(".")[0]]
        if id(parent) in skipped:
            raise ValueError(f"skip: {skipped[id(parent)]} is used elsewhere too, as in {name}; skip all or none")


def _check_references(known: dict[str, nn.Module], binary: dict[int, nn.Module], skip: Collection[str]) -> None:
    """Raise ValueError if a module uses a layer otherwise than as a submodule, so that replacing would miss it."""
    for name, module in known.items():
        title = name or "model"
        for key, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            if key != "_modules" and any(id(item) in binary for item in held):
                expected = "layers in submodules alone, as in nn.ModuleList"
                raise ValueError(f"{title}.{key}: expected {expected}, got a {type(value).__name__} of them")
        fused = isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))
        if fused and not _is_within(name, skip) and any(id(child) in binary for child in module.children()):
            raise ValueError(f"{title}: expected to be skipped, as torch computes with its layers' weights directly")


def _binary_form(
    name: str, module: nn.Module, new_surrogate: Callable[[], Surrogate], number: torch.Tensor | None
) -> nn.Module:
    extra = [*(module._parameters.keys() - {"weight", "bias"}), *module._buffers, *module._modules]
    if "forward" in vars(module):
        extra.append("a forward of its own")
    if extra or type(module) not in _REPLACED:
        got = ", ".join(extra)
        raise ValueError(f"{name}: expected a plain layer, got {got}; undo pruning and parametrizations first")
    if isinstance(module, nn.ReLU):
        activation = hnn.BinaryActivation(new_surrogate())
        return activation if number is None else activation.to(number)
    if isinstance(module, nn.Linear):
        binary: nn.Module = hnn.BinaryLinear(module.in_features, module.out_features, module.bias is not None)
    else:
        assert isinstance(module, nn.Conv2d)  # the last of _REPLACED
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ValueError(
                f"{name}: expected padding with a number of zeros, got {module.padding!r}, {module.padding_mode!r}"
            )
        binary = hnn.BinaryConv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding, module.dilation,
            module.groups, module.bias is not None,
        )  # fmt: skip
    for key, parameter in module.named_parameters(recurse=False):
        setattr(binary, key, parameter)
    return binary


def _taken_over(name: str, module: nn.Module, binary: nn.Module) -> nn.Module:
    """Return the binary form with the mode, the hooks and the attributes that were set on a module."""
    for key, value in vars(module).items():
        if "hook" in key or (key not in vars(binary) and key not in _OWN):
            vars(binary)[key] = value
    return binary.train(module.training)


def _check_forward(model: nn.Module, places: dict[str, nn.Module], replaced: set[str]) -> dict[str, str]:
    """Return what stays as it is, by module; raise ValueError if a ReLU's result is read from its input."""
    names = {id(module): name for name, module in reversed(places.items())}
    real = {}
    for module_name, module in places.items():
        cls = type(module)
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(f"{module_name}: expected a layer of known size, got {cls.__name__}; run the model once")
        ours = cls.__module__.startswith("htaf_snn.")
        is_activation = cls.__module__ == nn.GELU.__module__ and not isinstance(module, _OTHERS)
        if (isinstance(module, _REPLACED) or is_activation) and module_name not in replaced and not ours:
            real[names[id(module)]] = cls.__name__
    try:
        graph = traced(model)
    except Exception:  # tracing runs the model's own code
        calls: list[tuple[str, str]] = []
        if type(model).forward is not nn.Module.forward:
            remedy = "look for functions such as torch.nn.functional.relu in its forward methods yourself"
            warnings.warn(f"model: expected one that torch.fx can trace; {remedy}", stacklevel=3)
    else:
        for node, user in changed_in_place(graph, places):
            if node.target in replaced:
                raise ValueError(f"{node.target}: changes its input in place, which {user.name} uses; use its result")
        calls = list(_calls(graph))
    functions = [(name, function) for name, function in calls if not name or name in places]
    return dict((*functions, *_attributes({"": model, **places}))) | real


def _calls(graph: torch.fx.Graph) -> Iterator[tuple[str, str]]:
    """Yield the module and the function of each call in a graph that a layer could make."""
    for node in graph.nodes:
        name = node.target if node.op == "call_method" and node.target in _METHODS else None
        name = _FUNCTIONS.get(node.target) if node.op == "call_function" else name
        if name:
            stack = [*node.meta.get("nn_module_stack", {}).values()]
            yield stack[-1][0] if stack else "", f"{name}()"


def _attributes(modules: dict[str, nn.Module]) -> Iterator[tuple[str, str]]:
    for name, module in modules.items():
        for value in vars(module).values():
            if any(value is function for function in _FUNCTIONS):
                yield name, f"{_FUNCTIONS[value]}()"
