"""The types of settings: what a count, a rate or a list of sizes may be."""

from __future__ import annotations

from typing import Annotated, Literal

from .checking import Valid, is_count, is_pair, within

Count = Annotated[int, Valid("an integer of at least 1", is_count)]
Sizes = tuple[int, ...]
# Not within the annotations, where a lambda would look names up in the class.
SIZES = Valid(
    "a list of one or more positive integers",
    lambda v: v is None or (isinstance(v, tuple) and v and all(map(is_count, v))),
)
MAYBE_COUNT = Valid("None or an integer of at least 1", lambda v: v is None or is_count(v))
MAYBE_POSITIVE = Valid("None or a number in (0, 1e6]", lambda v: v is None or within(0, 1e6, "(]").is_valid(v))
MAYBE_DECAY = Valid("None or a number in (0, 1)", lambda v: v is None or within(0, 1, "()").is_valid(v))
AUGMENTATIONS = ("flip", "shift", "cutout")
AUGMENT = Valid(
    f"none, one or more of {', '.join(AUGMENTATIONS)}",
    lambda v: isinstance(v, tuple) and set(v) <= set(AUGMENTATIONS) and len(set(v)) == len(v),
)
Positive = Annotated[float, within(0, 1e6, "(]")]
NotNegative = Annotated[float, within(0, 1e6)]
Seed = Annotated[int, Valid("an integer from 0 to 2^63 - 1", lambda v: type(v) is int and 0 <= v < 2**63)]
Resize = Annotated[
    int | tuple[int, int] | None,
    Valid("None, a side of at least 1 or (height, width)", lambda v: v is None or is_count(v) or is_pair(v)),
]
Folds = Annotated[int | None, Valid("None or an integer of at least 2", lambda v: v is None or (is_count(v) and v > 1))]
Schedule = Literal["constant", "cosine"]
AnnealOf = Literal["none", "hardness", "alpha", "width"]
Norm = Literal["auto", "batch", "none"]
Device = Literal["auto", "cpu", "cuda"]
Log = Literal["none", "tensorboard"]
Match = Literal["none", "peak", "half_width", "area"]
