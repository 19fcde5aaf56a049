"""The command `htaf-snn`. Torch is imported only when a command runs, so that help comes at once."""

# Importing a module adds its commands, in the order of this line on the help page.
from . import train, use, measure, compare, event_data  # noqa: F401, I001
from ._app import main

__all__ = ["main"]
