"""Other packages: which version is installed, and what to install where one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """Return the version of a package, "" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Within the block, the import of a missing package raises an ImportError that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f'{error.name} is not installed; pip install ".[{extra}]"', name=error.name) from None
