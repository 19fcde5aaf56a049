"""Configuration files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._hints import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read_file(path: str | PathLike, kind: type[DataclassInstance]) -> dict[str, Any]:
    r"""Return the settings in a configuration file.

    Args:
        path: a TOML file, or a JSON file such as a run's `config.json`, whose keys are fields; the folder of a run; or
            the name of one of this package's recipes, such as "dvsgesture".
        kind: the dataclass, such as `Run`, whose fields they are; not all have to be there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or a key is no field.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "wide.toml"
        ...     _ = path.write_text('model = "dhn"\nhidden = [512, 512]\n')
        ...     from htaf_snn.configuration import Run
        ...     Run(**read_file(path, Run)).hidden
        (512, 512)
    """
    path = Path(path)
    shipped = {file.stem: file for file in (Path(__file__).parents[1] / "recipes").glob("*.toml")}
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        path = shipped.get(str(path), path)
    if not path.is_file():
        known = ", ".join(sorted(shipped))
        raise FileNotFoundError(
            f"{path}: expected a configuration file, a run's folder or one of {known}, got nothing of that name"
            f"{did_you_mean(str(path), f'one of {known}')}"
        )
    try:
        values = (json if path.suffix == ".json" else tomllib).loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected TOML, or JSON in a file named .json, got {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected settings, got {type(values).__name__}")
    names = [field.name for field in fields(kind)]
    for name in values:
        if name not in names:
            expected = f"one of {', '.join(names)}"
            raise ValueError(f"{path}: expected {expected}, got {name!r}{did_you_mean(name, expected)}")
    return dict(values)
