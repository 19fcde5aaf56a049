"""Other packages: which version is installed, and what to install where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from . import __version__

OWN = "htaf-snn"


def version_of(package: str) -> str:
    """Return the version of an installed package, this one's from its source.

    Raises:
        PackageNotFoundError: if it is not installed.

    Example:
        >>> from htaf_snn import __version__
        >>> version_of("htaf-snn") == __version__
        True
    """
    return __version__ if package == OWN else version(package)


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Within the block, the import of a missing package raises an error that names the extra to install.

    Raises:
        ImportError: in place of ModuleNotFoundError.

    Example:
        >>> with needs("onnx"):
        ...     import no_such_package
        Traceback (most recent call last):
        ImportError: no_such_package is not installed; pip install ".[onnx]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f'{error.name} is not installed; pip install ".[{extra}]"', name=error.name) from None
