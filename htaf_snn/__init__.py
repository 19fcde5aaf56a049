"""HTAF, a heavy-tailed surrogate gradient, for spiking and binary networks.

Importing this package loads torch and numpy only; every other library is imported by the part that needs it.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version

from . import functional, surrogate
from .interop import fuse, register, unregister
from .kernels._dispatch import backends
from .surrogate import HTAF

__all__ = [
    "HTAF",
    "backends",
    "compare",
    "concepts",
    "deploy",
    "functional",
    "fuse",
    "hardening",
    "interop",
    "models",
    "nn",
    "profile",
    "register",
    "surrogate",
    "training",
    "unregister",
]
__version__ = _version("htaf-snn")


def __getattr__(name: str):
    if name in __all__:
        return _import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
