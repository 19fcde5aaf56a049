"""SpikingJelly: its surrogates for comparisons, ours as its `surrogate_function`, its LIF as a peer in benchmarks."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from torch import Tensor, nn

from ..functional import spike
from ..surrogate import Surrogate

__all__ = ["FAULTS", "LIFOverTime", "SurrogateFunction", "is_installed", "library_surrogate", "surrogate_names"]

FAULTS = {
    "super_spike": "alpha sets the height only, the width is fixed",
    "erf": "peak 1.128 at the default, not 1 as its documentation says",
    "piecewise_exp": "peak 0.5 at the default, not 1 as its documentation says",
    "fake_numerical_gradient": "peak 0.3 at the default, not 1 as its documentation says",
}
"""What is known to be odd in SpikingJelly's surrogates, by name."""

# These give no surrogate gradient of a step: what passes is deterministic, random, or a count.
_NO_STEPS = ("DeterministicPass", "PoissonPass", "MultiLevelSpikeCount")


def is_installed() -> bool:
    """Whether SpikingJelly can be imported.

    Example:
        >>> usable = surrogate_names() if is_installed() else []
    """
    return find_spec("spikingjelly") is not None


def _classes() -> dict[str, type]:
    module = import_module("spikingjelly.activation_based.surrogate")
    return {
        _snake(name): cls
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, module.SurrogateFunctionBase)
        if cls is not module.SurrogateFunctionBase and name not in _NO_STEPS
    }


def _snake(name: str) -> str:
    """ "PiecewiseQuadratic" to "piecewise_quadratic", "ATan" to "atan", "S2NN" to "s2nn"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def surrogate_names() -> list[str]:
    """The names that `library_surrogate` accepts, sorted.

    Raises:
        ImportError: if SpikingJelly is not installed.

    Example:
        >>> if is_installed():
        ...     assert {"atan", "sigmoid", "super_spike"} <= set(surrogate_names())
    """
    return sorted(_classes())


def library_surrogate(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """One of SpikingJelly's own surrogates, exactly as SpikingJelly computes it: a spike is x >= 0.

    Args:
        name: of a class in `spikingjelly.activation_based.surrogate`, in lower case with underscores, such as "atan".
        **parameters: as the class takes them.

    Returns:
        A module from a floating-point tensor to spikes of its shape.

    Raises:
        ImportError: if SpikingJelly is not installed.
        ValueError: if there is no such class (the message lists them), or it does not take the parameters.

    Example:
        >>> import torch
        >>> if is_installed():
        ...     step = library_surrogate("atan", alpha=2.0)
        ...     assert step(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0.0, 1.0, 1.0]
    """
    classes = _classes()
    if name not in classes:
        raise ValueError(f"unknown surrogate 'spikingjelly.{name}'; expected one of: {', '.join(sorted(classes))}")
    try:
        return classes[name](**parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"surrogate 'spikingjelly.{name}': {error}") from error


class SurrogateFunction(nn.Module):
    """A surrogate of this package as the `surrogate_function` of SpikingJelly's neurons.

    The gradient is the surrogate's; a spike is x >= 0, SpikingJelly's convention, where this package's is x > 0.
    SpikingJelly's LIF and IF neurons replace it by a step without gradient in eval mode, as they do with their own.

    Args:
        surrogate: such as `htaf_snn.HTAF()`.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Raises:
        TypeError: if it is no surrogate of this package.

    Example:
        >>> import torch
        >>> from htaf_snn import HTAF
        >>> SurrogateFunction(HTAF())(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 1., 1.])
    """

    def __init__(self, surrogate: Surrogate):
        super().__init__()
        if not isinstance(surrogate, Surrogate):
            raise TypeError(f"surrogate: expected a surrogate of htaf_snn, got {type(surrogate).__name__}")
        self.surrogate = surrogate
        self.spiking = surrogate.mode == "spike"

    def set_spiking_mode(self, spiking: bool) -> None:
        """SpikingJelly's switch between the step and the smooth primitive."""
        self.spiking = spiking
        self.surrogate.mode = "spike" if spiking else "smooth"

    def forward(self, x: Tensor) -> Tensor:
        if not self.spiking:
            return self.surrogate(x)
        # At 0 alone the two conventions differ; what is added there has no gradient.
        return spike(x, self.surrogate) + (x.detach() == 0).to(x.dtype)


class LIFOverTime(nn.Module):
    """SpikingJelly's multi-step `LIFNode`, from rest, with its own surrogate.

    Args:
        backend: "torch", "triton" or "cupy", SpikingJelly's.

    Shape:
        currents (T, B, *features) to spikes of the same shape.

    Raises:
        ImportError: if SpikingJelly is not installed.

    Example:
        >>> import torch
        >>> if is_installed():
        ...     spikes = LIFOverTime()(torch.ones(5, 2, 3))
        ...     assert spikes.shape == (5, 2, 3)
    """

    def __init__(self, backend: str = "torch"):
        super().__init__()
        self.lif = import_module("spikingjelly.activation_based.neuron").LIFNode(step_mode="m")
        self.lif.backend = backend

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset()
        return self.lif(currents)
