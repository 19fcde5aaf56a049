"""The surrogates of other libraries, computed by their own code; a library is imported when one is requested."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

from ..._checks import check_choice
from . import norse, sinabs, snntorch, spikingjelly

__all__ = ["LIBRARIES", "fault", "make", "name_of", "names"]

LIBRARIES = {"snntorch": snntorch, "norse": norse, "spikingjelly": spikingjelly, "sinabs": sinabs}


def _checked(library: str) -> ModuleType:
    check_choice("library", library, LIBRARIES)
    if find_spec(library) is None:
        raise ImportError(f"surrogate: {library} is not installed; pip install {library}")
    return LIBRARIES[library]


def names(library: str) -> list[str]:
    """Return the surrogates of an installed library, as "library.name"."""
    return [f"{library}.{name}" for name in _checked(library).names()]


def fault(library: str, name: str) -> str | None:
    """Return the known fault of a library's surrogate, or None; the library need not be installed."""
    return LIBRARIES[library].FAULTS.get(name) if library in LIBRARIES else None


def name_of(function: Callable) -> str:
    """Return the name of a function or instance that one of the libraries has defined; empty for others."""
    owner = getattr(function, "__self__", function)
    owner = owner if hasattr(owner, "__qualname__") else type(owner)
    module = getattr(owner, "__module__", None) or ""
    return f"{module}.{owner.__qualname__}" if module.partition(".")[0] in LIBRARIES else ""


def make(library: str, name: str, parameters: dict) -> Callable[[Tensor], Tensor]:
    """Make a library's surrogate.

    Args:
        library: one of `LIBRARIES`.
        name: one of its surrogates.
        parameters: the library's own.

    Returns:
        A callable from a floating-point tensor, membrane potential minus threshold, to spikes of its shape.

    Raises:
        ImportError: if the library is not installed.
        ValueError: if there is no such library or surrogate, or it does not take the parameters.
    """
    module = _checked(library)
    known, full = module.names(), f"{library}.{name}"
    if name not in known:
        near = [f"{library}.{match}" for match in get_close_matches(name, known, n=3)]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown surrogate {full!r}; {hint}expected one of: {', '.join(names(library))}")
    try:
        return module.make(name, **parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"surrogate {full!r}: {error}") from error
