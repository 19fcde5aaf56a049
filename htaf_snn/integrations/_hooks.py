"""Act on a module as soon as somebody imports it, without importing it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["when_imported"]


def when_imported(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action(module)` now if the module is loaded, and right after each later import or reload of it.

    Args:
        name: full name of a module, which need not be installed.
        action: what to do with the module, after its own code has run and before its importer goes on.

    Example:
        >>> import math
        >>> when_imported("math", lambda module: print(module.pi))
        3.141592653589793
    """
    if name in sys.modules:
        action(sys.modules[name])
    sys.meta_path.insert(0, _Finder(name, action))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, action: Callable[[ModuleType], None]):
        self._name = name
        self._action = action

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        later = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in later)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._action)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader, action: Callable[[ModuleType], None]):
        self._loader = loader
        self._action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # inspect and pkgutil ask a module's loader for its source: they must find the real one.
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._action(module)
