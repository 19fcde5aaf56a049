"""Connections to other libraries; importing this imports none of them and changes nothing."""

from __future__ import annotations

from contextlib import ExitStack
from types import ModuleType

from . import norse, snntorch
from .norse import from_norse, to_norse
from .sinabs import SurrogateGradient
from .snntorch import from_snntorch, to_snntorch
from .spikingjelly import SurrogateFunction

__all__ = [
    "SurrogateFunction",
    "SurrogateGradient",
    "from_norse",
    "from_snntorch",
    "register",
    "to_norse",
    "to_snntorch",
    "unregister",
]

_LIBRARIES = (snntorch, norse)


def _restore(before: tuple[ModuleType, ...]) -> None:
    for library in _LIBRARIES:
        if library in before:
            library.register()
        else:
            library.unregister()


def register() -> ExitStack:
    """Make the surrogates of this package known to snnTorch and Norse, or to the one of them that is installed.

    `snntorch.surrogate.htaf` then exists, snnTorch's neurons reset hard at any hardness of their surrogate, and Norse's
    neurons take every surrogate as their `method`. Nothing else in this package changes another library. Calling it
    again is no error.

    Returns:
        A context manager, whose use is optional: at the end of its block everything is as before this call.

    Raises:
        ImportError: if neither is installed; if the import of one fails, nothing is changed.

    Example:
        >>> import snntorch as snn
        >>> with register():
        ...     snn.surrogate.htaf(alpha=0.5)
        HTAF(alpha=0.5, beta=4.0, hardness=1.0)
        >>> hasattr(snn.surrogate, "htaf")
        False
    """
    before = tuple(library for library in _LIBRARIES if library.is_registered())
    installed = [library for library in _LIBRARIES if library.is_installed()]
    if not installed:
        raise ImportError("register: neither snnTorch nor Norse is installed; pip install snntorch or norse")
    with ExitStack() as registration:
        registration.callback(_restore, before)
        for library in installed:
            library.register()
        return registration.pop_all()


def unregister() -> None:
    """Undo `register` in full; if it is not in force, nothing happens.

    Example:
        >>> _ = register()
        >>> unregister()
        >>> snntorch.is_registered(), norse.is_registered()
        (False, False)
    """
    for library in _LIBRARIES:
        library.unregister()
