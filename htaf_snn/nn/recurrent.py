"""Recurrent neurons over sequences as layers: their output returns to them through weights, one time step later."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import functional
from ..functional import sequences
from ..neurons import NEURONS
from .spiking import InSnnTorchsWords, NeuronLayer


class RecurrentLayer(NeuronLayer):
    """Recurrent neurons of one kind over a sequence; the base class of all their layers.

    As `NeuronLayer`, with a state that begins with z, the output of the time step before.

    Example:
        >>> layer = RLeaky(0.9, linear_features=3)
        >>> spikes, state = layer(torch.ones(5, 2, 3))
        >>> isinstance(layer, RecurrentLayer), state._fields
        (True, ('z', 'v'))
    """

    _is_recurrent = True

    def weights(self) -> sequences.Recurrent:
        """Return the weights through which the output returns, as `htaf_snn.functional.run_recurrent` takes them."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: sequences.State | None = None) -> tuple[Tensor, sequences.State]:
        return functional.run_recurrent(self.definition, x, self.weights(), state=state, **self.arguments())


class OneToOne(nn.Module):
    """The weights V of neurons that feed themselves alone."""

    def __init__(self, V: float | Tensor):
        super().__init__()
        self.V = nn.Parameter(torch.as_tensor(V, dtype=torch.float32).detach().clone())

    def forward(self, spikes: Tensor) -> Tensor:
        return spikes * self.V


class _OfSnnTorch(InSnnTorchsWords, RecurrentLayer):
    """Recurrent layers that take their weights in snnTorch's words.

    Args:
        V: the weight of a neuron's own spikes where `all_to_all=False`, a number or a tensor.
        all_to_all: whether neurons feed each other.
        linear_features: the number of features, for a linear layer between them.
        conv2d_channels, kernel_size: for a convolution between them; the kernel's size is odd.
        learn_recurrent: whether the weights are trainable.
    """

    def __init__(
        self,
        *arguments: Any,
        V: float | Tensor = 1.0,
        all_to_all: bool = True,
        linear_features: int | None = None,
        conv2d_channels: int | None = None,
        kernel_size: int | tuple[int, int] | None = None,
        learn_recurrent: bool = True,
        **named: Any,
    ):
        super().__init__(*arguments, **named)
        given = {"linear_features": linear_features, "conv2d_channels": conv2d_channels, "kernel_size": kernel_size}
        found = [name for name, value in given.items() if value is not None]
        expected: tuple = (["linear_features"], ["conv2d_channels", "kernel_size"]) if all_to_all else ([],)
        if found not in expected:
            choices = "linear_features, or conv2d_channels and kernel_size" if all_to_all else "none of them, but V"
            raise TypeError(f"all_to_all={all_to_all}: expected {choices}, got {', '.join(found) or 'neither'}")
        if linear_features is not None:
            self.recurrent: nn.Module = nn.Linear(linear_features, linear_features)
        elif conv2d_channels is not None:
            self.recurrent = nn.Conv2d(conv2d_channels, conv2d_channels, kernel_size, padding=_half(kernel_size))  # type: ignore[arg-type]
        else:
            self.recurrent = OneToOne(V)
        self.recurrent.requires_grad_(learn_recurrent)

    def weights(self) -> sequences.Recurrent:
        return self.recurrent.V if isinstance(self.recurrent, OneToOne) else self.recurrent  # type: ignore[return-value]


def _half(size: int | tuple[int, int] | None) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else size
    if sizes is None or len(sizes) != 2 or any(n < 1 or n % 2 == 0 for n in sizes):
        raise ValueError(f"kernel_size: expected odd sizes, which keep the shape, got {size!r}")
    return sizes[0] // 2, sizes[1] // 2


class _OfNorse(RecurrentLayer):
    """Recurrent layers that hold the weights of their input too, as Norse's do.

    Args:
        input_size, hidden_size: features of the input and number of neurons.
        input_weights, recurrent_weights: (hidden_size, input_size) and (hidden_size, hidden_size); random by default.
        autapses: whether a neuron may feed itself; otherwise the diagonal of the recurrent weights counts as 0.
    """

    defaults: ClassVar = {"detach_reset": True}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *arguments: Any,
        input_weights: Tensor | None = None,
        recurrent_weights: Tensor | None = None,
        autapses: bool = False,
        **named: Any,
    ):
        super().__init__(*arguments, **named)
        self.input_weights = _weight("input_weights", input_weights, (hidden_size, input_size))
        self.recurrent_weights = _weight("recurrent_weights", recurrent_weights, (hidden_size, hidden_size))
        self.autapses = autapses

    def weights(self) -> sequences.Recurrent:
        weights: Tensor = self.recurrent_weights
        if not self.autapses:
            weights = weights * (1 - torch.eye(len(weights), dtype=weights.dtype, device=weights.device))
        return weights, None

    def forward(self, x: Tensor, state: sequences.State | None = None) -> tuple[Tensor, sequences.State]:
        return super().forward(nn.functional.linear(x, self.input_weights.to(x.dtype)), state)

    def extra_repr(self) -> str:
        hidden, size = self.input_weights.shape
        return f"input_size={size}, hidden_size={hidden}, autapses={self.autapses}, {super().extra_repr()}"


def _weight(name: str, given: Tensor | None, shape: tuple[int, int]) -> nn.Parameter:
    if given is None:
        return nn.Parameter(torch.randn(shape) * math.sqrt(2.0 / shape[0]))
    if given.shape != shape:
        raise ValueError(f"{name}: expected the shape {shape}, got {tuple(given.shape)}")
    return given if isinstance(given, nn.Parameter) else nn.Parameter(given.detach().clone())


class RLeaky(_OfSnnTorch):
    definition = NEURONS["rleaky"]


class RSynaptic(_OfSnnTorch):
    definition = NEURONS["rsynaptic"]


class IzhikevichRecurrent(_OfNorse):
    definition = NEURONS["izhikevich"]


class LIFRecurrent(_OfNorse):
    definition = NEURONS["lif"]


class LIFAdExRecurrent(_OfNorse):
    definition = NEURONS["lif_adex"]


class LIFAdExRefracRecurrent(_OfNorse):
    definition = NEURONS["lif_adex_refrac"]


class LIFExRecurrent(_OfNorse):
    definition = NEURONS["lif_ex"]


class LIFRefracRecurrent(_OfNorse):
    definition = NEURONS["lif_refrac"]


class LSNNRecurrent(_OfNorse):
    definition = NEURONS["lsnn"]
