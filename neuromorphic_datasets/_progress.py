"""Progress bars."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(*arguments: Any, **options: Any) -> tqdm:
    """Return tqdm's bar on standard error; where that is no terminal, such as in a log, one of few lines."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(*arguments, **{"mininterval": interval, "maxinterval": max(10.0, interval), **options})
