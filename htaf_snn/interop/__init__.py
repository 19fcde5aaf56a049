"""What joins this package to other libraries; importing it imports none of them, and changes nothing."""

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
    """What `register` returns: leaving its `with` block restores what was in force before `register`.

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
    """Let snnTorch and Norse, those of the two that are installed, know the surrogates of this package.

    `snntorch.surrogate.htaf` exists, and snnTorch's neurons reset hard at any hardness of their surrogate; every surrogate can be
    the `method` of Norse's neurons. This is the only thing in this package that changes another library. Calling it again
    is no error.

    Returns:
        A context manager, `Registration`; using it is optional.

    Raises:
        ImportError: if neither is installed.

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
    for library in installed:
        library.register()
    return Registration(before)


def unregister() -> None:
    """Undo `register` as a whole; without one it does nothing.

    Example:
        >>> _ = register()
        >>> unregister()
        >>> snntorch.is_registered(), norse.is_registered()
        (False, False)
    """
    for library in _LIBRARIES:
        library.unregister()
