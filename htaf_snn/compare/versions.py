"""The versions of what results depend on."""

import contextlib
from importlib.metadata import version

PACKAGES = ("htaf-snn", "torch", "snntorch", "norse", "spikingjelly", "sinabs", "numpy", "optuna")


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(ImportError):
            installed[package] = version(package)
    return installed
