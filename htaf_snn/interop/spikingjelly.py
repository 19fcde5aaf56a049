"""SpikingJelly: the surrogates of this package as its `surrogate_function`; its LIF as a peer in benchmarks."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from torch import Tensor, nn

from ..surrogate import Surrogate

__all__ = ["LIFOverTime", "SurrogateFunction", "is_installed"]


def is_installed() -> bool:
    """Whether SpikingJelly can be imported.

    Example:
        >>> spikes = LIFOverTime() if is_installed() else None
    """
    return find_spec("spikingjelly") is not None


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
        self.spiking = surrogate.hardness == 1

    def set_spiking_mode(self, spiking: bool) -> None:
        """SpikingJelly's switch between the step and the smooth primitive."""
        self.spiking = spiking
        self.surrogate.hardness = float(spiking)

    def forward(self, x: Tensor) -> Tensor:
        if not self.spiking:
            return self.surrogate(x)
        # At 0 alone the two conventions differ; what is added there has no gradient.
        return self.surrogate.at_hardness(1.0, x) + (x.detach() == 0).to(x.dtype)


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
