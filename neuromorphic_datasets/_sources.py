"""Your own data in place of the name of a published set: folders, code, sets and parts of sets."""

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from ._dataset import EventDataset, Joined
from ._events import described
from .event_folder import EventFolder

Source = str | PathLike | EventDataset | Sequence[EventDataset]


def opened(name: Source, known: Sequence[str], **options: Any) -> EventDataset:
    """Return the set that a source names; `known` are the published names, for the message, `options` `EventFolder`'s.

    Raises:
        TypeError, ValueError: it is no source, or its parts do not belong together.
    """
    if isinstance(name, EventDataset):
        return name
    if isinstance(name, str | PathLike):
        if Path(name).expanduser().is_dir():
            return EventFolder(name, **options)
        if isinstance(name, str) and (found := of_code(name)) is not None:
            return opened(found, known, **options)
        raise ValueError(f"name: {unknown(name, known, 'recordings')}")
    if isinstance(name, list | tuple) and all(isinstance(part, EventDataset) for part in name):
        return _joined(name)
    raise TypeError(
        "name: expected a name, a folder, a data set, or (train, test) or (train, val, test) of them, got "
        f"{described(name)}"
    )


def of_code(spec: str) -> Any:
    """Return what ``FILE.py:NAME`` or ``MODULE:NAME`` names, called if it is a function or class; else None.

    Raises:
        ValueError: there is no such file, module or name, or a file's name is that of another module.
    """
    match = re.fullmatch(r"(.+):([A-Za-z_]\w*)", spec)
    if match is None:
        return None
    source, name = match.groups()
    module = _module_of(Path(source).expanduser()) if source.endswith(".py") else _imported(source)
    if not hasattr(module, name):
        raise ValueError(f"name: expected a name in {source}, got {name!r}")
    found = getattr(module, name)
    if callable(found) and not isinstance(found, EventDataset):
        required = [p.name for p in inspect.signature(found).parameters.values() if _is_required(p)]
        if required:
            raise ValueError(f"name: expected a function without required arguments, got {name}({', '.join(required)})")
    return found() if callable(found) and not isinstance(found, EventDataset) else found


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def unknown(name: str | PathLike, known: Sequence[str], kind: str) -> str:
    """Return what is expected in place of a name that names no data."""
    path = Path(name).expanduser()
    if path.is_file():
        hint = "; add :NAME" if path.suffix == ".py" else ""
        return f"expected a folder of {kind}, or FILE.py:NAME, got the file {path}{hint}"
    if path.name != str(name):
        return f"expected a folder, got none at {path}"
    close = difflib.get_close_matches(str(name), known, 1)
    return (
        f"expected one of {list(known)}, a folder of {kind}, or FILE.py:NAME or MODULE:NAME of your own, "
        f"got {str(name)!r}{f'; did you mean {close[0]!r}?' if close else ''}"
    )


def _module_of(path: Path) -> Any:
    """Import a file by its name, so that other processes can import it, too."""
    if not path.is_file():
        raise ValueError(f"name: expected a file, got none at {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # last: a random.py beside it is not Python's
    module = _imported(path.stem)
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"name: expected a file whose name no other module has, got {path}; rename it")
    return module


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise  # the user's own code imports what is not installed
        raise ValueError(f"name: expected a module that can be imported, got {name!r}") from None


def _joined(sets: Sequence[EventDataset]) -> EventDataset:
    if not 2 <= len(sets) <= 3:
        raise ValueError(f"name: expected (train, test) or (train, val, test), got {len(sets)} sets")
    first = sets[0]
    for part in sets[1:]:
        for attribute in ("classes", "sensor_size", "transform"):
            expected, got = getattr(first, attribute), getattr(part, attribute)
            if expected != got:
                raise ValueError(f"name: expected parts with the same {attribute}, got {expected} and {got}")
    return Joined(sets, ("train", "test") if len(sets) == 2 else ("train", "val", "test"))
