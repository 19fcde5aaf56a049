"""Connections to other libraries; importing this imports none of them and changes nothing."""

from __future__ import annotations

from types import ModuleType

from . import norse, snntorch
from .norse import from_norse, to_norse
from .sinabs import SurrogateGradient
from .snntorch import from_snntorch, to_snntorch
from .spikingjelly import SurrogateFunction

__all__ = [
    "Registration",
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


class Registration:
    """The result of `register`, whose `with` block restores at its end what was in force before `register`.

    Args:
        before: the modules of the libraries that were registered before.

    Example:
        >>> with register():
        ...     with register():
        ...         pass
        ...     norse.is_registered()
        True
        >>> norse.is_registered()
        False
    """

    def __init__(self, before: tuple[ModuleType, ...]):
        self._before = before

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *exception) -> None:
        for library in _LIBRARIES:
            if library in self._before:
                library.register()
            else:
                library.unregister()


def register() -> Registration:
    """Make the surrogates of this package known to snnTorch and Norse, or to the one of them that is installed.

    `snntorch.surrogate.htaf` then exists, snnTorch's neurons reset hard at any hardness of their surrogate, and Norse's
    neurons take every surrogate as their `method`. Nothing else in this package changes another library. Calling it
    again is no error.

    Returns:
        A `Registration`, whose use as a context manager is optional.

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
    registration = Registration(before)
    try:
        for library in installed:
            library.register()
    except BaseException:
        registration.__exit__()
        raise
    return registration


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
