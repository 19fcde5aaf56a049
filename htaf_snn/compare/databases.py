"""Faults of a study's database, in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


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
