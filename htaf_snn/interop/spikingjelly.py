"""SpikingJelly: surrogates as its `surrogate_function`; its LIF for comparison in benchmarks."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from ..surrogate import SurrogateLike, resolve


class SurrogateFunction(nn.Module):
    """A surrogate as the `surrogate_function` of SpikingJelly's neurons.

    The gradient is the surrogate's. At hardness 1 a spike is x >= 0, as SpikingJelly defines it, not x > 0 as here.
    In eval mode SpikingJelly's LIF and IF neurons put a step without gradient in its place, as they do with their own.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.

    Example:
        >>> import torch
        >>> SurrogateFunction("htaf")(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 1., 1.])
    """

    def __init__(self, surrogate: SurrogateLike):
        super().__init__()
        self.surrogate = resolve(surrogate)

    @property
    def spiking(self) -> bool:
        """Whether the output is spikes: at hardness 1."""
        return self.surrogate.hardness == 1

    def set_spiking_mode(self, spiking: bool) -> None:
        """Set the hardness to 1, or to 0 for the smooth step, as SpikingJelly's functions switch."""
        self.surrogate.hardness = float(spiking)

    def forward(self, x: Tensor) -> Tensor:
        y = self.surrogate(x)
        if not self.spiking:
            return y
        # The two conventions differ at 0 only; the spike that is added there has no gradient.
        return y + ((x == 0) & (y == 0)).to(x.dtype)


class LIFOverTime(nn.Module):
    """SpikingJelly's multi-step `LIFNode`, from rest, with its own surrogate, for benchmarks.

    SpikingJelly 2 chooses the implementation; on a GPU the variable SJ_LIF_CUDA_IMPLEMENTATION asks for one.

    Shape:
        currents (T, B, *features) to spikes of the same shape.
    """

    def __init__(self):
        super().__init__()
        self.lif = import_module("spikingjelly.activation_based.neuron").LIFNode(step_mode="m")

    def forward(self, currents: Tensor) -> Tensor:
        self.lif.reset()
        return self.lif(currents)


class ParametricLIFOverTime(nn.Module):
    """SpikingJelly's multi-step `ParametricLIFNode`, as `LIFOverTime`.

    Shape:
        currents (T, B, *features) to spikes of the same shape.
    """

    def __init__(self):
        super().__init__()
        self.node = import_module("spikingjelly.activation_based.neuron").ParametricLIFNode(step_mode="m")

    def forward(self, currents: Tensor) -> Tensor:
        self.node.reset()
        return self.node(currents)
