"""SpikingJelly's own surrogates, by which x >= 0 is a spike."""

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

# These give no surrogate gradient of a step: they pass values on deterministically, randomly, or as counts.
_NO_STEPS = ("DeterministicPass", "PoissonPass", "MultiLevelSpikeCount")


def _classes() -> dict[str, type]:
    module = import_module("spikingjelly.activation_based.surrogate")
    return {
        _snake_case(name): cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, module.SurrogateFunctionBase)
        if cls is not module.SurrogateFunctionBase and name not in _NO_STEPS
    }


def _snake_case(name: str) -> str:
    """ "PiecewiseQuadratic" to "piecewise_quadratic", "ATan" to "atan", "S2NN" to "s2nn"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def names() -> list[str]:
    """Return the classes of `spikingjelly.activation_based.surrogate`, in lower case with underscores."""
    return sorted(_classes())


def make(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """Make an instance; parameters as the class takes them."""
    return _classes()[name](**parameters)
