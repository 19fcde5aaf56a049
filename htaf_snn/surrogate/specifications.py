"""The one place that reads surrogates: a module, a specification, or any callable becomes a `Surrogate`."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from .._checks import describe
from . import libraries
from .base import Foreign, Surrogate
from .formula import FORMULAS, Formula

SurrogateLike = Surrogate | str | Callable[[Tensor], Tensor]
"""A surrogate in any form, as `resolve` takes it."""

_CLASSES: dict[str, type[Surrogate]] = {}
# Those around another surrogate, which is their first parameter.
WRAPPERS: dict[str, Callable[..., Surrogate]] = {}
# Names by which the literature on binary networks knows two of them.
_SYNONYMS = {"superspike": "fast_sigmoid", "approx_sign": "triangle"}
_OWN = re.compile(r"(?P<file>.+?\.py):(?P<name>[^\W\d].*)", re.DOTALL)
_CALL = re.compile(r"[^\W\d][\w.]*\(")
_DIGESTS: dict[Path, str] = {}
"""Of the files that were imported, as they were then."""
_Class = TypeVar("_Class", bound=type[Surrogate])


def names(library: str | None = None) -> list[str]:
    """Return the names that specifications may have, sorted: of this package, or as "library.name" of a library.

    Args:
        library: "snntorch", "norse", "spikingjelly" or "sinabs"; None is this package.

    Raises:
        ValueError: if the library is unknown.
        ImportError: if it is not installed.

    Example:
        >>> names()[:3], names("norse")[:2]
        (['approx_sign', 'atan', 'clipped_ste'], ['norse.circ', 'norse.heavi_erfc'])
    """
    return sorted({**_CLASSES, **_SYNONYMS}) if library is None else libraries.names(library)


def named(name: str) -> type[Surrogate]:
    """Return the class of this package's surrogate of that name; KeyError if there is none."""
    return _CLASSES[_SYNONYMS.get(name, name)]


def fault(specification: str) -> str | None:
    """Return what is known to be wrong with another library's surrogate, or None.

    Args:
        specification: as for `resolve`; neither the name nor the parameters are checked.

    Raises:
        TypeError, ValueError: if it is no string or malformed.

    Example:
        >>> fault("norse.super(alpha=10)")
        'alpha is ignored by Norse 1.1: the width is always 1'
    """
    if isinstance(specification, str) and _own(specification):
        return None
    library, _, name = parse(specification)[0].rpartition(".")
    return libraries.fault(library, name)


def _own(specification: str) -> re.Match | None:
    """Return the file and the name of "FILE.py:NAME…", None for other specifications, also those with one within."""
    text = specification.strip()
    own = _OWN.fullmatch(text)
    if own is None or not _CALL.match(text):
        return own
    # Quotes and parentheses may be of a folder, but "name(" may also begin a specification with another within it.
    if own["file"].count("(") > own["file"].count(")"):
        return None
    try:
        parse(text)
    except ValueError:
        return own
    return None


def each(specification: str, change: Callable[[str], str]) -> str:
    """Return a specification changed by a function, or where another one is within it, with that one changed."""
    try:
        name, parameters = parse(specification)
    except ValueError:  # of a file, or for `resolve` to report
        return change(specification)
    within = parameters.get("function")
    if not isinstance(within, str):
        return change(specification)
    changed = each(within, change)
    return specification if changed == within else _written(name, parameters | {"function": changed})


def _written(name: str, parameters: Mapping[str, object]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in parameters.items())})" if parameters else name


def sorted_parameters(specification: str) -> str:
    """Return "name(key=value, ...)" with its keys sorted, so that equal ones have equal texts; others as given.

    Example:
        >>> sorted_parameters("leaky(threshold=1,beta=.9)"), sorted_parameters("a,b/soft.py:soft")
        ('leaky(beta=0.9, threshold=1)', 'a,b/soft.py:soft')
    """
    try:
        name, parameters = parse(specification)
    except ValueError:
        return specification
    return _written(name, dict(sorted(parameters.items()))) if "(" in specification else specification


def with_whole_path(specification: str) -> str:
    """Return "FILE.py:NAME…" with the whole path of the file, also within another; other specifications as given."""

    def change(text: str) -> str:
        own = _own(text)
        return f"{Path(own['file']).expanduser().resolve()}:{own['name']}" if own else text

    return each(specification, change)


def without_folder(specification: str) -> str:
    """Return "FILE.py:NAME…" without the folder of the file, for people to read; other texts as given."""

    def change(text: str) -> str:
        own = _own(text)
        return f"{Path(own['file']).name}:{own['name']}" if own else text

    return each(specification, change)


def parse(specification: str) -> tuple[str, dict[str, object]]:
    """Split a specification into the name and the keyword arguments.

    Args:
        specification: a name, dotted or not, alone or with literal keyword arguments in parentheses.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is of another form.

    Example:
        >>> parse("htaf(alpha=0.5, beta=8)"), parse("snntorch.atan")
        (('htaf', {'alpha': 0.5, 'beta': 8}), ('snntorch.atan', {}))
    """
    if not isinstance(specification, str):
        raise TypeError(f"surrogate: expected a string such as 'htaf(beta=8)', got {specification!r}")
    try:
        node = ast.parse(specification.strip(), mode="eval").body
        name, keywords = (node.func, node.keywords) if isinstance(node, ast.Call) and not node.args else (node, [])
        parameters = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords if keyword.arg}
    except (SyntaxError, TypeError, ValueError):
        name, keywords, parameters = ast.Constant(None), [], {}
    if not isinstance(name, (ast.Name, ast.Attribute)) or len(parameters) != len(keywords):
        expected = "a name or name(key=value, ...) with plain values"
        raise ValueError(f"surrogate: expected {expected}, got {specification!r}")
    return ast.unparse(name), parameters


def check_known_elsewhere(specification: str) -> None:
    """Raise ValueError if another process would not know a surrogate, which code of yours has registered here."""

    def check(text: str) -> str:
        own = _CLASSES.get(text.partition("(")[0].strip())
        if own is not None and own.__module__.partition(".")[0] != __package__.partition(".")[0]:
            raise ValueError(
                "surrogate: expected FILE.py:NAME for one that your own code registers, as other processes do not "
                f"import it, got {text!r}"
            )
        return text

    each(specification, check)


def _import(path: Path) -> ModuleType:
    """Import a file by its name, so that other processes can unpickle its classes."""
    if not path.is_file():
        raise ValueError(f"surrogate: expected a file, got none at {path}")
    main = sys.modules["__main__"]
    if _file_of(main) == path:  # a second import would register its surrogates again
        return main
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # last: a random.py beside it is not Python's
    module = importlib.import_module(path.stem)
    if _file_of(module) != path:
        raise ValueError(f"surrogate: expected a file whose name no other module has, got {path}; rename it")
    return module


def _file_of(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or "").resolve()


def _check_registers(path: Path, specification: str) -> None:
    """Import a file, and raise ValueError unless it registers a surrogate of that name."""
    module = _import(path)
    _DIGESTS.setdefault(path, _digest(path))
    own = [name for name, cls in _CLASSES.items() if cls.__module__ == module.__name__]
    name = parse(specification)[0]
    if name not in own:
        registered = ", ".join(own) or "none"
        raise ValueError(f"surrogate: expected one that {path.name} registers: {registered}, got {name!r}")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def digests(specification: str, imported: bool = True) -> dict[str, str]:
    """Return digits that identify the content of each file of a specification, by the file's name.

    Args:
        specification: as for `resolve`.
        imported: as the file was when this process imported it, if it did, otherwise as it is. A missing file has none.
    """
    found = {}

    def note(text: str) -> str:
        own = _own(text)
        path = Path(own["file"]).expanduser().resolve() if own else None
        if path is not None and imported and path in _DIGESTS:
            found[path.name] = _DIGESTS[path]
        elif path is not None and path.is_file():
            found[path.name] = _digest(path)
        return text

    each(specification, note)
    return found


def _from_specification(specification: str) -> Surrogate:
    own = _own(specification)
    if own is not None:
        _check_registers(Path(own["file"]).expanduser().resolve(), own["name"])
    name, parameters = parse(own["name"] if own else specification)
    library, _, member = name.rpartition(".")
    if library:
        origin = library, member, parameters
        foreign = Foreign(libraries.make(*origin), name=specification.strip())
        foreign._origin = libraries.make, origin  # for unpickling
        return foreign
    cls: Callable[..., Surrogate] | None = WRAPPERS.get(name) or _CLASSES.get(_SYNONYMS.get(name, name))
    if cls is None:
        known = names()
        elsewhere = [f"{other}.{name}" for other, module in libraries.LIBRARIES.items() if name in module.FAULTS]
        near = [*elsewhere, *get_close_matches(name.lower(), known, n=3)]
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        listed = f"{', '.join(known)}, or FILE.py:NAME of your own"
        raise ValueError(f"unknown surrogate {name!r}; {hint}expected one of: {listed}")
    try:
        return cls(**parameters)
    except TypeError as error:
        known = list(inspect.signature(cls).parameters)
        raise ValueError(f"surrogate {name!r}: {error}; its parameters are: {', '.join(known)}") from error


def resolve(surrogate: SurrogateLike) -> Surrogate:
    """Return the surrogate that is meant, whatever form it is given in.

    Args:
        surrogate: a `Surrogate`, which is returned itself; a specification, that is one of `names()`, alone or with
            literal keyword arguments as the class takes them, such as "htaf(alpha=0.5, beta=8)"; one that a file of
            yours registers, such as "softstep.py:softstep(width=0.5)", which is imported; another library's, such as
            "snntorch.atan(alpha=2)", which that library's own code computes; one of these within "rescaled", as
            in "rescaled(function='htaf', stretch=0.5, gain=2)", see `Rescaled`; or any callable from membrane potential
            minus threshold to spikes of the same shape and dtype, which is wrapped in `Foreign`.

    Returns:
        A `Surrogate`; for a specification a new one.

    Raises:
        TypeError: if it is of none of these forms, a class among them.
        ValueError: if a specification is malformed, or names a surrogate, library or parameter that does not exist; the
            message lists those that do.
        ImportError: if the library is not installed.

    Example:
        >>> resolve("htaf(alpha=0.5, beta=8)")
        HTAF(alpha=0.5, beta=8.0, hardness=1.0)
        >>> resolve("snntorch.fast_sigmoid(slope=25)")(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
        >>> resolve(lambda x: (x > 0).to(x.dtype) + x - x.detach())(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    if isinstance(surrogate, Surrogate):
        return surrogate
    if isinstance(surrogate, str):
        return _from_specification(surrogate)
    if isinstance(surrogate, type):
        name = surrogate.__name__
        remedy = f"{name}.apply" if issubclass(surrogate, torch.autograd.Function) else f"{name}()"
        raise TypeError(f"surrogate: expected an instance, got the class {name}; write {remedy}")
    if not callable(surrogate):
        raise TypeError(f"surrogate: expected a module, its specification or a callable, got {surrogate!r}")
    return Foreign(surrogate, name=libraries.name_of(surrogate))


@lru_cache(maxsize=256)
def shared(specification: str) -> Surrogate:
    """Return the surrogate of a specification, always the same one, which must not be changed."""
    return _from_specification(specification)


def register(cls: _Class) -> _Class:
    """Class decorator: make a surrogate of your own known by its formula's name, to `resolve`, kernels and commands.

    The same class once more, as when a notebook's cell is run again, replaces the one before.

    Args:
        cls: a subclass of `Surrogate` with a formula whose name is an identifier.

    Returns:
        The class.

    Raises:
        TypeError: if it is not a subclass of `Surrogate` with a formula.
        ValueError: if the name is taken or is not an identifier.

    Example:
        >>> from htaf_snn.surrogate import Formula
        >>> def primitive(x, width):
        ...     return 0.5 + x / (2.0 * (width + abs(x)))
        >>> def derivative(x, width):
        ...     return 0.5 * width / (width + abs(x)) / (width + abs(x))
        >>> @register
        ... class SoftStep(Surrogate, formula=Formula("soft_step", primitive, derivative)):
        ...     width: float = 1.0
        >>> resolve("soft_step(width=2)")(torch.ones(1))
        tensor([1.])
    """
    is_surrogate = isinstance(cls, type) and issubclass(cls, Surrogate)
    if not is_surrogate or not isinstance(cls.formula, Formula):
        raise TypeError(f"expected a subclass of Surrogate with a formula, got {cls!r}")
    name = cls.formula.name
    if not name.isidentifier() or iskeyword(name):
        raise ValueError(f"name: expected a Python identifier, got {name!r}")
    _check_formula(cls)
    before = _CLASSES.get(_SYNONYMS.get(name, name), cls)
    if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"name: {name!r} is taken by another surrogate")
    _CLASSES[name], FORMULAS[name] = cls, cls.formula
    shared.cache_clear()
    return cls


def _check_formula(cls: type[Surrogate]) -> None:
    """Try a formula's functions once at its defaults."""
    x, formula = torch.linspace(-1, 1, 6).view(2, 3), cls.formula
    assert formula is not None
    for name, function in (("primitive", formula.primitive), ("derivative", formula.derivative)):
        y = function(x, *cls._defaults.values())
        if not isinstance(y, Tensor) or y.shape != x.shape:
            got = describe(y) if isinstance(y, Tensor) else type(y).__name__
            raise TypeError(f"{formula.name}, {name}: expected a tensor of the shape of x, got {got}")
