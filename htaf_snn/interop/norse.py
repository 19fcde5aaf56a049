"""Norse: `register`, which makes every surrogate of this package a `method` of every neuron, and conversions.

Norse offers no way to add a method: each neuron calls the function `threshold(x, method, alpha)`, which its module has
imported by name. `register` rebinds that name in every loaded module that has it, and `unregister` restores it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .. import surrogate as surrogates
from .._checks import check_floating, describe, full_name
from ..functional.sequences import State
from ..kernels.neuron.fused import is_in_kernel
from ..nn import (
    IAF,
    LI,
    LIF,
    LSNN,
    Izhikevich,
    IzhikevichRecurrent,
    LIBox,
    LIFAdEx,
    LIFAdExRecurrent,
    LIFAdExRefrac,
    LIFAdExRefracRecurrent,
    LIFBox,
    LIFEx,
    LIFExRecurrent,
    LIFRecurrent,
    LIFRefrac,
    LIFRefracRecurrent,
    LSNNRecurrent,
    NeuronLayer,
    RecurrentLayer,
)
from ..surrogate import Foreign, Surrogate
from ..surrogate.base import check_parameter
from ..surrogate.elementwise import is_transformed, step
from ..surrogate.formula import formula_named
from ..surrogate.libraries import norse as own
from ..surrogate.specifications import named, parse
from ._tensors import check_layer, hold, state_names, states

NAME = "norse.torch"
"""Where its neurons are found."""

# Bare names that always mean Norse's own method.
_OWN_METHODS = ("adjoint", *own.names())


def is_installed() -> bool:
    """Whether Norse can be imported."""
    return find_spec("norse") is not None


def is_registered() -> bool:
    """Whether `register` is in force."""
    return own.is_extended()


def register() -> None:
    """Make this package's surrogates known to every Norse neuron as `method`.

    A method is a name or a specification: "htaf", "htaf(beta=8)", "atan". Norse's `alpha`, a number or a tensor that
    broadcasts to the membrane potential and may require a gradient (HTAF), sets the formula's first parameter, unless
    the specification sets it. Norse's default for alpha is 100, which leaves almost no gradient: it is refused where it
    would set a parameter. Norse's own names keep their meaning: "triangle" is Norse's, while "triangle(alpha=2)" and
    "triangle()", with parentheses, are ours.

    Only module-level names are rebound, whatever they are called. Calling it again is no error, and rebinds names that
    have been bound to the original since.

    While in force, the forward pass of a neuron raises:
        TypeError: if alpha is neither a number nor a floating-point tensor.
        ValueError: if the method is unknown (the message lists the names), its specification is malformed, or it asks
            for a hardness below 1, which Norse would feed into the reset, or for learnable parameters, which no Norse
            module would hold; if alpha is Norse's default, not positive and finite, or does not broadcast; if the
            specification sets the formula's first parameter beside an alpha that requires a gradient or is neither
            Norse's default nor 1.
    """
    threshold = import_module(own.MODULE).threshold
    extended = threshold if is_registered() else _extended(threshold)
    _rebind(getattr(extended, own.ORIGINAL), extended)


def unregister() -> None:
    """Restore Norse's own `threshold` in every module; calling it again is no error."""
    if is_registered():
        extended = sys.modules[own.MODULE].threshold
        _rebind(extended, getattr(extended, own.ORIGINAL))


def _rebind(old: Callable, new: Callable) -> None:
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name in [name for name, value in list(vars(module).items()) if value is old]:
                setattr(module, name, new)


def _extended(original: Callable) -> Callable:
    # The string is a constant of a compiled graph, so its parsing is not traced. Such a function may return literals
    # only, hence the tuples of `_ours`. It is marked here so that importing this module does not import Dynamo.
    ours = torch.compiler.assume_constant_result(_ours)

    @wraps(original)
    def threshold(x: Tensor, method: str, alpha: float | Tensor) -> Tensor:
        method_of_ours = ours(method)
        if method_of_ours is None:
            try:
                return original(x, method, alpha)
            except ValueError as error:
                raise _unknown(method) from error
        name, values, free = method_of_ours
        parameters = dict(values)
        if free is None:
            _refuse_ignored(method, name, alpha)
        else:
            if isinstance(alpha, Tensor) and not alpha.is_floating_point():
                alpha = alpha.to(x.dtype)
            _refuse_default(method, free, alpha)
            check_parameter(named(name), free, alpha, x)
            parameters[free] = alpha
        check_floating("x", x)
        return step(x, formula_named(name), 1.0, *parameters.values())

    setattr(threshold, own.ORIGINAL, original)
    return threshold


def _is_readable(alpha: float | Tensor) -> bool:
    """Whether looking at the values neither stalls a device nor breaks a graph."""
    if not isinstance(alpha, Tensor):
        return True
    return alpha.device.type == "cpu" and not torch.compiler.is_compiling() and not is_transformed()


def _refuse_ignored(method: str, name: str, alpha: float | Tensor) -> None:
    """Raise ValueError for an alpha beside a method that sets it, but for Norse's default and that of `as_method`."""
    is_chosen = isinstance(alpha, Tensor) and alpha.requires_grad
    if not is_chosen and _is_readable(alpha):
        values = alpha.flatten().tolist() if isinstance(alpha, Tensor) else [alpha]
        is_chosen = any(value not in (1, 100) for value in values)
    if is_chosen:
        first = formula_named(name).parameters[0]
        expected = f"none beside {method!r}, which sets {first}"
        raise ValueError(f"alpha: expected {expected}, got {describe(alpha)}; leave out one of them")


def _refuse_default(method: str, free: str, alpha: float | Tensor) -> None:
    """Raise ValueError for 100, the alpha of a neuron that sets none, which leaves almost no gradient."""
    if isinstance(alpha, Tensor) and (alpha.ndim or not _is_readable(alpha)):
        return
    if alpha == 100:
        name = method.partition("(")[0]
        raise ValueError(
            f"alpha: expected a value chosen for {name!r}, got Norse's default of 100; write "
            f"{name}({free}=1.0) as method or pass alpha=torch.tensor(1.0); if 100 is meant, {name}({free}=100)"
        )


def _names() -> list[str]:
    return sorted({*own.names(), *surrogates.names()})


def _unknown(method: str) -> ValueError:
    near = get_close_matches(method.partition("(")[0], _names())
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ValueError(f"method: expected one of {', '.join(_names())}, got {method!r}{hint}")


def _ours(method: str) -> tuple[str, tuple[tuple[str, float], ...], str | None] | None:
    """Return the formula's name, its values, and the parameter that alpha sets; None for a method left to Norse."""
    if not isinstance(method, str):
        raise TypeError(f"method: expected a name or a specification such as 'htaf(beta=8)', got {method!r}")
    bare = "(" not in method
    if bare and (method in _OWN_METHODS or method not in surrogates.names()):
        return None
    name = method.partition("(")[0].strip()
    cls: object = named(name) if name in surrogates.names() else None
    return _parsed(method, cls)


@lru_cache(maxsize=256)
def _parsed(method: str, _: object) -> tuple[str, tuple[tuple[str, float], ...], str | None]:
    """Return the result of `_ours`; the class in the key tells whether it has been registered again since."""
    surrogate = surrogates.resolve(method)
    if surrogate.formula is None:
        raise _unknown(method)
    if surrogate.hardness < 1:
        raise ValueError(f"method: expected hardness 1, as another would soften the reset, got {method!r}")
    if surrogate.learn:
        raise ValueError(f"method: pass a learnable parameter as the tensor alpha, got {method!r}")
    first = surrogate.formula.parameters[0]
    values = tuple((name, float(value)) for name, value in surrogate.values().items())
    return surrogate.formula.name, values, None if first in parse(method)[1] else first


LAYERS: dict[str, type[NeuronLayer]] = {
    layer.__name__: layer
    for layer in (
        *(IAF, Izhikevich, LI, LIBox, LIF, LIFAdEx, LIFAdExRefrac, LIFBox, LIFEx, LIFRefrac, LSNN),
        *(IzhikevichRecurrent, LIFAdExRecurrent, LIFAdExRefracRecurrent, LIFExRecurrent, LIFRecurrent),
        *(LIFRefracRecurrent, LSNNRecurrent),
    )
}
"""The layer of each neuron that can be converted, by the name that both have; one for a single step ends in Cell."""

# Functions of Norse that reset a LIFBoxCell, and the value of the layer's option `reset`.
_RESETS = {"reset_value": "value", "reset_subtract": "subtract"}


def from_norse(neuron: nn.Module) -> NeuronLayer:
    """Return a fused copy of a neuron of Norse; tensors that require a gradient become parameters.

    The kernels of refractory and recurrent neurons compute this package's surrogates alone: with a method of Norse's
    own, or an alpha of several values or one that is learned, they have `backend="torch"`.

    Args:
        neuron: an `IAF`, `Izhikevich`, `LI`, `LIF`, `LIFAdEx`, `LIFEx` or `LSNN`, a cell of one of these, a
            `LIBoxCell`, `LIFAdExRefracCell`, `LIFBoxCell` or `LIFRefracCell`, or a recurrent one of these. Its
            parameters are copied; it is left unchanged.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if its method is unknown, its alpha requires a gradient but cannot be learned or is set by the
            method, it records all states, or it steps or resets by another function, such as that of its adjoint.

    Example:
        >>> import norse.torch
        >>> from_norse(norse.torch.LIF()).v_th
        tensor(1.)
    """
    return fused(neuron)


def fused(neuron: Any, share: bool = False) -> NeuronLayer:
    """Return the fused layer of a neuron, with copies of its tensors or, to share, with them.

    To share, a tensor that requires a gradient and is no parameter becomes a buffer, as Norse lists it as little.
    """
    kind = layer_of(neuron)
    if kind is None:
        raise TypeError(f"neuron: expected one of {known()}, got {full_name(neuron)}")
    values = _flattened(neuron.p) | {"dt": neuron.dt}
    options: dict[str, Any] = {}
    if kind.definition.spikes:
        values["alpha"] = alpha = torch.as_tensor(values["alpha"])
        if share and alpha.requires_grad:
            raise ValueError("alpha: expected one without gradient, as the fused neuron learns its logarithm instead")
        options["surrogate"] = _as_surrogate(values["method"], alpha)
    _refuse_lacking(neuron, kind)
    is_recurrent = issubclass(kind, RecurrentLayer)
    if kind.definition is Izhikevich.definition:
        values |= {f"{name}_rest": value.detach() for name, value in neuron.spiking_method.s._asdict().items()}
    if kind is LIFBox:
        options["reset"] = _RESETS[values["reset_method"].__name__]
    taken = {name: values[name] for name in kind.definition.parameters}
    options |= _weights(neuron, share) if is_recurrent else {}
    given: dict[str, Any] = {
        name: value.detach() if isinstance(value, Tensor) else value for name, value in taken.items()
    }
    layer = kind(**given, **options, learn=[name for name, value in taken.items() if _is_learned(value)])
    if (is_recurrent or "rho" in kind.definition.states) and not is_in_kernel(layer.surrogate):
        layer.backend = "torch"
    for name, value in taken.items() if share else ():
        if isinstance(value, Tensor) and value.requires_grad == _is_learned(value):
            hold(layer, name, value)
    return layer


def _weights(neuron: Any, share: bool) -> dict[str, Any]:
    """Return what a recurrent layer or neuron is made with, for the weights of the other."""
    hidden, size = neuron.input_weights.shape
    if not neuron.autapses and neuron.recurrent_weights.diagonal().any() and not isinstance(neuron, RecurrentLayer):
        raise ValueError("recurrent_weights: expected a diagonal of zeros without autapses, got other weights on it")
    weights = {name: getattr(neuron, name) for name in ("input_weights", "recurrent_weights")}
    copies = {
        name: value if share else nn.Parameter(value.detach().clone(), value.requires_grad)
        for name, value in weights.items()
    }
    return {"input_size": size, "hidden_size": hidden, "autapses": neuron.autapses, **copies}


def layer_of(neuron: nn.Module) -> type[NeuronLayer] | None:
    """Return the class of the fused layer of a neuron, None if there is none."""
    name = type(neuron).__name__
    kind = LAYERS.get(name.removesuffix("Cell"))
    return kind if getattr(sys.modules.get(NAME), name, None) is type(neuron) else None


def known() -> str:
    """Return the neurons that can be converted, as messages show them."""
    module, names = import_module(NAME), [name for title in LAYERS for name in (title, f"{title}Cell")]
    return f"norse.torch's {', '.join(name for name in names if hasattr(module, name))}"


def _refuse_lacking(neuron: Any, kind: type[NeuronLayer]) -> None:
    """Raise ValueError if a neuron has what its layer lacks."""
    if getattr(neuron, "record_states", False):
        raise ValueError("record_states: expected False, which the fused neuron is limited to, got True")
    step = "feed_forward_step"
    if issubclass(kind, RecurrentLayer):
        step = "recurrent_step" if kind.definition is Izhikevich.definition else "step"
    expected = f"{kind.definition.name}_{step}"
    got = getattr(neuron.activation, "__name__", neuron.activation)
    if got != expected:
        raise ValueError(f"activation: expected {expected}, which the fused neuron computes, got {got}")
    reset = getattr(neuron.p, "reset_method", None)
    if reset is not None and getattr(reset, "__name__", None) not in _RESETS:
        raise ValueError(f"reset_method: expected one of {', '.join(_RESETS)}, got {reset!r}")


def _flattened(values: Any) -> dict[str, Any]:
    """Return the entries of a named tuple, and those of the named tuples within it, by name."""
    entries: dict[str, Any] = {}
    for name, value in values._asdict().items():
        entries |= _flattened(value) if hasattr(value, "_asdict") else {name: value}
    return entries


def _filled(kind: Any, values: dict[str, Any]) -> Any:
    """Return a named tuple of this class, in whose place among the fields a default shows another to be filled."""
    within = {name: type(value) for name, value in kind._field_defaults.items() if hasattr(value, "_fields")}
    return kind(**{name: _filled(within[name], values) if name in within else values[name] for name in kind._fields})


def _is_learned(value: object) -> bool:
    """Return whether a parameter is to be learned, but for a default that IAF shares and marks when it runs."""
    shared = import_module(NAME).IAFParameters().v_reset
    return isinstance(value, Tensor) and value.requires_grad and value is not shared


def _as_surrogate(method: str, alpha: Tensor) -> Surrogate:
    """Return the surrogate that a Norse neuron computes, with alpha as a parameter if it requires a gradient."""
    method_of_ours = _ours(method)
    value = alpha.detach().item() if alpha.ndim == 0 else alpha.detach().clone()
    if method_of_ours is None:
        if alpha.requires_grad:
            raise ValueError(
                f"alpha: expected a tensor without gradient, which Norse's {method!r} gives none, got {alpha}"
            )
        if method not in own.names():
            raise _unknown(method)
        return Foreign(own.make(method, value), name=f"norse.{method}")
    surrogate = surrogates.resolve(method)
    name, _, free = method_of_ours
    if free is None:
        _refuse_ignored(method, name, alpha)
        return surrogate
    _refuse_default(method, free, alpha)
    if formula_named(name).parameter_gradients is None and (alpha.requires_grad or alpha.ndim):
        raise ValueError(f"alpha: expected a number for {method!r}, got {describe(alpha)}; only HTAF's can be learned")
    cls: Callable[..., Surrogate] = type(surrogate)
    return cls(**{**surrogate.values(), free: value}, learn=[free] if alpha.requires_grad else [])


def to_norse(layer: NeuronLayer) -> nn.Module:
    """Return a neuron of Norse with copies of a layer's parameters: over sequences, or a cell where it has that alone.

    With a surrogate of this package it works only while `htaf_snn.register()` is in force.

    Args:
        layer: as `from_norse` returns it; left unchanged.

    Raises:
        TypeError: if it is another layer.
        ValueError: if `detach_reset` is not what Norse's neuron does, or the surrogate cannot be a Norse method: a
            callable of another origin, a hardness below 1, or learnable parameters.

    Example:
        >>> type(to_norse(LIF())).__module__
        'norse.torch.module.lif'
    """
    name = check_layer(layer, LAYERS)
    is_recurrent, module = isinstance(layer, RecurrentLayer), import_module(NAME)
    if layer.options.get("detach_reset", is_recurrent) != is_recurrent:
        what = "lets no gradient" if is_recurrent else "lets the gradient"
        raise ValueError(f"detach_reset: expected {is_recurrent}: norse.torch.{name} {what} through its reset")
    values: dict[str, Any] = {name: _copied(getattr(layer, name)) for name in layer.definition.parameters}
    if layer.definition.spikes:
        method, alpha = own.as_method(layer.surrogate)
        values |= {"method": method, "alpha": torch.as_tensor(alpha)}
    if isinstance(layer, LIFBox):
        reset = next(name for name, option in _RESETS.items() if option == layer.options["reset"])
        values["reset_method"] = getattr(import_module("norse.torch.functional.reset"), reset)
    p = _filled(getattr(module, f"{name.removesuffix('Recurrent')}Parameters"), values)
    if layer.definition is Izhikevich.definition:
        v = values["v_rest"].requires_grad_()  # as in Norse's own
        p = module.IzhikevichSpikingBehavior(p, module.IzhikevichState(v, values["u_rest"]))
    kind = getattr(module, name, None) or getattr(module, f"{name}Cell")
    given = {"dt": _number(values["dt"])} if "dt" in values else {}
    if not is_recurrent:
        return kind(p, **given)
    weights = _weights(layer, share=False)
    return kind(weights.pop("input_size"), weights.pop("hidden_size"), p, **given, **weights)


def _copied(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_(value.requires_grad)


def _number(value: Tensor) -> float | Tensor:
    return value if value.ndim or value.requires_grad else value.item()


def state_from_norse(layer: NeuronLayer, state: Any) -> State:
    """Return the state that a layer takes, from that of its neuron in Norse.

    Args:
        layer: as `from_norse` returns it.
        state: as the neuron returns it.

    Raises:
        TypeError, ValueError: if the layer is another, or the state lacks one of its states.

    Example:
        >>> import norse.torch
        >>> state = norse.torch.LIFFeedForwardState(v=torch.zeros(2, 3), i=torch.ones(2, 3))
        >>> v, i = state_from_norse(LIF(), state)
        >>> v is state.v and i is state.i
        True
    """
    check_layer(layer, LAYERS)
    values, names = _flattened(state), state_names(layer)
    if not set(names) <= values.keys():
        raise ValueError(f"state: expected {', '.join(names)}, got {', '.join(values)}")
    tensors = tuple(values[name] for name in names)
    return tensors if len(tensors) > 1 else tensors[0]


def state_to_norse(layer: NeuronLayer, state: State) -> Any:
    """Return the state that a neuron of Norse takes, from that of its layer.

    Args:
        layer: as `to_norse` takes it.
        state: as the layer returns it.

    Raises:
        TypeError, ValueError: if the layer or the number of tensors is another.

    Example:
        >>> layer = LIF()
        >>> _, state = layer(torch.ones(5, 2, 3))
        >>> type(state_to_norse(layer, state)).__name__
        'LIFFeedForwardState'
    """
    name, module = check_layer(layer, LAYERS), import_module(NAME)
    values = dict(zip(state_names(layer), states(state, layer), strict=True))
    title, forward = name.removesuffix("Recurrent"), "" if isinstance(layer, RecurrentLayer) else "FeedForward"
    kind = getattr(module, f"{name}State", None) if name == "IzhikevichRecurrent" else None
    kind = kind or getattr(module, f"{title}{forward}State", None) or getattr(module, f"{title}State")
    within = {field for field in kind._fields if field not in values}  # of a refractory neuron
    for field in within:
        inner = getattr(module, f"{title.removesuffix('Refrac')}{forward}State")
        values[field] = inner(**{key: values.pop(key) for key in inner._fields})
    return kind(**values)


def reason_in_chain(neuron: nn.Module, carries: bool, is_last: bool) -> str | None:
    """Return why a neuron does not work as a layer of a chain, which carries its state or not."""
    return None if carries else "expected norse.torch.SequentialState around it, as it returns its state too"


def takes_sequence(neuron: nn.Module) -> bool:
    """Return whether a neuron takes all time steps in one call."""
    return hasattr(neuron, "record_states")


def carries_state(chain: nn.Module | None) -> bool:
    """Return whether a module is a `SequentialState`."""
    cls = getattr(sys.modules.get(NAME), "SequentialState", None)
    return cls is not None and isinstance(chain, cls) and type(chain).forward is cls.forward


def is_stateful(module: nn.Module) -> bool:
    """Return whether a module has a state, as a `SequentialState` tells, and is none itself."""
    if not type(module).__module__.startswith("norse.") or carries_state(module):
        return False
    return "state" in inspect.signature(module.forward).parameters


def is_lift(module: nn.Module) -> bool:
    """Return whether a module is a `Lift`."""
    return isinstance(module, getattr(sys.modules.get(NAME), "Lift", ()))


# They treat the last dimension or each element alone, so that it does not matter how many dimensions precede it.
_OF_ANY_RANK = (
    *(nn.Linear, nn.Identity, nn.Dropout, nn.LayerNorm, nn.RMSNorm, Surrogate),
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid, nn.Mish),
    *(nn.ReLU, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh),
)


def at_one_step(module: nn.Module) -> nn.Module | None:
    """Return what does at each time step what a layer does to a whole sequence (T, B, ...), None if it is unknown."""
    if is_lift(module):
        return module.lifted_module  # type: ignore[return-value]
    if isinstance(module, nn.Flatten) and module.start_dim > 1 and module.end_dim not in (0, 1):
        return nn.Flatten(module.start_dim - 1, module.end_dim - (module.end_dim > 0))
    return module if isinstance(module, _OF_ANY_RANK) else None
