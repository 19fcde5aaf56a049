"""The command `htaf-snn`."""

# Importing a module adds its commands, in the order of this line on the help page.
from . import train, measure, icbm, compare, event_data  # noqa: F401, I001
from ._app import app, main

__all__ = ["app", "main"]
