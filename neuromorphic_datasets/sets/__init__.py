"""The published data sets, one file each: what it is, where its files are, and how it is read.

URLs, checksums and layouts are those of Tonic 1.7, or as a file says.
"""

from importlib import import_module
from pkgutil import iter_modules

from ._info import Info

__all__ = ["SETS", "Info"]

_FILES = [import_module(f".{file.name}", __name__) for file in iter_modules(__path__) if not file.name.startswith("_")]
SETS: dict[str, Info] = {file.INFO.name: file.INFO for file in _FILES}
"""Every data set by name."""
