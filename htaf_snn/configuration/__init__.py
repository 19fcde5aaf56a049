"""The configuration of a run: its data, its network and its recipe.

The fields are at once the options of the commands, the keys of configuration files and of a run's `config.json`, and
what a study varies. Nothing here imports torch, so that a command shows its help at once.
"""

from .checking import constraints, is_count, is_number, require
from .fields import AUGMENTATIONS, AnnealOf, Match
from .files import read_file
from .run import (
    BINARY,
    DEEP,
    MODELS,
    NEURONS,
    OFFLINE,
    SHALLOW,
    SPIKING,
    ConceptRecipe,
    ConceptRun,
    Data,
    Network,
    Recipe,
    Recordings,
    Run,
    freed,
)
from .study import AXES, SHARED, Shared, StudySettings

__all__ = [
    "AUGMENTATIONS",
    "AXES",
    "BINARY",
    "DEEP",
    "MODELS",
    "NEURONS",
    "OFFLINE",
    "SHALLOW",
    "SHARED",
    "SPIKING",
    "AnnealOf",
    "ConceptRecipe",
    "ConceptRun",
    "Data",
    "Match",
    "Network",
    "Recipe",
    "Recordings",
    "Run",
    "Shared",
    "StudySettings",
    "constraints",
    "freed",
    "is_count",
    "is_number",
    "read_file",
    "require",
]
