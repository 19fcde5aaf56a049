"""Studies that the field asks for, as settings to start from; each is a TOML file here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from ..._checks import check_choice

_FILES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.toml"))}
PRESETS = tuple(_FILES)
"""The names of the presets."""


def preset(name: str) -> dict[str, Any]:
    """Return the settings of a preset, for `Settings.of` and `Study`, where others may replace some of them.

    Args:
        name: one of `PRESETS`: "depth", how surrogates cope with depth; "neuron", which neuron, with
            HTAF; "zenke-vogels-2021", shape, scale and learning rate on random manifolds.

    Raises:
        ValueError: if there is no such preset.

    Example:
        >>> settings = preset("neuron") | {"seeds": 3}
        >>> len(settings["axis"]["neuron"]), settings["surrogates"]
        (6, ['htaf'])
    """
    check_choice("preset", name, PRESETS)
    return tomllib.loads(_FILES[name].read_text())
