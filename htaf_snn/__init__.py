"""HTAF, a heavy-tailed surrogate gradient, for spiking and binary networks.

Importing this package loads nothing else; each part is imported when it is first used, and every other library by the
part that needs it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from .interop import fuse, register, unregister
    from .kernels._dispatch import backends
    from .surrogate import HTAF

__all__ = [
    "HTAF",
    "backends",
    "compare",
    "concepts",
    "configuration",
    "deploy",
    "evaluation",
    "functional",
    "fuse",
    "hardening",
    "interop",
    "models",
    "nn",
    "plots",
    "profile",
    "register",
    "surrogate",
    "training",
    "unregister",
]
__version__ = "0.1.0"
_HOMES = dict.fromkeys(("fuse", "register", "unregister"), "interop") | {
    "backends": "kernels._dispatch",
    "HTAF": "surrogate",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(_import_module(f".{_HOMES[name]}", __name__), name)
    if name in __all__:
        return _import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
