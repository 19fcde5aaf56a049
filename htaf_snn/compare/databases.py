"""Where a study's database is, and its faults in one line."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

STORAGE = ".storage"
"""The file in a study's folder with the URL of a database elsewhere."""


def storage_of(out: Path, storage: str | None) -> str:
    """Return the URL of a study's database: that given, or that which the folder was used with, or a file in it."""
    place = out / STORAGE
    return storage or (place.read_text() if place.is_file() else own_storage(out))


def own_storage(out: Path) -> str:
    """Return the URL of a file in a study's folder."""
    return f"sqlite:///{out.resolve() / 'study.db'}"


def keep_storage(out: Path, storage: str) -> None:
    """Leave the URL of a database elsewhere in a study's folder."""
    place = out / STORAGE
    if storage == own_storage(out) or (place.is_file() and place.read_text() == storage):
        return
    handle, temporary = tempfile.mkstemp(dir=out)  # for its owner alone, as a URL may have a password
    with open(handle, "w") as file:
        file.write(storage)
    os.replace(temporary, place)


@contextlib.contextmanager
def database_errors(url: str) -> Iterator[None]:
    """Report a damaged, locked or unreachable database in one line."""
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        yield
    except ImportError as error:
        remedy = '; pip install ".[postgres]"' if url.startswith("postgresql") else ""
        raise OSError(f"storage: the database {url} cannot be used: {error}{remedy}") from error
    except ArgumentError as error:
        expected = "a URL such as sqlite:////folder/study.db or postgresql+psycopg://host/name"
        raise ValueError(f"storage: expected {expected}, got {url!r}") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise OSError(f"storage: the database {url} cannot be used: {reason}") from error
