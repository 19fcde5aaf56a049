"""Spiking networks of the sizes that the literature trains on event data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._checks import describe
from ._chain import check_counts, check_shape
from .neurons import Alone, NorseOverTime, SteppedNeuron
from .spiking import SpikingNet, new_neurons

NewNeuron = Callable[[], nn.Module]

_VGG11 = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")


class _Deep(SpikingNet):
    """A chain from frames to features, and a readout of their mean over time."""

    # Whether it takes frames of one height and width alone.
    _has_sides = False

    def __init__(self, in_shape: tuple[int, int, int], body: Sequence[nn.Module], readout: nn.Module):
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.body = hnn.Sequential(*body)
        self.readout = readout
        # In this format convolutions, BatchNorm and pooling are faster on a CPU, and all layers keep it.
        self.to(memory_format=torch.channels_last)

    @property
    def neurons(self) -> list[nn.Module]:  # type: ignore[override]  # found, not stored
        """The spiking neurons, from the first layer to the last."""
        return list(_neurons_in(self))

    def features(self, frames: Tensor, state: list | None = None) -> tuple[Tensor, list]:
        channels, *sides = self.in_shape
        if frames.ndim != 5 or frames.shape[2] != channels or (self._has_sides and list(frames.shape[3:]) != sides):
            expected = ", ".join(map(str, ("T", "B", channels, *(sides if self._has_sides else ("H", "W")))))
            raise ValueError(f"frames: expected shape ({expected}), got {describe(frames)}")
        rows = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.body.stream(rows.unflatten(0, frames.shape[:2]), state)


def _neurons_in(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        if isinstance(child, (hnn.NeuronLayer, SteppedNeuron, NorseOverTime, Alone)):
            yield child
        else:
            yield from _neurons_in(child)


class Voting(nn.Module):
    """The mean of each group of neurons, one group per class.

    Args:
        n_votes: neurons per class.

    Shape:
        (N, n_classes * n_votes) to (N, n_classes).

    Example:
        >>> import torch
        >>> Voting(2)(torch.tensor([[0.0, 1.0, 1.0, 1.0]]))
        tensor([[0.5000, 1.0000]])
    """

    def __init__(self, n_votes: int = 10):
        super().__init__()
        self.n_votes = n_votes

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (-1, self.n_votes)).mean(2)


class PLIFNet(_Deep):
    """The network for DVS128 Gesture: convolutions with pooling, two fully connected layers, and voting.

    Args:
        in_shape: (C, H, W) of a frame.
        n_classes: number of classes.
        neuron: as in `SpikingMLP`; in the paper `nn.ParametricLIF`.
        channels: of each convolution.
        n_blocks: convolutions, each of which halves the resolution; by default as many as leave 4 pixels a side, at
            most 5: the paper's number for 128 pixels. With fewer left, the layers after them hardly ever spike.
        n_hidden: neurons of the first fully connected layer.
        dropout: probability of the dropout before each fully connected layer, with one mask per sequence.

    Shape:
        As `SpikingNet`.

    Raises:
        ValueError: if a size is no integer of at least 1, or the frames are too small for the blocks.
        TypeError, ValueError: as `SpikingNet`.

    Reference:
        Fang et al. 2021, "Incorporating learnable membrane time constant to enhance learning of spiking neural
        networks", ICCV, arXiv 2007.05785.

    Example:
        >>> import torch
        >>> net = PLIFNet((2, 32, 32), 11, hnn.ParametricLIF, channels=8)
        >>> net(torch.zeros(4, 3, 2, 32, 32)).shape
        torch.Size([3, 11])
    """

    _has_sides = True

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        n_classes: int,
        neuron: NewNeuron,
        *,
        channels: int = 128,
        n_blocks: int | None = None,
        n_hidden: int = 512,
        dropout: float = 0.5,
    ):
        check_shape(in_shape)
        check_counts(n_classes=n_classes, channels=channels, n_hidden=n_hidden)
        width, (h, w) = in_shape[0], in_shape[1:]
        blocks = min(max(int(math.log2(max(min(h, w), 1) / 4)), 1), 5) if n_blocks is None else n_blocks
        check_counts(n_blocks=blocks)
        _check_sides(in_shape, 2**blocks)
        neurons = iter(new_neurons(neuron, blocks + 2))
        body: list[nn.Module] = []
        for _ in range(blocks):
            body += [*_conv(width, channels, 3), next(neurons), nn.MaxPool2d(2)]
            width = channels
        features = channels * (h >> blocks) * (w >> blocks)
        body += [nn.Flatten(), hnn.Dropout(dropout), nn.Linear(features, n_hidden), next(neurons)]
        body += [hnn.Dropout(dropout), nn.Linear(n_hidden, 10 * n_classes), next(neurons)]
        super().__init__(in_shape, body, Voting(10))


class SpikingVGG11(_Deep):
    """VGG-11 with BatchNorm and spiking neurons.

    Args:
        in_shape: (C, H, W) of a frame.
        n_classes: number of classes.
        neuron: as in `SpikingMLP`.
        pool: sides to which the last frames are averaged before the fully connected layers.
        n_hidden: neurons of the two fully connected layers.
        dropout: probability of the dropout after them, with one mask per sequence.

    Shape:
        As `SpikingNet`.

    Raises:
        TypeError, ValueError: as `SpikingNet`; ValueError for frames of less than 32 pixels a side,
            or a size that is no integer of at least 1.

    Reference:
        Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", ICLR, for the
        layers.

    Example:
        >>> import torch
        >>> net = SpikingVGG11((2, 32, 32), 10, lambda: hnn.Leaky(beta=0.9), pool=1, n_hidden=64)
        >>> net(torch.zeros(2, 1, 2, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        n_classes: int,
        neuron: NewNeuron,
        *,
        pool: int = 7,
        n_hidden: int = 4096,
        dropout: float = 0.5,
    ):
        check_shape(in_shape)
        check_counts(n_classes=n_classes, pool=pool, n_hidden=n_hidden)
        _check_sides(in_shape, 32)
        width, body, neurons = in_shape[0], list[nn.Module](), iter(new_neurons(neuron, 10))
        for layer in _VGG11:
            if isinstance(layer, str):
                body += [nn.MaxPool2d(2)]
                continue
            conv = nn.Conv2d(width, layer, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            body += [conv, nn.BatchNorm2d(layer), next(neurons)]
            width = layer
        body += [nn.AdaptiveAvgPool2d(pool), nn.Flatten()]
        for features in (width * pool * pool, n_hidden):
            body += [nn.Linear(features, n_hidden), next(neurons), hnn.Dropout(dropout)]
        super().__init__(in_shape, body, nn.Linear(n_hidden, n_classes))


class SEWResNet(_Deep):
    """Spiking ResNet whose residual connections join spikes element by element.

    Args:
        depth: 18 or 34.
        in_shape: (C, H, W) of a frame.
        n_classes: number of classes.
        neuron: as in `SpikingMLP`.
        join: as in `nn.Residual`.
        width: channels of the first stage.

    Shape:
        As `SpikingNet`.

    Raises:
        ValueError: if the depth or the join is unknown, or a size is no integer of at least 1.
        TypeError, ValueError: as `SpikingNet`.

    Reference:
        Fang et al. 2021, "Deep residual learning in spiking neural networks", NeurIPS, arXiv 2102.04159.

    Example:
        >>> import torch
        >>> net = SEWResNet(18, (2, 34, 34), 10, lambda: hnn.Leaky(beta=0.9), width=8)
        >>> net(torch.zeros(2, 1, 2, 34, 34)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        depth: int,
        in_shape: tuple[int, int, int],
        n_classes: int,
        neuron: NewNeuron,
        *,
        join: str = "add",
        width: int = 64,
    ):
        if depth not in _BLOCKS:
            raise ValueError(f"depth: expected 18 or 34, got {depth!r}")
        check_shape(in_shape)
        check_counts(n_classes=n_classes, width=width)
        blocks = [(stage, number) for stage, count in enumerate(_BLOCKS[depth]) for number in range(count)]
        neurons = iter(new_neurons(neuron, 1 + 2 * len(blocks) + len(_BLOCKS[depth]) - 1))
        body = [*_conv(in_shape[0], width, 7, 2), next(neurons), nn.MaxPool2d(3, 2, 1)]
        channels = width
        for stage, number in blocks:
            wider, stride = width << stage, 2 if stage and not number else 1
            body.append(_sew_block(channels, wider, stride, neurons, join))
            channels = wider
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(in_shape, [*body, *pooled], nn.Linear(channels, n_classes))


_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


def _sew_block(a: int, b: int, stride: int, neurons: Iterator[nn.Module], join: str) -> hnn.Residual:
    branch = hnn.Sequential(*_conv(a, b, 3, stride), next(neurons), *_conv(b, b, 3), next(neurons))
    shortcut = None if a == b and stride == 1 else hnn.Sequential(*_conv(a, b, 1, stride), next(neurons))
    return hnn.Residual(branch, shortcut, join)


def _conv(a: int, b: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Return a convolution without a bias, at the same resolution but for its stride, and its BatchNorm."""
    conv = nn.Conv2d(a, b, size, stride, size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return [conv, nn.BatchNorm2d(b)]


def _check_sides(in_shape: tuple[int, int, int], least: int) -> None:
    if min(in_shape[1:]) < least:
        raise ValueError(f"in_shape: expected frames of {least} pixels or more a side, got {in_shape}")


class SelfAttention(hnn.OverTime):
    """Spiking self-attention: the product of query, key and value spikes, scaled, without a softmax."""

    def __init__(self, dim: int, n_heads: int, neuron: NewNeuron):
        super().__init__()
        self.n_heads = n_heads
        spiking = new_neurons(neuron, 5)
        self.query, self.key, self.value = (hnn.Sequential(*_tokens(dim, dim), each) for each in spiking[:3])
        self.attended = hnn.Sequential(spiking[3])
        self.out = hnn.Sequential(*_tokens(dim, dim), spiking[4])

    def forward(self, x: Tensor, state: tuple | None = None) -> tuple[Tensor, tuple]:
        before = state or (None,) * 5
        parts = [
            chain.stream(x, start) for chain, start in zip((self.query, self.key, self.value), before[:3], strict=True)
        ]
        # (T, B, D, N) to (T, B, heads, D / heads, N)
        query, key, value = (spikes.unflatten(2, (self.n_heads, -1)) for spikes, _ in parts)
        # Keys and values first, as there are fewer features per head than tokens.
        mixed = 0.125 * (value @ key.transpose(-1, -2)) @ query
        attended, fourth = self.attended.stream(mixed.flatten(2, 3), before[3])
        out, fifth = self.out.stream(attended, before[4])
        return out, (*(after for _, after in parts), fourth, fifth)


def _tokens(a: int, b: int) -> list[nn.Module]:
    """Return a linear map of each token of (N, features, tokens), and its BatchNorm."""
    layer = nn.Conv1d(a, b, 1, bias=False)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    return [layer, nn.BatchNorm1d(b)]


class Spikformer(_Deep):
    """A small spiking transformer: a stem of convolutions, and blocks of spiking self-attention and two linear maps.

    Args:
        in_shape: (C, H, W) of a frame; a token is seen in 4 x 4 pixels.
        n_classes: number of classes.
        neuron: as in `SpikingMLP`.
        dim: features of a token, a multiple of 8 and of the heads.
        n_heads: heads of the attention.
        depth: number of blocks.
        ratio: width of a block's inner linear map, relative to `dim`.

    Shape:
        As `SpikingNet`.

    Raises:
        ValueError: if `dim` is no multiple as above, or a size is no integer of at least 1.
        TypeError, ValueError: as `SpikingNet`.

    Reference:
        Zhou et al. 2023, "Spikformer: when spiking neural network meets transformer", ICLR, arXiv 2209.15425.

    Example:
        >>> import torch
        >>> net = Spikformer((2, 32, 32), 10, lambda: hnn.Leaky(beta=0.5), dim=32, n_heads=4, depth=1)
        >>> net(torch.zeros(2, 1, 2, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        n_classes: int,
        neuron: NewNeuron,
        *,
        dim: int = 256,
        n_heads: int = 8,
        depth: int = 2,
        ratio: int = 4,
    ):
        check_shape(in_shape)
        check_counts(n_classes=n_classes, dim=dim, n_heads=n_heads, depth=depth, ratio=ratio)
        if dim % 8 or dim % n_heads:
            raise ValueError(f"dim: expected a multiple of 8 and of the {n_heads} heads, got {dim}")
        neurons = iter(new_neurons(neuron, 5 + 2 * depth))
        widths = [in_shape[0], dim // 8, dim // 4, dim // 2, dim]
        body: list[nn.Module] = []
        for number, (a, b) in enumerate(pairwise(widths)):
            pool = [nn.MaxPool2d(3, 2, 1)] if number >= 2 else []
            body += [*_conv(a, b, 3), *pool, next(neurons)]
        body += [hnn.Residual(hnn.Sequential(*_conv(dim, dim, 3), next(neurons))), nn.Flatten(2)]
        for _ in range(depth):
            mixing = hnn.Sequential(
                *_tokens(dim, ratio * dim), next(neurons), *_tokens(ratio * dim, dim), next(neurons)
            )
            body += [hnn.Residual(SelfAttention(dim, n_heads, neuron)), hnn.Residual(mixing)]
        pooled = nn.AdaptiveAvgPool1d(1), nn.Flatten()
        super().__init__(in_shape, [*body, *pooled], nn.Linear(dim, n_classes))
