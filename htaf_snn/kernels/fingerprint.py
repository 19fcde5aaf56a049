"""What a function depends on besides its arguments: its code, that of the functions it calls, and what both read."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

_PLAIN = (int, float, complex, str, bytes, bool, type(None), np.number, tuple, list, dict, set, frozenset)
# Libraries whose functions do not change while a process runs.
_FIXED = ("torch", "math", "numpy", "numba", "llvmlite", "builtins")


def _chains(code: CodeType) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a function reads from outside, such as ("torch", "exp")."""
    chain: tuple[str, ...] = ()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain:
            chain = (*chain, instruction.argval)
        elif instruction.opname not in ("PRECALL", "CACHE", "PUSH_NULL"):
            if chain:
                yield chain
            reads = instruction.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME")
            chain = (instruction.argval,) if reads else ()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _chains(constant)


def _is_fixed(value: object) -> bool:
    """Whether a value is of a library, and so is what it was."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(type(value), "__module__", "")
    if isinstance(value, (BuiltinFunctionType, type)) or callable(value):
        name = getattr(value, "__module__", None) or name
    library = (name or "").partition(".")[0]
    if library == "builtins" and isinstance(getattr(value, "py_func", value), FunctionType):
        return False  # made by exec in a namespace without a name
    return library in _FIXED and not isinstance(value, _PLAIN)


class Reads:
    """What functions read from outside, by its dotted name, in the present."""

    def __init__(self, *functions: object):
        self._get: dict[tuple[str, CodeType], Callable[[], Any]] = {}
        self.code: dict[CodeType, FunctionType] = {}
        for function in functions:
            self._visit(function)

    def _visit(self, function: object) -> None:
        function = getattr(function, "py_func", function)  # what Numba has compiled
        if not isinstance(function, FunctionType) or function.__code__ in self.code:
            return
        self.code[function.__code__] = function
        for chain in dict.fromkeys(_chains(function.__code__)):
            place = _place(function, chain[0])
            if place is None:
                continue  # a builtin
            names, value = chain[1:], place()
            while names and not _is_fixed(value) and not isinstance(value, _PLAIN) and hasattr(value, names[0]):
                place = _attribute(place, names[0])
                names, value = names[1:], place()
            if not _is_fixed(value):
                self._get[".".join(chain), function.__code__] = place
                self._visit(value)

    def values(self) -> tuple[tuple[str, object], ...]:
        """Return the values as text, and of functions their code; of anything else its type, in a tuple."""
        return tuple((name, _text(get())) for (name, _), get in self._get.items())

    def has_other_code(self) -> bool:
        """Return whether a function has been defined again since."""
        return any(isinstance(value, CodeType) and value not in self.code for _, value in self.values())

    def others(self) -> list[str]:
        """Return the names of what is neither a function nor of a plain type, and so could change unnoticed."""
        return [name for name, value in self.values() if isinstance(value, tuple)]


def _place(function: FunctionType, name: str) -> Callable[[], Any] | None:
    """Return what looks a name up, None for a builtin."""
    free = function.__code__.co_freevars
    if name in free:
        cell = (function.__closure__ or ())[free.index(name)]
        return lambda: cell.cell_contents
    space = function.__globals__
    return (lambda: space[name]) if name in space else None


def _attribute(place: Callable[[], Any], name: str) -> Callable[[], Any]:
    return lambda: getattr(place(), name)


def _text(value: object) -> object:
    function = getattr(value, "py_func", value)
    if isinstance(function, FunctionType):
        return function.__code__
    if isinstance(value, (set, frozenset)):  # whose order differs between processes
        return repr(sorted(map(repr, value)))
    return repr(value) if isinstance(value, _PLAIN) else (type(value).__name__,)


def _digested(code: CodeType) -> tuple:
    inner = [_digested(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return code.co_code, inner, code.co_names


def fingerprint(*functions: object) -> str:
    """Return a digest of all that functions depend on; of values of no plain type, of their types."""
    reads = Reads(*functions)
    parts: list[object] = [(n, "" if isinstance(value, CodeType) else value) for n, value in reads.values()]
    for code, function in reads.code.items():
        parts += [_digested(code), function.__defaults__, function.__kwdefaults__]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
