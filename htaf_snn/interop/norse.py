"""Norse: `register`, which makes every surrogate of this package a `method` of every neuron; conversions of `LIF`.

Norse offers no way to add a method: each neuron calls the function `threshold(x, method, alpha)`, which its module has
imported by name. `register` rebinds that name in every loaded module that has it, and `unregister` restores it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache, wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import surrogate as surrogates
from .._checks import check_floating, describe, full_name
from ..nn import LIF
from ..surrogate import Foreign, Surrogate
from ..surrogate.base import check_parameter
from ..surrogate.elementwise import is_transformed, step
from ..surrogate.formula import formula_named
from ..surrogate.libraries import norse as own
from ..surrogate.specifications import named, parse

if TYPE_CHECKING:
    import norse.torch


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


_TENSORS = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset")


def from_norse(neuron: norse.torch.LIF) -> LIF:
    """Return a fused copy of a `norse.torch.LIF`; tensors that require a gradient become parameters.

    Args:
        neuron: its parameters are copied; it is left unchanged.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if its method is unknown, its alpha requires a gradient but cannot be learned or is set by the
            method, or it records all states.

    Example:
        >>> import norse.torch
        >>> from_norse(norse.torch.LIF()).v_th
        tensor(1.)
    """
    if type(neuron) is not import_module("norse.torch").LIF:
        raise TypeError(f"neuron: expected a norse.torch.LIF, got {full_name(neuron)}")
    if neuron.record_states:
        raise ValueError("record_states: expected False, which the fused neuron is limited to, got True")
    p = neuron.p
    return LIF(
        **{name: getattr(p, name) for name in _TENSORS},
        learn=[name for name in _TENSORS if getattr(p, name).requires_grad],
        surrogate=_as_surrogate(p.method, p.alpha),
        dt=neuron.dt,
    )


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


def to_norse(layer: LIF) -> norse.torch.LIF:
    """Return a `norse.torch.LIF` with copies of a layer's parameters.

    With a surrogate of this package it works only while `htaf_snn.register()` is in force.

    Args:
        layer: left unchanged.

    Raises:
        TypeError: if it is another layer.
        ValueError: if `detach_reset` is set, or the surrogate cannot be a Norse method: a callable of another
            origin, a hardness below 1, or learnable parameters.

    Example:
        >>> type(to_norse(LIF())).__module__
        'norse.torch.module.lif'
    """
    if not isinstance(layer, LIF):
        raise TypeError(f"layer: expected an htaf_snn.nn.LIF, got {full_name(layer)}")
    if layer.detach_reset:
        raise ValueError("detach_reset: expected False: norse.torch.LIF lets the gradient through its reset")
    module = import_module("norse.torch")
    method, alpha = own.as_method(layer.surrogate)
    tensors = {name: getattr(layer, name).detach().clone() for name in _TENSORS}
    for name, tensor in tensors.items():
        tensor.requires_grad_(getattr(layer, name).requires_grad)
    return module.LIF(module.LIFParameters(method=method, alpha=torch.as_tensor(alpha), **tensors), dt=layer.dt)
