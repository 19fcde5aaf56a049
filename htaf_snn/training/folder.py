"""A run's folder and its settings, checked before anything is written, so that no folder stays half written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from .._files import replacing
from .checkpoint import CHECKPOINT

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


def is_count(value: object) -> bool:
    """Return whether the value is an integer of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_number(value: object) -> bool:
    """Return whether the value is a real number and no boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_pair(value: object) -> bool:
    """Return whether a value is a tuple of two positive integers."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_count, value))


def make_plain(config: DataclassInstance) -> None:
    """Store a configuration's values as JSON can: NumPy's numbers as Python's, lists as tuples, paths as text."""
    for field in fields(config):
        object.__setattr__(config, field.name, _plain(getattr(config, field.name)))


def _plain(value: object) -> object:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(_plain, value))
    return str(value) if isinstance(value, PathLike) else value


def require(name: str, value: object, expected: str, is_valid: Callable[[Any], object]) -> None:
    """Raise ValueError naming the expected values unless this one is valid."""
    try:
        valid = is_valid(value)
    except TypeError:
        valid = False
    if not valid:
        raise ValueError(f"{name}: expected {expected}, got {value!r}")


def device_of(name: str) -> torch.device:
    """Return the device of "auto", "cpu" or "cuda"; raise ValueError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a usable GPU for 'cuda', got none; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def read_settings(out: str | PathLike, kind: type[Settings]) -> Settings:
    """Return the configuration of the run in a folder, a dataclass of that kind.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `config.json` is damaged, or belongs to another command, which is named.
    """
    out = Path(out)
    path = out / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected the configuration of a run, got no file{_hint_without_settings(out)}"
        )
    try:
        values = json.loads(path.read_text())
        missing = [field.name for field in fields(kind) if field.name not in values]
        if not missing:
            return kind(**{field.name: values[field.name] for field in fields(kind)})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a configuration written by htaf-snn, got {error!r}") from error
    raise ValueError(f"{path}: expected a configuration with {missing[0]!r}, got none{_hint_of_another(values)}")


def _hint_without_settings(out: Path) -> str:
    """Return how to use a folder that has no configuration of a run."""
    if (out / "study.json").is_file():
        return "; this is a study of htaf-snn compare, which stores no networks: open it with compare.Study(out)"
    if (out / CHECKPOINT).is_file():
        return f"; its {CHECKPOINT} is from training.fit: rebuild the network and use training.load_checkpoint"
    return ""


def _hint_of_another(values: dict) -> str:
    """Return which command wrote a configuration, and how to load its run."""
    if "n_concepts" in values:
        return "; this is a run of htaf-snn icbm: load it with concepts.load(out)"
    if "decorrelation" in values:
        return "; this is a run of concepts.fit: load it with concepts.load(out, model), where model has its structure"
    if "library" in values:
        return "; this is a run of htaf-snn train: load it with training.load(out)"
    return ""


def check_folder(config: DataclassInstance, out: Path, resume: bool) -> None:
    """Raise ValueError unless the folder is new or empty or, to resume, has a run of the same settings."""
    if resume:
        check_same_run(config, read_settings(out, type(config)))
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"out: expected a new or empty folder, got {out}, which has files; resume it or name another")


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Create a folder and its parents; remove those that are still empty at the end of the block."""
    created = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OSError(f"out: expected a writable folder, got {out}: {error.strerror}") from error
    try:
        yield
    finally:
        for folder in created:
            if not any(folder.iterdir()):
                folder.rmdir()


def write_json(path: Path, values: dict) -> None:
    """Write indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def check_same_data(out: Path, data: dict) -> None:
    """Raise ValueError if the run in a folder was trained on other data, as its `config.json` describes them."""
    before = json.loads((out / "config.json").read_text())
    for name, value in json.loads(json.dumps(data)).items():
        if name in before and before[name] != value:
            raise ValueError(f"{name}: expected {before[name]}, as in the run to resume, got {value}")


def check_same_run(config: DataclassInstance, before: DataclassInstance) -> None:
    """Raise ValueError if a setting differs from that of the run to resume, unless resuming may change it."""
    for field in fields(config):
        value, expected = getattr(config, field.name), getattr(before, field.name)
        if field.name in ("root", "download", "device") or (field.name == "epochs" and value >= expected):
            continue
        if value != expected:
            raise ValueError(f"{field.name}: expected {expected!r}, as in the run to resume, got {value!r}")
