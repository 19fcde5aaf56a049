"""The modules of torch that stay in floating point in a packed network, and how they are rebuilt from a file."""

from __future__ import annotations

import inspect
import json
import operator

from torch import Tensor, nn

from .. import nn as hnn

MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.PReLU,
    nn.LeakyReLU,
    nn.Hardtanh,
    nn.Hardswish,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softmax,
    nn.LogSoftmax,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    hnn.EventLinear,
    hnn.RPReLU,
)
_KNOWN = {cls.__name__: cls for cls in MODULES}


def _names(cls: type[nn.Module]) -> set[str]:
    """Return the arguments of a module's constructor that it keeps."""
    named = (p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)
    return {*named} - {"device", "dtype", "min_value", "max_value"}


def options(module: nn.Module, cls: type[nn.Module] | None = None) -> dict[str, object]:
    """Return the arguments from which a module of `MODULES` is rebuilt, as JSON values."""
    values = {name: getattr(module, name) for name in sorted(_names(cls or type(module)))}
    if "bias" in values:
        values["bias"] = values["bias"] is not None
    return json.loads(json.dumps(values, default=operator.index))


def rebuilt(kind: str, arguments: dict[str, object], state: dict[str, Tensor]) -> nn.Module:
    """Return a module of `MODULES` from its `options` and tensors, in eval mode, with tensors of its own."""
    cls = _KNOWN[kind]
    # An option that only this version of torch has stays at its default; one that it lacks cannot be honoured.
    if not arguments.keys() <= _names(cls):
        raise ValueError(f"{kind}: expected options of {', '.join(sorted(_names(cls)))}, got {', '.join(arguments)}")
    module = cls(**arguments)
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)
