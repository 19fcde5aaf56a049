"""A run's folder and its settings: checked before anything is written, and never left half made."""

from __future__ import annotations

import json
import operator
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._files import replacing
from .checkpoint import CHECKPOINT


def is_count(value) -> bool:
    """Whether it is an integer of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def index_of(name: str, value, size: int) -> int:
    """An integer of any kind from 0 to size - 1 as an int; ValueError for anything else."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not 0 <= number < size:
        raise ValueError(f"{name}: expected 0 to {size - 1}, got {value!r}")
    return number


def is_number(value) -> bool:
    """Whether it is a real number, and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def make_plain(config) -> None:
    """Keep a configuration's values as JSON can: Python's numbers in place of NumPy's, tuples, and paths as text."""
    for field in fields(config):
        object.__setattr__(config, field.name, _plain(getattr(config, field.name)))


def _plain(value):
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, PathLike) else value


def require(name: str, value, expected: str, is_valid: Callable) -> None:
    """Raise ValueError naming what was expected unless the value is valid."""
    try:
        valid = is_valid(value)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def device_of(name: str) -> torch.device:
    """The device of "auto", "cpu" or "cuda"; ValueError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a usable GPU for 'cuda', got none; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def read_settings(out: str | PathLike, kind: type) -> Any:
    """The configuration of the run in a folder, a dataclass of that kind.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `config.json` is damaged, or of another command, which is named.
    """
    out = Path(out)
    path = out / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the configuration of a run, found no file{_without_settings(out)}")
    try:
        values = json.loads(path.read_text())
        missing = [field.name for field in fields(kind) if field.name not in values]
        if not missing:
            return kind(**{field.name: values[field.name] for field in fields(kind)})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a configuration written by htaf-snn, got {error!r}") from error
    raise ValueError(f"{path}: expected a configuration with {missing[0]!r}, found none{_of_another(values)}")


def _without_settings(out: Path) -> str:
    """What a folder is that has no configuration, and how to use it."""
    if (out / "study.json").is_file():
        return "; this is a study of htaf-snn compare, which keeps no networks: open it by compare.Study(out)"
    if (out / CHECKPOINT).is_file():
        return f"; {CHECKPOINT} there is of training.fit: make its network and use training.load_checkpoint"
    return ""


def _of_another(values: dict) -> str:
    """Whose settings these are, and how to use them."""
    if "n_concepts" in values:
        return "; this is a run of htaf-snn icbm: load it by concepts.load(out)"
    if "decorrelation" in values:
        return "; this is of concepts.fit: load it by concepts.load(out, model), with a model of the same structure"
    if "library" in values:
        return "; this is a run of htaf-snn train: load it by training.load(out)"
    return ""


def check_folder(config, out: Path, resume: bool) -> None:
    """Raise ValueError unless the folder is new or empty or, to resume, has a run of the same settings."""
    if resume:
        check_same_run(config, read_settings(out, type(config)))
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"out: expected a new or empty folder, got {out}, which is not; resume it or name another")


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make a folder, and take what was made away again if nothing has come into it."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"out: expected a folder that can be written, got {out}: {error.strerror}") from error
    try:
        yield
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def write_json(path: Path, values: dict) -> None:
    """Write indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def check_same_data(out: Path, data: dict) -> None:
    """Raise ValueError if the run in a folder had other data, by what its `config.json` says of them."""
    before = json.loads((out / "config.json").read_text())
    for name, value in json.loads(json.dumps(data)).items():
        if name in before and before[name] != value:
            raise ValueError(f"{name}: expected {before[name]}, as the data of the run to resume had, got {value}")


def check_same_run(config, before) -> None:
    for field in fields(config):
        came, expected = getattr(config, field.name), getattr(before, field.name)
        if field.name in ("data_root", "download", "device") or (field.name == "epochs" and came >= expected):
            continue
        if came != expected:
            raise ValueError(f"{field.name}: expected {expected!r}, as the run to resume has it, got {came!r}")
