"""Several ways to compute the same: which is the quickest on this machine is measured when it is first needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
_TRIALS, _LONG = 3, 0.1
"""The most calls of a measurement, and the seconds after which there are no more."""


class Quickest:
    """Chooses among ways to compute the same, for each kind of input anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.chosen: dict[Hashable, int] = {}

    def __reduce__(self) -> tuple:
        return Quickest, ()  # a copy may run on another machine

    def __call__(self, key: Hashable, ways: Sequence[Callable[[], T]]) -> T:
        """Return the result of the quickest way.

        Args:
            key: what the times depend on.
            ways: functions that compute the same.
        """
        if key not in self.chosen:
            with self._lock:
                if key not in self.chosen:
                    times = [seconds(way) for way in ways]
                    self.chosen[key] = times.index(min(times))
        return ways[self.chosen[key]]()


def seconds(compute: Callable[[], Any]) -> float:
    """Return the time of the quickest of some calls, of one if it is long, after one that compiles."""
    compute()
    times: list[float] = []
    while len(times) < _TRIALS and sum(times) < _LONG:
        start = time.perf_counter()
        compute()
        times.append(time.perf_counter() - start)
    return min(times)
