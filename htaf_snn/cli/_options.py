"""The options of a command, made from a dataclass of settings."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_args, get_origin, get_type_hints

from cyclopts import CoercionError, Group, Parameter, Token
from docstring_parser import parse

from ..configuration import Run

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    # What a command gets: the settings that its options set.
    Chosen = dict[str, Any]
    Named = dict[str, Any]
else:
    Named = tuple[str, ...]  # as cyclopts reads it, before its converter

Flag = Parameter(show_default=False)
Json = Annotated[bool, Flag, Parameter(help="Print the result as one line of JSON.")]


def options(kind: type[DataclassInstance], names: Collection[str] | None = None) -> Any:
    """Return the type of a command's argument that takes fields of a dataclass as options, each with its text.

    The argument is a dict of those that the user sets; they are grouped by the class that documents them. The names are
    those of the fields; None for all.
    """
    documented = _documented(kind)
    groups = list(dict.fromkeys(owner for owner, _ in documented.values()))
    hints = get_type_hints(kind, include_extras=True)
    made = {}
    for field in fields(kind):
        if names is not None and field.name not in names:
            continue
        owner, text = documented[field.name]
        group = Group(_title(owner), sort_key=groups.index(owner) + 1)
        made[field.name] = _option(hints[field.name], field, text, group)
    # Called, as a class statement cannot take fields that are made.
    typed_dict: Any = TypedDict
    return Annotated[typed_dict(f"{kind.__name__}Options", made, total=False), Parameter(name="*")]


def _documented(kind: type) -> dict[str, tuple[type, str]]:
    """Return the class that documents each field of a dataclass, and its text."""
    found: dict[str, tuple[type, str]] = {}
    for owner in reversed(kind.__mro__):
        for parameter in parse(owner.__doc__ or "").params:
            before = found.get(parameter.arg_name, (owner, ""))[0]
            found[parameter.arg_name] = (before, " ".join((parameter.description or "").split()))
    return found


def _option(hint: Any, field: Field, text: str, group: Group) -> Any:
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    extras: dict[str, Any] = {}
    if get_origin(plain) is dict:
        return Annotated[Named, Parameter(help=_sentence(text), group=group, **NAMED)]
    listed = next((kind for kind in (plain, *get_args(plain)) if get_origin(kind) is tuple), None)
    if listed is not None:
        plain, extras = listed, LISTED
    values = [value for kind in (plain, *get_args(plain)) for value in get_args(kind)]
    shown = _sentence(text, values) + _default(field.default)
    return Annotated[plain, Parameter(help=shown, group=group, **extras)]


def _title(kind: type) -> str:
    """Return the heading of the options that a class documents, such as "Concept recipe"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__.removesuffix("Settings")).capitalize()


def _sentence(text: str, values: Collection[object] = ()) -> str:
    """Return a text with a capital letter at its start, unless it starts with a value of its option, such as fp32."""
    return text if re.split(r"[\s,;:]", text)[0] in values else f"{text[:1].upper()}{text[1:]}"


def _default(value: object) -> str:
    """Return how a help text shows a default; nothing for those that a text describes."""
    if value is None or value is False or value is MISSING or value == ():
        return ""
    return f" [default: {','.join(map(str, value)) if isinstance(value, tuple) else value}]"


def _listed(hint: Any, tokens: Sequence[Token]) -> tuple:
    """Split a comma-separated option; commas in parentheses belong to a surrogate's parameters."""
    kind, text = get_args(hint)[0], tokens[-1].value
    try:
        return tuple(kind(part.strip()) for part in _parted(text))
    except ValueError:
        words = "integers" if kind is int else "numbers"
        message = f"{tokens[-1].keyword}: expected {words} separated by commas, got {text!r}"
        raise CoercionError(message) from None


def _pairs(tokens: Sequence[Token], form: str) -> dict[str, str]:
    """Return the texts by their names of options such as NAME=1,2, one name each."""
    texts: dict[str, str] = {}
    for token in tokens:
        name, _, text = (part.strip() for part in token.value.partition("="))
        name = name.replace("-", "_")
        if not text or name in texts:
            expected = f"{form} with a new name each time" if text else form
            raise CoercionError(f"{token.keyword}: expected {expected}, got {token.value!r}")
        texts[name] = text
    return texts


def _named(_hint: Any, tokens: Sequence[Token]) -> dict[str, tuple]:
    """Read options such as NAME=1,2, whose names are fields of a run."""
    texts = _pairs(tokens, "NAME=A,B")
    return {name: tuple(_plain(name, part) for part in _parted(text)) for name, text in texts.items()}


def _single(_hint: Any, tokens: Sequence[Token]) -> dict[str, object]:
    """Read options such as NAME=VALUE; commas belong to the value."""
    return {name: _plain("", text) for name, text in _pairs(tokens, "NAME=VALUE").items()}


def _parted(text: str) -> list[str]:
    """Split at the commas that are not in parentheses, nor in the path of a FILE.py:NAME that exists."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign == "(") - (sign == ")")
        parts = [*parts, ""] if sign == "," and not depth else [*parts[:-1], parts[-1] + sign]
    joined: list[str] = []
    while parts:
        count = next((n for n in range(1, len(parts) + 1) if _has_file(",".join(parts[:n]))), 1)
        joined.append(",".join(parts[:count]))
        parts = parts[count:]
    return joined


def _has_file(text: str) -> bool:
    """Return whether a text is FILE.py:NAME of a file that exists."""
    own = re.match(r"(.+?\.py):", text.strip())
    return own is not None and os.path.isfile(os.path.expanduser(own[1]))  # `Path` refuses a long text


def _plain(name: str, text: str) -> object:
    """Return a number, true or false as Python's, none where a field of a run can be None, other words as they are."""
    hint = get_type_hints(Run).get(name)
    if text.strip() == "none" and type(None) in get_args(hint):
        return None
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
    return value if isinstance(value, (bool, int, float)) else text.strip()


NAMED: dict[str, Any] = {"converter": _named, "metavar": "NAME=A,B,…"}
"""What a parameter of named values needs, which can be repeated."""
SINGLE: dict[str, Any] = {"converter": _single, "metavar": "NAME=VALUE"}
"""What a parameter of single named values needs, which can be repeated."""
LISTED: dict[str, Any] = {"converter": _listed, "n_tokens": 1, "metavar": "A,B,…"}
"""What a parameter of values separated by commas needs."""


def settled(chosen: Chosen) -> Chosen:
    """Return what the options set, with whole paths, so that a run can be resumed elsewhere."""
    from ..surrogate.specifications import with_whole_path

    chosen = dict(chosen)
    if chosen.get("data_root") is not None:
        chosen["data_root"] = str(Path(chosen["data_root"]).expanduser().resolve())
    if isinstance(chosen.get("dataset"), str):
        chosen["dataset"] = _source(chosen["dataset"])
    elif chosen.get("dataset") is not None:
        whole = _source(",".join(chosen["dataset"]))  # the path of a folder may have commas
        chosen["dataset"] = (whole,) if Path(whole).is_dir() else tuple(map(_source, chosen["dataset"]))
    for name in ("surrogate", "weight_surrogate", "reference"):
        if isinstance(chosen.get(name), str):
            chosen[name] = with_whole_path(chosen[name])
    if chosen.get("surrogates") is not None:
        chosen["surrogates"] = tuple(map(with_whole_path, chosen["surrogates"]))
    if "weight_surrogate" in (axis := chosen.get("axis") or {}):
        chosen["axis"] = axis | {"weight_surrogate": tuple(map(with_whole_path, map(str, axis["weight_surrogate"])))}
    if isinstance(chosen.get("resize"), tuple) and len(chosen["resize"]) == 1:
        (chosen["resize"],) = chosen["resize"]
    return chosen


@cache
def _published() -> tuple[str, ...]:
    import neuromorphic_datasets as nd

    return (*nd.names(), *nd.images.names())


def _source(text: str) -> str:
    """Return a folder or FILE.py:NAME with its whole path; others as given."""
    text = text.strip()
    if text in _published():
        return text
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser().resolve())
    path, _, name = text.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{name}" if path.endswith(".py") else text
