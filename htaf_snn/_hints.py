"""Hints at what a user may have meant."""

from __future__ import annotations

from difflib import get_close_matches


def did_you_mean(value: object, expected: str) -> str:
    """Return a hint at the one of the names after "one of" in a text that a value resembles, or an empty one."""
    choices = expected.partition("one of ")[2].split(", ")
    near = get_close_matches(value, choices, 1) if isinstance(value, str) else ()
    return f"; did you mean {near[0]}?" if near else ""
