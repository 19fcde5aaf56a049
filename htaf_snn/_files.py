"""Atomic writing of files, new folders, and blocks that no signal interrupts."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any


@contextmanager
def uninterrupted(*numbers: int) -> Iterator[Callable[[], None]]:
    """Defer these signals to the end of the block, or until the function that the block is given is called."""
    handlers: dict[int, Any] = {}
    pending: list[int] = []

    def allow() -> None:
        while handlers:
            signal.signal(*handlers.popitem())
        while pending:
            signal.raise_signal(pending.pop())

    if threading.current_thread() is threading.main_thread():  # only there Python runs handlers
        for number in numbers:
            handlers[number] = signal.signal(number, lambda number, frame: pending.append(number))
    try:
        yield allow
    finally:
        allow()


@contextmanager
def replacing(path: str | PathLike) -> Iterator[Path]:
    """Yield a temporary path in the same folder, with the same suffix, that replaces `path` if the block succeeds."""
    # Between two lines Ctrl-C could leave the temporary file behind.
    with uninterrupted(signal.SIGINT), _temporary(Path(path)) as temporary:
        yield temporary


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file, got a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: expected an existing folder, got {path.parent}, which does not exist")
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
            with suppress(OSError):  # it has files
                folder.rmdir()


@contextmanager
def unique_folder(out: Path) -> Iterator[Path]:
    """Create a folder of that name, or the first free one of NAME-2, NAME-3, …; remove it if it stays empty."""
    with new_folder(out.parent):
        folder, number = out, 1
        while True:
            try:
                folder.mkdir()
                break
            except FileNotFoundError:  # another process has just removed the parent, which was empty
                out.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:
                number += 1
                folder = out.with_name(f"{out.name}-{number}")
        try:
            yield folder
        finally:
            with suppress(OSError):  # it has files
                folder.rmdir()
