"""Small spiking networks for event frames, for the neurons of any library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from ._chain import check_sizes

__all__ = ["SpikingCNN", "SpikingMLP"]


class _SpikingNet(nn.Module):
    """Stateless layers, applied to all time steps at once, alternating with neurons, which go through time."""

    def __init__(self, layers: Sequence[nn.Module], neurons: Sequence[nn.Module], readout: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.neurons = nn.ModuleList(neurons)
        self.readout = readout

    def forward(self, frames: Tensor) -> Tensor:
        x = frames
        for layer, neuron in zip(self.layers, self.neurons, strict=True):
            x = neuron(layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return self.readout(x.mean(0))


class SpikingMLP(_SpikingNet):
    """Fully connected spiking network.

    Args:
        in_features: number of values in a frame, C * H * W.
        hidden: neurons in each hidden layer.
        classes: number of classes.
        neuron: makes a spiking layer: a module that maps currents of shape (T, B, *features) to spikes of that shape.

    Shape:
        frames (T, B, *features) to class scores (B, classes): a linear map of the last layer's spike rates.

    Raises:
        ValueError: if hidden has no sizes, or one below 1.

    Example:
        >>> import torch
        >>> net = SpikingMLP(2 * 34 * 34, [20, 20], 10, neuron=nn.Identity)
        >>> net(torch.zeros(5, 3, 2, 34, 34)).shape
        torch.Size([3, 10])
    """

    def __init__(self, in_features: int, hidden: Sequence[int], classes: int, neuron: Callable[[], nn.Module]):
        check_sizes(hidden)
        sizes = [in_features, *hidden]
        linear = [nn.Linear(a, b) for a, b in pairwise(sizes)]
        first, *rest = linear
        super().__init__(
            [nn.Sequential(nn.Flatten(), first), *rest], [neuron() for _ in hidden], nn.Linear(sizes[-1], classes)
        )


class SpikingCNN(_SpikingNet):
    """Convolutional spiking network: 5x5 convolutions, each followed by neurons, halving the resolution.

    Args:
        in_shape: (C, H, W) of a frame.
        channels: output channels of each convolution.
        classes: number of classes.
        neuron: as in `SpikingMLP`.

    Shape:
        frames (T, B, C, H, W) to class scores (B, classes).

    Raises:
        ValueError: if there are no channels, or fewer than 1.

    Example:
        >>> import torch
        >>> net = SpikingCNN((2, 34, 34), [4, 8], 10, neuron=nn.Identity)
        >>> net(torch.zeros(5, 3, 2, 34, 34)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self, in_shape: tuple[int, int, int], channels: Sequence[int], classes: int, neuron: Callable[[], nn.Module]
    ):
        check_sizes(channels)
        widths = [in_shape[0], *channels]
        height, width = in_shape[1:]
        for _ in channels:
            height, width = (height + 1) // 2, (width + 1) // 2
        super().__init__(
            [nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairwise(widths)],
            [neuron() for _ in channels],
            nn.Sequential(nn.Flatten(), nn.Linear(widths[-1] * height * width, classes)),
        )
