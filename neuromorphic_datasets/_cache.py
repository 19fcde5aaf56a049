"""Arrays that are made once and kept in one file, safe against crashes, damage and several processes."""

import hashlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np


def user_folder() -> Path:
    """Return this package's folder in the user's cache; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("neuromorphic_datasets", appauthor=False))


def load_or_build(path: Path, build: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays kept in `path`; build and keep them first if the file is missing or damaged.

    Of several processes that find no good file, one builds and the others wait for it.
    """
    from filelock import FileLock

    # Files appear only by renaming, so reading needs no lock.
    arrays = _read(path)
    if arrays is not None:
        return arrays
    if path.parent.exists() and not path.parent.is_dir():
        raise NotADirectoryError(f"root: expected a folder, came the file {path.parent}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        arrays = _read(path)
        if arrays is None:
            if path.exists():
                warnings.warn(f"{path} is damaged (its checksum is wrong) and is made anew", stacklevel=2)
            arrays = build()
            _write(path, arrays)
    return arrays


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays in `path`, or None if there is no file or its checksum does not match."""
    if not path.is_file():
        return None
    content = memoryview(path.read_bytes())
    size = hashlib.sha256().digest_size
    payload, checksum = content[:-size], content[-size:]
    if hashlib.sha256(payload).digest() != checksum:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
        return dict(archive)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and checksum so that `path` is at any moment absent, the old file or the whole new one."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    payload = buffer.getbuffer()
    # A fixed name: the caller holds the lock, and what a killed process left is overwritten.
    partial = path.with_name(f"{path.name}.part")
    try:
        with open(partial, "wb") as file:
            file.write(payload)
            file.write(hashlib.sha256(payload).digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
