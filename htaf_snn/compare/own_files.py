"""Surrogates of a study that a user's own code registers: other processes have to know them, and none may change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..surrogate import specifications
from .entries import Entry
from .settings import Settings
from .trial import TWIN

_NAMES = ("surrogate", "weight_surrogate", "reference")


def check_known_elsewhere(settings: Settings) -> None:
    """Raise ValueError if workers would not know a surrogate of the study."""
    for specification in _specifications(one.config() for one in settings.trials()):
        specifications.check_known_elsewhere(specification)


def digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Return digits that identify the files of a trial's surrogates, as this process imports them, by their names."""
    found: dict[str, str] = {}
    for specification in _specifications([config]):
        found |= specifications.digests(specification)
    return found


def check_unchanged(settings: Settings, entries: Iterable[Entry]) -> None:
    """Raise ValueError if a file of the study's surrogates is not as trials in the database had it."""
    now: dict[str, str] = {}
    for specification in _specifications(one.config() for one in settings.trials()):
        now |= specifications.digests(specification, imported=False)
    for entry in entries:
        before = entry.stored.get("versions", {}) if entry.state != "failed" else {}
        for name in now.keys() & before.keys():
            if now[name] != before[name]:
                raise ValueError(
                    f"surrogates: expected {name} as when the study began, got a changed file; begin another study in "
                    "another folder"
                )


def _specifications(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the surrogates of trials, each once."""
    return [*dict.fromkeys(config[name] for config in configs for name in _NAMES if config[name] != TWIN)]
