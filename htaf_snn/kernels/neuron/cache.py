"""Generated kernels kept on disk: tracing a neuron would import torch's compiler, which takes a second."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from platformdirs import user_cache_path

from ... import neurons
from ..._files import replacing
from .source import Source, Sources


@lru_cache(maxsize=1)
def _version() -> str:
    """Return a digest of what generates kernels: the files here and of the neurons, and torch, which differentiates."""
    folders = Path(__file__).parent, Path(neurons.__file__).parent
    texts = [path.read_bytes() for folder in folders for path in sorted(folder.glob("*.py"))]
    return hashlib.sha256(b"".join([*texts, torch.__version__.encode()])).hexdigest()


def cached_file(what: str) -> Path:
    """Return the file for kernels, by a text that says what they are generated from."""
    digest = hashlib.sha256(f"{_version()}{what}".encode()).hexdigest()[:32]
    return user_cache_path("htaf-snn") / "kernels" / f"{digest}.json"


def read_sources(file: Path) -> Sources | None:
    """Return the kernels in a file; None if there are none, or none that can be read."""
    try:
        found = json.loads(file.read_text())
        forward, backward = (
            Source(found[name]["text"], tuple(found[name]["arguments"])) for name in ("forward", "backward")
        )
        return Sources(forward, backward, found["saved"], found["keeps_input"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_sources(file: Path, sources: Sources) -> None:
    """Keep kernels in a file, if the folder can be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(asdict(sources)))
    except OSError:
        pass
