"""Norse: every surrogate of this package serves as `method` in the parameters of every Norse neuron.

Norse has no place to add a method: each neuron calls the function `threshold(x, method, alpha)`, which its
module has imported by name. `register` rebinds that name in every loaded module that has it, and `unregister`
restores it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import formulas, surrogate
from ..functional import spike
from ..functional._checks import describe
from ..kernels._dispatch import is_transformed

__all__ = [
    "FAULTS",
    "NORSE_METHODS",
    "LIFOverTime",
    "is_installed",
    "is_registered",
    "library_surrogate",
    "register",
    "surrogate_names",
    "unregister",
]

NORSE_METHODS = ("adjoint", "circ", "heavi_erfc", "heaviside", "super", "tanh", "triangle")
"""Bare names that always mean Norse's own method."""


FAULTS = {
    "circ": "alpha is a width: larger is wider, and at the default of 100 the gradient is 1 nearly everywhere",
    "heavi_erfc": "peak 1.128 at any alpha",
    "heaviside": "has no gradient",
    "super": "alpha is ignored by Norse 1.1: the width is always 1",
    "tanh": "peak 1 at any alpha: not the derivative of a step of height 1",
    "triangle": "alpha sets the height only, 100 at the default; the width is fixed",
}
"""What is known to be odd in Norse 1.1's threshold functions, by name."""


def surrogate_names() -> list[str]:
    """The names that `library_surrogate` accepts, sorted.

    Example:
        >>> surrogate_names()[-3:]
        ['super', 'tanh', 'triangle']
    """
    return sorted(method for method in NORSE_METHODS if method != "adjoint")


def library_surrogate(name: str, alpha: float = 100.0) -> Callable[[Tensor], Tensor]:
    """One of Norse's own threshold functions, exactly as Norse computes it.

    Args:
        name: one of `NORSE_METHODS` but "adjoint", which is not a threshold function.
        alpha: Norse's parameter, > 0, a number or a tensor; 100 is the default of its neurons.

    Returns:
        A callable from a floating-point tensor to spikes of its shape.

    Raises:
        ValueError: if there is no such method (the message lists them), or alpha is not positive.

    Example:
        >>> library_surrogate("super")(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    if name not in surrogate_names():
        raise ValueError(f"unknown surrogate 'norse.{name}'; expected one of: {', '.join(surrogate_names())}")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, Tensor)) or not torch.as_tensor(alpha > 0).all():
        raise ValueError(f"surrogate 'norse.{name}': alpha: expected a positive number, got {alpha!r}")
    return _Threshold(name, alpha)


@dataclass(frozen=True, eq=False)
class _Threshold:
    """One of Norse's threshold functions, looked up at each call: so it can be pickled while `register` is in force."""

    method: str
    alpha: float | Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return import_module("norse.torch.functional.threshold").threshold(x, self.method, self.alpha)


class LIFOverTime(nn.Module):
    """`norse.torch.LIF` over a sequence, from rest, giving spikes alone.

    Args:
        method: as in `register`, which must be in force, or one of Norse's own.
        alpha: as in `register`.
        v_th: threshold. Norse's LIF takes a fifth of a current in its first two steps, so the default is lower than
            Norse's 1.

    Shape:
        currents (T, B, *features) to spikes of the same shape.

    Raises:
        ValueError: if the method is unknown or one that `register` refuses.
        RuntimeError: in the forward pass, if the method needs `register` and it is not in force.

    Example:
        >>> LIFOverTime("super", alpha=1.0)(torch.ones(6, 1, 1)).detach().flatten()
        tensor([0., 0., 1., 0., 1., 1.])
    """

    def __init__(self, method: str, alpha: float, v_th: float = 0.3):
        super().__init__()
        # Norse itself would find out in the first forward pass.
        if _find(method) is None and method not in NORSE_METHODS:
            raise ValueError(f"method: expected one of {', '.join(_names())}, got {method!r}")
        norse = import_module("norse.torch")
        p = norse.LIFParameters(method=method, alpha=torch.as_tensor(float(alpha)), v_th=torch.as_tensor(v_th))
        self.lif = norse.LIF(p)

    def forward(self, currents: Tensor) -> Tensor:
        if not is_registered() and self.lif.p.method not in NORSE_METHODS:
            raise RuntimeError(f"method: {self.lif.p.method!r} needs htaf_snn.register() to be in force")
        return self.lif(currents)[0]


class _Pair(NamedTuple):
    original: Callable
    extended: Callable


_installed: _Pair | None = None


def is_installed() -> bool:
    """Whether Norse can be imported.

    Example:
        >>> is_installed()
        True
    """
    return find_spec("norse") is not None


def is_registered() -> bool:
    """Whether `register` is in force.

    Example:
        >>> register()
        >>> is_registered()
        True
        >>> unregister()
    """
    return _installed is not None


def register() -> None:
    """Let every Norse neuron take this package's surrogates as `method`.

    A method is a name or a specification: "htaf", "htaf(beta=8)", "atan". Norse's `alpha`, a number or a
    tensor that broadcasts to the membrane potential and may require a gradient (HTAF), sets the formula's
    first parameter, unless the specification names that parameter. Norse's default for alpha is 100, at which hardly
    a gradient is left: it is refused where it would set a parameter. The names in `NORSE_METHODS` keep Norse's
    behaviour; "triangle" is Norse's, and "triangle(alpha=2)" and "triangle()", with parentheses, are ours.

    Only module-level names are rebound, under whatever name they are kept. Once more is no error, and rebinds
    what has taken hold of the original since.

    While in force, the forward pass of a neuron raises:
        TypeError: if alpha is neither a number nor a floating-point tensor.
        ValueError: if the method is unknown (the message lists the names), or its specification is malformed
            or asks for smooth mode, whose values Norse would feed into the reset, or for learnable
            parameters, which no Norse module would hold; if alpha is Norse's default, not positive and finite, or
            does not broadcast.

    Example:
        >>> from norse.torch import LIFCell, LIFParameters
        >>> register()
        >>> spikes, state = LIFCell(p=LIFParameters(method="htaf", alpha=0.5))(torch.zeros(2, 3))
        >>> unregister()
    """
    global _installed
    if _installed is None:
        original = import_module("norse.torch.functional.threshold").threshold
        _installed = _Pair(original, _extended(original))
    _rebind(_installed.original, _installed.extended)


def unregister() -> None:
    """Give every module Norse's own `threshold` back; once more is no error.

    Example:
        >>> import norse.torch.functional.threshold as module
        >>> own = module.threshold
        >>> register()
        >>> module.threshold is own
        False
        >>> unregister()
        >>> module.threshold is own
        True
    """
    global _installed
    if _installed is not None:
        _rebind(_installed.extended, _installed.original)
        _installed = None


def _rebind(old: Callable, new: Callable) -> None:
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            for name in [name for name, value in list(vars(module).items()) if value is old]:
                setattr(module, name, new)


def _extended(original: Callable) -> Callable:
    # The string is a constant of a compiled graph and its parsing is not to be traced. Such a function may return
    # literals only, hence the tuples of `_find`. Marking it here and not above spares the others Dynamo's import.
    find = torch.compiler.assume_constant_result(_find)

    def threshold(x: Tensor, method: str, alpha: float | Tensor) -> Tensor:
        found = find(method)
        if found is not None:
            name, values, free = found
            if isinstance(alpha, Tensor) and not alpha.is_floating_point():
                alpha = alpha.to(x.dtype)
            if free:
                _refuse_default(method, free, alpha)
            parameters = {**dict(values), free: alpha} if free else dict(values)
            return spike(x, formulas.get(name), **parameters)
        try:
            return original(x, method, alpha)
        except ValueError as error:
            raise ValueError(f"method: expected one of {', '.join(_names())}, got {method!r}") from error

    return threshold


def _refuse_default(method: str, free: str, alpha: float | Tensor) -> None:
    """Raise ValueError for the alpha of a neuron that sets none: 100, at which hardly a gradient is left."""
    if isinstance(alpha, Tensor) and (
        alpha.ndim or alpha.device.type != "cpu" or torch.compiler.is_compiling() or is_transformed()
    ):
        return
    if alpha == 100:
        name = method.partition("(")[0]
        raise ValueError(
            f"alpha: expected a value chosen for {name!r}, got Norse's default of 100; write "
            f"{name}({free}=1.0) as method or pass alpha=torch.tensor(1.0); if 100 is meant, {name}({free}=100)"
        )


def _names() -> list[str]:
    return sorted({*surrogate_names(), *surrogate.names()})


def _find(method: str) -> tuple | None:
    """The formula's name, its values, the parameter that alpha sets; None for what is Norse's to handle."""
    if not isinstance(method, str):
        raise TypeError(f"method: expected a name or a specification such as 'htaf(beta=8)', got {method!r}")
    bare = "(" not in method
    if bare and (method in NORSE_METHODS or method not in surrogate.names()):
        return None
    return _parse(method)


@lru_cache(maxsize=256)
def _parse(method: str) -> tuple[str, tuple[tuple[str, float], ...], str | None]:
    module = surrogate.parse(method)
    if module.mode != "spike":
        raise ValueError(f"method: smooth mode would soften the reset; expected spike mode, got {method!r}")
    if next(module.parameters(), None) is not None:
        raise ValueError(f"method: pass a learnable parameter as the tensor alpha, got {method!r}")
    first = next(iter(module.formula.defaults), None)
    named = formulas.parse_spec(method)[1]
    return module.formula.name, tuple(module.values().items()), None if first in named else first


_TENSORS = ("tau_syn_inv", "tau_mem_inv", "v_leak", "v_th", "v_reset")


def describe_lif(neuron: nn.Module) -> dict:
    """The arguments of `htaf_snn.nn.LIF` that make it equal to a `norse.torch.LIF`.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if its method is unknown.
    """
    if type(neuron) is not import_module("norse.torch").LIF:
        raise TypeError(f"neuron: expected a norse.torch.LIF, got {type(neuron).__name__}")
    if neuron.record_states:
        raise ValueError("record_states: expected False, which the fused neuron is limited to, got True")
    p = neuron.p
    return {
        **{name: getattr(p, name) for name in _TENSORS},
        "learn": [name for name in _TENSORS if getattr(p, name).requires_grad],
        "surrogate": _as_surrogate(p.method, p.alpha),
        "dt": neuron.dt,
    }


def _as_surrogate(method: str, alpha: Tensor) -> Callable[[Tensor], Tensor]:
    """What a Norse neuron of this method computes, with alpha as a parameter if it requires a gradient."""
    found = _find(method)
    value = alpha.detach().item() if alpha.ndim == 0 else alpha.detach().clone()
    if found is None:
        if alpha.requires_grad:
            raise ValueError(
                f"alpha: expected a tensor without gradient, which Norse's {method!r} gives none, got {alpha}"
            )
        return library_surrogate(method, value)
    name, named = formulas.parse_spec(method)
    free = found[2]
    if free is None:
        return surrogate.get(name, **named)
    _refuse_default(method, free, alpha)
    if name not in ("htaf", "htaf_normalized") and (alpha.requires_grad or alpha.ndim):
        raise ValueError(f"alpha: expected a number for {method!r}, got {describe(alpha)}; only HTAF's can be learned")
    learnable = {"learnable": (free,)} if alpha.requires_grad else {}
    return surrogate.get(name, **named, **{free: value}, **learnable)


def make_lif(neuron: nn.Module) -> nn.Module:
    """The `norse.torch.LIF` that is equal to a `htaf_snn.nn.LIF`, with copies of its tensors."""
    if neuron.detach_reset:
        raise ValueError("detach_reset: expected False: norse.torch.LIF lets the gradient through its reset")
    norse = import_module("norse.torch")
    method, alpha = _as_method(neuron.surrogate)
    tensors = {name: getattr(neuron, name).detach().clone() for name in _TENSORS}
    for name, tensor in tensors.items():
        tensor.requires_grad_(getattr(neuron, name).requires_grad)
    return norse.LIF(norse.LIFParameters(method=method, alpha=torch.as_tensor(alpha), **tensors), dt=neuron.dt)


def _as_method(step: Callable) -> tuple[str, float]:
    if isinstance(step, _Threshold):
        return step.method, step.alpha
    if not isinstance(step, surrogate.Surrogate):
        raise ValueError(f"surrogate: expected one of htaf-snn or Norse for a Norse neuron, got {step!r}")
    values = step.values()
    if step.mode != "spike" or any(isinstance(value, Tensor) for value in values.values()):
        raise ValueError(f"surrogate: expected spike mode and plain numbers for a Norse neuron, got {step!r}")
    register()
    name, options = step.formula.name, values
    if isinstance(step, surrogate.HTAF):
        name, options = "htaf", {**values, "normalized": step.normalized}
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in options.items())})", 1.0
