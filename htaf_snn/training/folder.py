"""A run's folder and its configuration, checked before anything is written, so that no folder stays half written."""

from __future__ import annotations

import json
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .._files import replacing
from ..configuration import ConceptRecipe, ConceptRun, Run
from .checkpoint import CHECKPOINT, NETWORK

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG = "config.json"
DATA = "data.json"
_WRITERS = {Run: "a run of htaf-snn train", ConceptRun: "one of htaf-snn icbm", ConceptRecipe: "one of concepts.fit"}
RESULT = "result.json"
_FILES = (CONFIG, DATA, RESULT, CHECKPOINT, NETWORK)
# The format of a file of `deploy.save`; nothing here imports `deploy`.
_PACKED = "htaf-snn packed network"


def device_of(name: str) -> torch.device:
    """Return the device of "auto", "cpu" or "cuda"; raise ValueError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected a usable GPU for 'cuda', got none; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def read_config(out: str | PathLike, expected: Any = None) -> Any:
    """Return the configuration of the run in a folder.

    Args:
        out: folder of a run.
        expected: the kind of its configuration; None for any.

    Returns:
        A `configuration.Run`, `ConceptRun` or, if `concepts.fit` wrote the folder, `ConceptRecipe`.

    Raises:
        FileNotFoundError: if there is none.
        NotADirectoryError: if `out` is a file.
        ValueError: if `config.json` is damaged or lacks a setting, or is of another kind.

    Example:
        >>> import tempfile
        >>> from htaf_snn.training import Run, train
        >>> run = Run(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(run, folder, progress=False)
        ...     read_config(folder) == run
        True
    """
    path = Path(out, CONFIG)
    if Path(out).is_file():
        raise NotADirectoryError(f"{out}: expected the folder of a run, got a file{_use_of_file(Path(out))}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the configuration of a run, got no file{_use_of_folder(Path(out))}")
    try:
        values = json.loads(path.read_text())
        kind = Run if "model" in values else ConceptRun if "n_concepts" in values else ConceptRecipe
        missing = {field.name for field in fields(kind)} - values.keys()
        config = None if missing else kind(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected a configuration written by htaf-snn, got {error!r}") from error
    if kind is not (expected or kind):
        raise ValueError(f"{path}: expected {_WRITERS[expected]}, got {_WRITERS[kind]}")
    if missing:
        raise ValueError(f"{path}: expected a configuration with {min(missing)!r}, got none")
    return config


def _use_of_file(path: Path) -> str:
    """Return how a file that was taken for the folder of a run is meant to be used, if that can be told."""
    from safetensors import SafetensorError, safe_open

    if path.name in _FILES:
        return f"; pass its folder, {path.parent}"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError):
        return ""
    return "; a packed network is loaded by deploy.load" if metadata.get("format") == _PACKED else ""


def _use_of_folder(out: Path) -> str:
    """Return what a folder without a configuration is, and how it is meant to be used, if that can be told."""
    if (out / "study.json").is_file():
        return "; this is a study of htaf-snn compare, which stores no networks: open it with compare.Study(out)"
    if (out / CHECKPOINT).is_file():
        return "; this is a folder of training.fit, which stores no configuration: use training.load(out, network)"
    return ""


def read_data(out: str | PathLike) -> dict[str, Any]:
    """Return what a run's `data.json` says of its training data.

    Raises:
        FileNotFoundError, ValueError: if the file is missing or damaged.
    """
    path = Path(out, DATA)
    if not path.is_file():
        folds = sorted(Path(out).glob("fold*"))
        hint = f"; load one of its folds, such as {folds[0]}" if folds else ""
        raise FileNotFoundError(f"{path}: expected what the run was trained on, got no file{hint}")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected a file written by htaf-snn, got {error!r}") from error


def check_folder(config: DataclassInstance, out: Path, resume: bool) -> None:
    """Raise ValueError unless the folder is new or empty or, to resume, has a run of the same settings."""
    if resume:
        check_same_run(config, read_config(out, type(config)))
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(
            f"out: expected a new or empty folder, got {out}, which has files; resume it, name "
            "another or, on the command line, add --force"
        )


def write_json(path: Path, values: dict) -> None:
    """Write indented JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def check_same_data(out: Path, data: dict) -> None:
    """Raise ValueError if the run in a folder was trained on other data than these, as `data.json` describes them."""
    before = read_data(out)
    for name, value in json.loads(json.dumps(data)).items():
        if name in before and before[name] != value:
            raise ValueError(f"{name}: expected {before[name]}, as in the run to resume, got {value}")


def check_same_run(config: DataclassInstance, before: DataclassInstance) -> None:
    """Raise ValueError if a setting differs from that of the run to resume, unless resuming may change it."""
    for field in fields(config):
        value, expected = getattr(config, field.name), getattr(before, field.name)
        if field.name in ("data_root", "download", "device", "log") or (field.name == "epochs" and value >= expected):
            continue
        if value != expected:
            raise ValueError(f"{field.name}: expected {expected!r}, as in the run to resume, got {value!r}")
