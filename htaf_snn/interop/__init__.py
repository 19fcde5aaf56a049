"""Connections to other libraries; importing this imports none of them and changes nothing."""

from __future__ import annotations

from contextlib import ExitStack
from threading import RLock

from . import norse, snntorch
from .fusing import fuse
from .neurobench import to_neurobench
from .norse import from_norse, state_from_norse, state_to_norse, to_norse
from .sinabs import SurrogateGradient
from .snntorch import from_snntorch, state_from_snntorch, state_to_snntorch, to_snntorch
from .spikingjelly import SurrogateFunction

__all__ = [
    "SurrogateFunction",
    "SurrogateGradient",
    "from_norse",
    "from_snntorch",
    "fuse",
    "register",
    "state_from_norse",
    "state_from_snntorch",
    "state_to_norse",
    "state_to_snntorch",
    "to_neurobench",
    "to_norse",
    "to_snntorch",
    "unregister",
]

_LIBRARIES = (snntorch, norse)
_lock = RLock()
# The registrations in force; `unregister` starts a new list, so that those of the old one have nothing left to undo.
_registrations: list[ExitStack] = []


def _leave(registrations: list[ExitStack], registration: ExitStack) -> None:
    with _lock:
        registrations.remove(registration)
        if registrations is _registrations and not registrations:
            unregister()


def register() -> ExitStack:
    """Make the surrogates of this package known to snnTorch and Norse, or to the one of them that is installed.

    `snntorch.surrogate.htaf` then exists, snnTorch's neurons reset hard at any hardness of their surrogate, and Norse's
    neurons take every surrogate as their `method`. Nothing else in this package changes another library. Calling it
    again is no error. It stays in force until `unregister`, or as a context manager until the end of its block; blocks
    may be nested, and overlap in threads.

    Returns:
        A context manager, whose use is optional: at the end of the last block the libraries are restored, unless a call
        without a block is in force.

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
    installed = [library for library in _LIBRARIES if library.is_installed()]
    if not installed:
        raise ImportError("register: neither snnTorch nor Norse is installed; pip install snntorch or norse")
    registration = ExitStack()
    with _lock, ExitStack() as failure:
        for library in installed:
            if not library.is_registered():
                failure.callback(library.unregister)
            library.register()
        failure.pop_all()
        _registrations.append(registration)
        registration.callback(_leave, _registrations, registration)
    return registration


def unregister() -> None:
    """Undo every `register` in full, inside their blocks too; if none is in force, nothing happens.

    Example:
        >>> _ = register()
        >>> unregister()
        >>> snntorch.is_registered(), norse.is_registered()
        (False, False)
    """
    global _registrations
    with _lock:
        _registrations = []
        for library in _LIBRARIES:
            library.unregister()
