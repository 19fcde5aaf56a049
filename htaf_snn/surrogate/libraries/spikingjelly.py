"""SpikingJelly's own surrogates; a spike is x >= 0."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module

from torch import Tensor

FAULTS = {
    "super_spike": "alpha sets the height only, the width is fixed",
    "erf": "peak 1.128 at the default, not 1 as its documentation says",
    "piecewise_exp": "peak 0.5 at the default, not 1 as its documentation says",
    "fake_numerical_gradient": "peak 0.3 at the default, not 1 as its documentation says",
}
"""Known faults of SpikingJelly's surrogates, by name."""

COUNTERPARTS = {
    "atan": "atan",
    "erf": "erfc",
    "piecewise_exp": "piecewise_exp",
    "piecewise_quadratic": "triangle",
    "rect": "rectangle",
    "sigmoid": "sigmoid",
    "soft_sign": "fast_sigmoid",
    "super_spike": "fast_sigmoid",
}
"""The surrogate of this package that has the shape which each has, or is documented to have."""

# These are no surrogates of the step: they pass values on, deterministically, at random, or as counts.
_NO_SURROGATES = ("DeterministicPass", "PoissonPass", "MultiLevelSpikeCount")


def _classes() -> dict[str, type]:
    module = import_module("spikingjelly.activation_based.surrogate")
    return {
        _snake_case(name): cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, module.SurrogateFunctionBase)
        if cls is not module.SurrogateFunctionBase and name not in _NO_SURROGATES
    }


def _snake_case(name: str) -> str:
    """Turn "PiecewiseQuadratic" into "piecewise_quadratic", "ATan" into "atan", "S2NN" into "s2nn"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def names() -> list[str]:
    """Return the classes of `spikingjelly.activation_based.surrogate`, in lower case with underscores."""
    return sorted(_classes())


def make(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """Make an instance with the parameters of its class."""
    return _classes()[name](**parameters)
