"""The public names of both packages; the reference has an entry for each, and tests check their docstrings."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from types import ModuleType

MODULES = [
    "htaf_snn",
    *(f"htaf_snn.{name}" for name in ("functional", "surrogate", "nn", "models", "hardening", "training", "deploy")),
    *(f"htaf_snn.{name}" for name in ("concepts", "compare", "evaluation", "interop", "neurons", "plots", "profile")),
    "neuromorphic_datasets",
    *(f"neuromorphic_datasets.{name}" for name in ("transforms", "images", "readers", "event_folder")),
    *(f"neuromorphic_datasets.{name}" for name in ("random_manifolds", "saccade_digits")),
]


@cache
def names() -> dict[str, object]:
    """Return everything public by its full name."""
    modules = {name: import_module(name) for name in MODULES}
    return {f"{name}.{key}": getattr(module, key) for name, module in modules.items() for key in module.__all__}


@cache
def homes() -> dict[str, str]:
    """Return for each public name the one under which it is documented: that in the last module that has it."""
    public = names()
    last = {id(value): name for name, value in public.items() if inspect.isroutine(value) or inspect.isclass(value)}
    return {name: last.get(id(value), name) for name, value in public.items() if not isinstance(value, ModuleType)}
