"""Writing files so that nothing half-written stays on disk."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block: it could strike between two lines and leave the temporary file."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    struck = []
    before = signal.signal(signal.SIGINT, lambda *event: struck.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if struck and callable(before):
            before(*struck[0])


@contextmanager
def replacing(path: str | PathLike) -> Iterator[Path]:
    """A temporary path in the same folder, with the same ending, that replaces `path` when the block succeeds."""
    with _uninterrupted(), _temporary(Path(path)) as temporary:
        yield temporary


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected the path of a file, got a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected an existing folder for the file, there is no {path.parent}")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
