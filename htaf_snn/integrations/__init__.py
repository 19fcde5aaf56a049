"""Adapters to other libraries. Importing this package imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn

from .. import formulas, surrogate
from .. import nn as hnn
from . import norse_adapter, sinabs_adapter, snntorch_adapter, spikingjelly_adapter

__all__ = ["LIBRARIES", "NEURONS", "Registration", "fault", "names", "neuron", "parse", "register", "unregister"]

LIBRARIES = {
    "snntorch": snntorch_adapter,
    "norse": norse_adapter,
    "spikingjelly": spikingjelly_adapter,
    "sinabs": sinabs_adapter,
}
NEURONS = ("snntorch", "norse", "fused")

_ADAPTERS = (snntorch_adapter, norse_adapter)


class Registration:
    """What `register` returns: leaving its `with` block restores what was in force before `register`.

    Args:
        before: the adapters that were registered before.

    Example:
        >>> with register():
        ...     with register():
        ...         pass
        ...     norse_adapter.is_registered()
        True
        >>> norse_adapter.is_registered()
        False
    """

    def __init__(self, before: tuple[ModuleType, ...]):
        self._before = before

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *exception) -> None:
        for adapter in _ADAPTERS:
            if adapter in self._before:
                adapter.register()
            else:
                adapter.unregister()


def register() -> Registration:
    """Make `snntorch.surrogate.htaf` exist and every surrogate usable as `method` of the Norse neurons.

    Imports those of the two libraries that are installed. Once more is no error.

    Returns:
        A context manager, `Registration`; using it is optional.

    Raises:
        ImportError: if neither is installed.

    Example:
        >>> import snntorch
        >>> with register():
        ...     snntorch.surrogate.htaf(alpha=0.5)
        HTAF(alpha=0.5, beta=4.0, mode='spike')
        >>> hasattr(snntorch.surrogate, "htaf")
        False
    """
    before = tuple(adapter for adapter in _ADAPTERS if adapter.is_registered())
    installed = [adapter for adapter in _ADAPTERS if adapter.is_installed()]
    if not installed:
        raise ImportError("register: neither snnTorch nor Norse is installed; pip install snntorch or norse")
    for adapter in installed:
        adapter.register()
    return Registration(before)


def unregister() -> None:
    """Undo `register`; without one it does nothing.

    Example:
        >>> _ = register()
        >>> unregister()
        >>> snntorch_adapter.is_registered(), norse_adapter.is_registered()
        (False, False)
    """
    for adapter in _ADAPTERS:
        adapter.unregister()


def parse(spec: str) -> Callable[[Tensor], Tensor]:
    """A surrogate of this package, "htaf(beta=8)", or of a library, "snntorch.atan(alpha=2)", "norse.super".

    The libraries are snnTorch, Norse, SpikingJelly and sinabs; each one's own code computes, with its convention at 0.

    Args:
        spec: a name of `names`, alone or with literal keyword arguments in parentheses.

    Returns:
        A callable from a floating-point tensor, membrane potential minus threshold, to spikes of its shape.

    Raises:
        TypeError: if it is no string.
        ValueError: if it is malformed or names what does not exist; the message lists what does.
        ImportError: if the library is not installed.

    Example:
        >>> import torch
        >>> parse("snntorch.fast_sigmoid(slope=25)")(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    name, parameters = formulas.parse_spec(spec)
    library, _, member = name.rpartition(".")
    if not library:
        return surrogate.get(name, **parameters)
    if library not in LIBRARIES:
        raise ValueError(f"surrogate: expected a library of {', '.join(LIBRARIES)}, got {library!r} in {spec!r}")
    _check_installed(library)
    try:
        return LIBRARIES[library].library_surrogate(member, **parameters)
    except TypeError as error:
        raise ValueError(f"surrogate {spec!r}: {error}") from error


def _check_installed(library: str) -> None:
    if not LIBRARIES[library].is_installed():
        raise ImportError(f"surrogate: {library} is not installed; pip install {library}")


def names(library: str | None = None) -> list[str]:
    """The surrogates that `parse` knows: of this package, or as "library.name" of a library.

    Args:
        library: one of `LIBRARIES`; None is this package.

    Raises:
        ValueError: if the library is unknown.
        ImportError: if it is not installed.

    Example:
        >>> names("norse")[:3]
        ['norse.circ', 'norse.heavi_erfc', 'norse.heaviside']
    """
    if library is None:
        return surrogate.names()
    if library not in LIBRARIES:
        raise ValueError(f"library: expected one of {', '.join(LIBRARIES)}, got {library!r}")
    _check_installed(library)
    return [f"{library}.{name}" for name in LIBRARIES[library].surrogate_names()]


def fault(spec: str) -> str | None:
    """What is known to be odd in a library's surrogate, or None.

    Args:
        spec: as for `parse`; neither the name nor the parameters are checked.

    Raises:
        TypeError, ValueError: if it is no string or malformed.

    Example:
        >>> fault("norse.super(alpha=10)")
        'alpha is ignored by Norse 1.1: the width is always 1'
    """
    library, _, member = formulas.parse_spec(spec)[0].rpartition(".")
    return LIBRARIES[library].FAULTS.get(member) if library in LIBRARIES else None


def _check_usable(step: Callable[[Tensor], Tensor], spec: str) -> None:
    """Try it on two numbers: some of the libraries' own fail only when they are called, or have no gradient."""
    x = torch.tensor([-0.5, 0.5], requires_grad=True)
    try:
        torch.autograd.grad(step(x).sum(), x)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"surrogate: expected one that can be called and has a gradient, got {spec!r}: {error}"
        ) from error


def neuron(library: str, spec: str) -> nn.Module:
    """A spiking layer, for currents of shape (T, B, *features), with any surrogate it can use.

    Args:
        library: "snntorch" (`Leaky`, any surrogate of `parse`), "norse" (`LIF`; this package's surrogates and
            Norse's own; `register` comes into force), or "fused" (this package's `nn.Leaky`, which gives what
            "snntorch" gives).
        spec: as in `parse`.

    Returns:
        A module from currents (T, B, *features) to spikes of that shape, from rest.

    Raises:
        ValueError, ImportError: as `parse`; ValueError also if the library is unknown or cannot use the surrogate.

    Example:
        >>> import torch
        >>> neuron("snntorch", "htaf")(torch.ones(3, 2, 4)).shape
        torch.Size([3, 2, 4])
    """
    if library not in NEURONS:
        raise ValueError(f"library: expected one of {', '.join(NEURONS)}, got {library!r}")
    step = parse(spec)
    _check_usable(step, spec)
    if library == "fused":
        return hnn.Sequential(hnn.Leaky(beta=snntorch_adapter.BETA, surrogate=step))
    if library == "snntorch":
        return snntorch_adapter.LeakyOverTime(step)
    name, parameters = formulas.parse_spec(spec)
    owner, _, member = name.rpartition(".")
    if owner == "norse":
        return norse_adapter.LIFOverTime(member, **{"alpha": 100.0, **parameters})
    if owner:
        raise ValueError(f"surrogate: expected one of htaf-snn or Norse for Norse's neurons, got {spec!r}")
    register()
    # Norse's alpha sets the first parameter only where the specification leaves it open: at its default, then.
    first = next(iter(step.formula.defaults))
    return norse_adapter.LIFOverTime(spec if "(" in spec else f"{spec}()", alpha=step.values()[first])
