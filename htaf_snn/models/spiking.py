"""Small spiking networks for event frames, for the neurons of any library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import nn as hnn
from .._checks import check_floating
from ..nn._batches import mean_over_time
from ..nn.events import EventLinear
from ._chain import add_identity, check_counts, check_shape, check_sizes, check_start
from .neurons import Alone, over_time


class SpikingNet(nn.Module):
    """The base class of spiking networks: features of every time step, and a linear readout of their mean.

    Attributes:
        frame_shape: (T, C, H, W) of the training frames, as `training.load` sets it; frames of another (C, H, W) are
            then refused, and so are those whose second size is T while their first is not, as they look batch-first.
            Other numbers of time steps are accepted. None before; set it to None to try other frames.
        readout: a linear map of features.

    Shape:
        frames (T, B, C, H, W), and optionally lengths (B,), 0 to T, to class scores (B, n_classes): the readout of the
        mean features over each sample's first `lengths` time steps. On a GPU lengths are not checked: where one is out
        of range, the scores are NaN.

    Raises:
        ValueError: in the forward pass, if the frames do not fit `frame_shape`, a length is out of range, or lengths
            are passed and there is BatchNorm, which would count time steps beyond them.
        TypeError: in the forward pass, if the frames are not floating-point.

    Example:
        >>> import torch
        >>> net, frames = SpikingMLP(4, [8], 3, lambda: hnn.Leaky(beta=0.9)), torch.rand(6, 2, 4)
        >>> first, state = net.stream(frames[:2])
        >>> rest, state = net.stream(frames[2:], state)
        >>> torch.allclose(torch.cat([first, rest]).mean(0), net(frames), atol=1e-6), len(net.neurons)
        (True, 1)
    """

    frame_shape: tuple[int, ...] | None = None
    readout: nn.Module
    # The spiking neurons, from the first layer to the last.
    neurons: Sequence[nn.Module]

    def features(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the features (T, B, *features), and the state, given that of the part before or None."""
        raise NotImplementedError

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        self._check(frames)
        if lengths is not None:
            self.check_lengths(lengths, frames)
        x, _ = self.features(frames)
        return self.readout(mean_over_time(x, lengths))

    def stream(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the class scores of every time step (T, B, n_classes), and the state to go on from.

        The mean of the scores over all time steps is what the forward pass returns, within rounding.

        Args:
            frames: a part of a sequence, as for the forward pass.
            state: what the call for the part before has returned; at rest by default. For truncated backpropagation
                through time pass `hnn.detached(state)`.

        Raises:
            TypeError, ValueError: as in the forward pass; TypeError also for neurons that start from rest in each call.
        """
        self._check(frames, is_whole=False)
        for neuron in self.neurons:
            if isinstance(neuron, Alone) and not neuron.streams:
                got = type(neuron.module).__name__
                raise TypeError(f"neuron: expected one that takes and returns its state, such as hnn.Leaky, got {got}")
        x, state = self.features(frames, state)
        return self.readout(x.flatten(0, 1)).unflatten(0, x.shape[:2]), state

    def check_lengths(self, lengths: Tensor, frames: Tensor) -> None:
        """Raise ValueError unless lengths (B,) fit frames (T, B, …) and the network, see the class."""
        steps, batch = frames.shape[:2]
        if any(isinstance(module, _BatchNorm) for module in self.modules()):
            raise ValueError("lengths: expected none for a network with BatchNorm, which would count padding")
        whole = not lengths.is_floating_point() and lengths.dtype != torch.bool
        if not whole or lengths.shape != (batch,):
            raise ValueError(f"lengths: expected integers ({batch},), got {lengths.dtype} {tuple(lengths.shape)}")
        if batch and lengths.device.type == "cpu" and not 0 <= lengths.min() <= lengths.max() <= steps:
            raise ValueError(f"lengths: expected 0 to {steps} steps, got {lengths.min()} to {lengths.max()}")

    def _check(self, frames: Tensor, is_whole: bool = True) -> None:
        check_frames(frames, self.frame_shape, is_whole)


def check_frames(frames: Tensor, frame_shape: Sequence[int] | None, is_whole: bool = True) -> None:
    """Raise TypeError or ValueError unless frames are floating-point, and fit those of the training (T, C, H, W).

    A part of a sequence, where `is_whole` is false, may have as many samples as the whole has time steps.
    """
    check_floating("frames", frames, is_image=False)
    if frame_shape is None:
        return
    steps, *frame = frame_shape
    swapped = is_whole and frames.ndim > 1 and frames.shape[1] == steps != frames.shape[0]
    if swapped or list(frames.shape[2:]) != frame:
        remedy = f"; with {steps} time steps second it looks batch-first: frames.transpose(0, 1)" if swapped else ""
        expected = ", ".join(map(str, ("T", "B", *frame)))
        raise ValueError(f"frames: expected (T, B, C, H, W) = ({expected}), got {tuple(frames.shape)}{remedy}")


def new_neurons(make: Callable[[], nn.Module], count: int) -> list[hnn.OverTime]:
    """Return neurons made by a user's function; TypeError if it makes none."""
    if isinstance(make, nn.Module) or not callable(make):
        got = type(make).__name__ if isinstance(make, nn.Module) else repr(make)
        raise TypeError(f"neuron: expected a function that makes a spiking layer, such as lambda: …, got {got}")
    neurons = [make() for _ in range(count)]
    if not isinstance(neurons[0], nn.Module):
        raise TypeError(f"neuron: expected a function that makes a module, got one that makes {neurons[0]!r}")
    return [over_time(neuron) for neuron in neurons]


class Layered(SpikingNet):
    """Stateless layers, applied to all time steps at once, alternating with neurons, which go through time."""

    def __init__(self, layers: Sequence[nn.Module], neurons: Sequence[nn.Module], readout: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.neurons = nn.ModuleList(neurons)  # type: ignore[assignment]  # a sequence of modules
        self.readout = readout

    def features(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x, after = frames, []
        before = [None] * len(self.neurons) if state is None else state
        for layer, neuron, start in zip(self.layers, self.neurons, before, strict=True):
            x, last = neuron(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]), start)
            after.append(last)
        return x, after


class SpikingMLP(Layered):
    """Fully connected spiking network.

    Args:
        in_features: values in a frame, C * H * W.
        hidden: neurons in each hidden layer.
        n_classes: number of classes.
        neuron: makes a spiking layer: of `htaf_snn.nn`, such as ``lambda: hnn.Leaky(beta=0.9)``, of snnTorch or Norse,
            or any module from currents of shape (T, B, *features) to spikes of that shape.
        norm: "batch" for BatchNorm of every neuron's current over samples and time steps, or "none".
        identity: as in `DeepHeavisideNet`.

    Shape:
        As `SpikingNet`, from frames (T, B, *features).

    Raises:
        ValueError: if a size is no integer of at least 1 or `hidden` has none, the norm is unknown, or `identity` is
            negative, and as `SpikingNet`.
        TypeError: if `neuron` makes no module, and as `SpikingNet`.

    Example:
        >>> import torch
        >>> net = SpikingMLP(2 * 34 * 34, [20, 20], 10, neuron=nn.Identity)
        >>> net(torch.zeros(5, 3, 2, 34, 34)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        n_classes: int,
        neuron: Callable[[], nn.Module],
        *,
        norm: str = "none",
        identity: float = 0.0,
    ):
        check_counts(in_features=in_features, n_classes=n_classes)
        check_sizes(hidden=hidden)
        check_start(norm, identity)
        sizes = [in_features, *hidden]
        # The first layer sees events, few in a frame.
        kinds = [EventLinear, *[nn.Linear] * (len(hidden) - 1)]
        pairs = zip(kinds, pairwise(sizes), strict=True)
        first, *rest = [kind(a, b, bias=norm == "none") for kind, (a, b) in pairs]
        rest = [add_identity(layer, identity) for layer in rest]
        layers: list[nn.Module] = [nn.Sequential(nn.Flatten(), first), *rest]
        if norm == "batch":
            layers = [nn.Sequential(layer, nn.BatchNorm1d(size)) for layer, size in zip(layers, hidden, strict=True)]
        super().__init__(layers, new_neurons(neuron, len(hidden)), nn.Linear(sizes[-1], n_classes))


class SpikingCNN(Layered):
    """Convolutional spiking network: 5x5 convolutions, each followed by neurons, halving the resolution.

    Args:
        in_shape: (C, H, W) of a frame.
        channels: output channels of each convolution.
        n_classes: number of classes.
        neuron: as in `SpikingMLP`.

    Shape:
        As `SpikingNet`.

    Raises:
        TypeError, ValueError: as `SpikingMLP`; ValueError if `in_shape` is of another form.

    Example:
        >>> import torch
        >>> net = SpikingCNN((2, 34, 34), [4, 8], 10, neuron=nn.Identity)
        >>> net(torch.zeros(5, 3, 2, 34, 34)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self, in_shape: tuple[int, int, int], channels: Sequence[int], n_classes: int, neuron: Callable[[], nn.Module]
    ):
        check_shape(in_shape)
        check_sizes(channels=channels)
        check_counts(n_classes=n_classes)
        widths = [in_shape[0], *channels]
        height, width = in_shape[1:]
        for _ in channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        super().__init__(
            [nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairwise(widths)],
            new_neurons(neuron, len(channels)),
            nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * height * width, n_classes)),
        )
