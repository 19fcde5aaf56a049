"""What a function's results depend on besides its arguments: its code and that of what it calls, and constants."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

_PLAIN = (int, float, complex, str, bytes, bool, type(None), np.number, tuple, list, dict, set, frozenset)


def _global_names(code: CodeType) -> set[str]:
    # Not `co_names`, which includes the names of attributes.
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return own.union(*map(_global_names, inner))


def _visited(function: Any, known: set[CodeType]) -> Iterator[FunctionType]:
    """Yield a function, and those that it calls; of Numba's, the Python functions that they were made from."""
    function = getattr(function, "py_func", function)
    if isinstance(function, FunctionType) and function.__code__ not in known:
        known.add(function.__code__)
        yield function
        for name in sorted(_global_names(function.__code__)):
            yield from _visited(function.__globals__.get(name), known)
        for cell in function.__closure__ or ():
            yield from _visited(cell.cell_contents, known)


def _text(value: object) -> str | int:
    if isinstance(value, (set, frozenset)):  # whose order differs between processes
        return repr(sorted(map(repr, value)))
    return repr(value) if isinstance(value, _PLAIN) else id(value)


class Constants:
    """The globals, and what closures hold, that functions read, but for functions, classes and modules."""

    def __init__(self, *functions: object):
        known: set[CodeType] = set()
        self._read: list[tuple[str, Callable[[], Any]]] = []
        for one in (visited for function in functions for visited in _visited(function, known)):
            names = sorted(_global_names(one.__code__) & set(one.__globals__))
            self._add({name: partial(one.__globals__.get, name) for name in names})
            cells = zip(one.__code__.co_freevars, one.__closure__ or (), strict=True)
            self._add({name: partial(getattr, cell, "cell_contents") for name, cell in cells})

    def _add(self, read: dict[str, Callable[[], Any]]) -> None:
        code = (FunctionType, ModuleType, type)
        self._read += [
            (name, get) for name, get in read.items() if not isinstance(getattr(get(), "py_func", get()), code)
        ]

    def values(self) -> tuple[tuple[str, Any], ...]:
        """Return the present values; one of no plain type stands for itself alone, which no other process has."""
        now = [(name, get()) for name, get in self._read]
        return tuple((name, _text(value)) for name, value in now)

    def others(self) -> list[str]:
        """Return the names of those of no plain type, whose values could change unnoticed."""
        return [name for name, value in self.values() if not isinstance(value, str)]


def _digested(code: CodeType) -> tuple:
    inner = [_digested(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, inner, code.co_names


def fingerprint(*functions: object) -> str:
    """Return a digest of all that functions depend on; of values of no plain type, only that there are any."""
    known: set[CodeType] = set()
    parts: list[object] = [
        (name, value if isinstance(value, str) else "") for name, value in Constants(*functions).values()
    ]
    for one in (visited for function in functions for visited in _visited(function, known)):
        parts += [_digested(one.__code__), one.__defaults__, one.__kwdefaults__]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
