"""A trial as the database of a study has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

# What may differ between the machines that share a study; the device changes results only by rounding.
ELSEWHERE = ("device", "data_root")


class Entry(NamedTuple):
    """A trial in the database.

    Attributes:
        number: of the entry.
        key: digits that identify the trial, see `key_of`.
        config: as `trial.Trial.config` gives it.
        state: waiting, running, finished, failed, or stopped by successive halving.
        stored: "versions" since a process took it; of a trial that ended also "result" and "finished", "error" and
            "traceback", or "epoch".
    """

    number: int
    key: str
    config: dict[str, Any]
    state: str
    stored: dict[str, Any]


def key_of(config: Mapping[str, Any]) -> str:
    """Return digits that identify the trial of a configuration, on whatever machine it runs."""
    named = ("variant", "place")  # what these name is among the other values
    identity = {name: value for name, value in config.items() if name not in (*ELSEWHERE, *named)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
