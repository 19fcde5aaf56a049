"""The versions of what results depend on."""

import contextlib
from importlib.metadata import PackageNotFoundError

from .._packages import OWN, version_of

PACKAGES = (OWN, "torch", "snntorch", "norse", "spikingjelly", "sinabs", "numpy", "optuna")


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that results depend on."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version_of(package)
    return installed
