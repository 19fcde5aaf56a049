"""The axes of a study: fields of a run of which it takes several values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from .._hints import did_you_mean
from ..configuration import AXES, Run, Shared, StudySettings, is_count, require
from ..configuration.checking import float_fields
from ..surrogate.specifications import sorted_parameters, without_folder

_OTHERWISE = {"lr": "lrs", "slope": "slopes", "depth": "depths", "surrogate": "surrogates"}
"""What a study takes several values of by another setting."""
_NEURONS = "neuron=leaky(beta=0.9,threshold=0.5),leaky(beta=0.9,threshold=1)"


def checked(axis: Mapping[str, tuple], shared: Shared, width: int) -> dict[str, tuple]:
    """Return axes in the order of the fields, their values in one form, so that equal studies have equal names.

    Raises:
        ValueError: unless each is a field that can be one, is not set otherwise, and has different, valid values.
    """
    axis = {name: tuple(map(_normal, values)) for name, values in axis.items()}
    now, default = vars(shared) | {"width": width}, vars(Shared(model=shared.model)) | {"width": StudySettings.width}
    for name, values in axis.items():
        if name in _OTHERWISE:
            raise ValueError(f"axis: expected no {name}, which other settings vary; use --{_OTHERWISE[name]}")
        if name not in AXES:
            known = f"one of {', '.join(AXES)}"
            hint = did_you_mean(name, known) or f"; parameters stand with their neuron, such as {_NEURONS}"
            raise ValueError(f"axis: expected {known}, got {name!r}{hint}")
        if now[name] != default[name]:
            raise ValueError(f"axis: expected {name} only here or only by itself, got both")
        if len({*map(_named, values)}) < len(values):
            raise ValueError(f"axis: expected different values of {name}, got {list(values)}")
        for value in values:
            _check(shared, name, value)
    plain = {name: axis[name] for name in AXES if name in axis}
    for name in plain.keys() & {*float_fields(Run)}:
        plain[name] = tuple(float(value) if type(value) is int else value for value in plain[name])
    return plain


def _normal(value: Any) -> Any:
    return sorted_parameters(value) if isinstance(value, str) else value


def _check(shared: Shared, name: str, value: Any) -> None:
    try:
        if name == "width":
            require(name, value, "an integer >= 1", is_count)
        else:
            replace(shared, **{name: value})
    except ValueError as error:
        raise ValueError(f"axis: {error}") from None


def named(axis: Mapping[str, tuple]) -> dict[str, dict[str, Any]]:
    """Return the combinations of the axes' values by their names; of no axes one, the empty name.

    Example:
        >>> named({"n_time_bins": (5, 10)})
        {'n_time_bins=5': {'n_time_bins': 5}, 'n_time_bins=10': {'n_time_bins': 10}}
    """
    combined = (dict(zip(axis, values, strict=True)) for values in product(*axis.values()))
    return {", ".join(f"{name}={_named(value)}" for name, value in own.items()): own for own in combined}


def _named(value: Any) -> str:
    return without_folder(str(value))
