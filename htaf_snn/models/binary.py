"""Binary networks and deep Heaviside networks for images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import nn as hnn
from ..surrogate import Surrogate, SurrogateLike, resolve
from ._chain import Chain, add_identity, check_counts, check_shape, check_sizes, check_start


def copies(surrogate: SurrogateLike) -> Callable[[], Surrogate]:
    """Return a function that makes copies of a surrogate, one per layer, as each has its own steepness."""
    resolved = resolve(surrogate)  # raises here, not in the middle of a network
    return lambda: copy.deepcopy(resolved)


class _Layered(Chain):
    """Repeated layers, each with an activation and, unless left out, BatchNorm before it; and a readout."""

    @property
    def layers(self) -> list[nn.Module]:
        """The layers before the readout."""
        weighted = [module for module in self if getattr(module, "weight", None) is not None]
        return [module for module in weighted if not isinstance(module, _BatchNorm)][:-1]

    @property
    def neurons(self) -> list[nn.Module]:
        """The activations."""
        return [module for module in self if isinstance(module, (hnn.BinaryActivation, nn.ReLU))]


def _normed(layer: Callable[..., nn.Module], norm: str, identity: float, *sizes: int) -> list[nn.Module]:
    """Return a layer, with an identity added to its weights, and its BatchNorm, or the layer with a bias instead."""
    layers = [add_identity(layer(*sizes, bias=norm == "none"), identity)]
    if norm == "batch":
        two_dimensional = isinstance(layers[0], nn.Conv2d)
        layers.append((nn.BatchNorm2d if two_dimensional else nn.BatchNorm1d)(sizes[1]))
    return layers


def _hidden_layers(
    in_shape: int | Sequence[int],
    hidden: Sequence[int],
    later: tuple[type[nn.Module], type[nn.Module]],
    activation: Callable[[], nn.Module],
    norm: str,
    identity: float,
) -> tuple[list[nn.Module], int]:
    """Return the layers before the readout, and the number of their outputs.

    `later` are the linear layer and the convolution after the first layer, which sees real values.
    """
    check_shape(in_shape, or_features=True)
    check_sizes(hidden=hidden)
    check_start(norm, identity)
    is_linear = not isinstance(in_shape, Sequence)
    first, *size = in_shape if isinstance(in_shape, Sequence) else (in_shape,)
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise([first, *hidden])):
        stride = 2 if number and b > a else 1
        size = [-(-side // stride) for side in size]
        layer = later[not is_linear] if number else (nn.Linear if is_linear else nn.Conv2d)
        sizes = (a, b) if is_linear else (a, b, 3, stride, 1)
        layers += [*_normed(layer, norm, identity if number else 0.0, *sizes), activation()]
    flat = nn.Flatten()
    return [flat, *layers] if is_linear else [*layers, flat], hidden[-1] * math.prod(size)


class BinaryMLP(_Layered):
    """Fully connected network with weights and activations of -1 and +1; the readout's weights are real.

    Args:
        in_features: values in an image, C * H * W.
        hidden: neurons of each hidden layer.
        n_classes: number of classes.
        surrogate: surrogate of the activations, in any form, see `htaf_snn.surrogate.resolve`; each has its own copy.
        weight_surrogate: surrogate of the weights, as in `nn.BinaryLinear`.
        input_range: (low, high) of the images, as in `nn.QuantizeInput`.

    Shape:
        Images (B, *features) within the range to class scores (B, n_classes).

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.
        ValueError: if a size is no integer of at least 1, or `hidden` has none.

    Example:
        >>> import torch
        >>> BinaryMLP(784, [64, 64], 10)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        n_classes: int,
        *,
        surrogate: SurrogateLike = "htaf",
        weight_surrogate: SurrogateLike = "clipped_ste",
        input_range: tuple[float, float] = (0.0, 1.0),
    ):
        check_counts(in_features=in_features, n_classes=n_classes)
        check_sizes(hidden=hidden)
        new_surrogate = copies(surrogate)
        layers: list[nn.Module] = [nn.Flatten(), hnn.QuantizeInput(*input_range)]
        for a, b in pairwise([in_features, *hidden]):
            layers += [hnn.BinaryLinear(a, b, surrogate=copy.deepcopy(weight_surrogate)), nn.BatchNorm1d(b)]
            layers += [hnn.BinaryActivation(new_surrogate())]
        super().__init__(*layers, hnn.HeavisideLinear([in_features, *hidden][-1], n_classes))


class BinaryCNN(_Layered):
    """Convolutional network with weights and activations of -1 and +1; the first convolution and the readout are real.

    Args:
        in_shape: (C, H, W) of an image.
        channels: of each 3x3 convolution; every convolution but the first halves the resolution.
        n_classes: number of classes.
        surrogate, weight_surrogate: as in `BinaryMLP`.

    Shape:
        Images (B, C, H, W) to class scores (B, n_classes).

    Raises:
        TypeError, ValueError, ImportError: as `BinaryMLP`; ValueError if `in_shape` is of another form.

    Example:
        >>> import torch
        >>> BinaryCNN((1, 28, 28), [8, 16], 10)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        channels: Sequence[int],
        n_classes: int,
        *,
        surrogate: SurrogateLike = "htaf",
        weight_surrogate: SurrogateLike = "clipped_ste",
    ):
        check_shape(in_shape)
        check_sizes(channels=channels)
        check_counts(n_classes=n_classes)
        new_surrogate = copies(surrogate)
        widths, (height, width) = [in_shape[0], *channels], in_shape[1:]
        layers: list[nn.Module] = []
        for number, (a, b) in enumerate(pairwise(widths)):
            stride = 2 if number else 1
            height, width = -(-height // stride), -(-width // stride)
            conv: nn.Module = nn.Conv2d(a, b, 3, stride, 1, bias=False)
            if number:
                conv = hnn.BinaryConv2d(a, b, 3, stride, 1, surrogate=copy.deepcopy(weight_surrogate))
            layers += [conv, nn.BatchNorm2d(b), hnn.BinaryActivation(new_surrogate())]
        super().__init__(*layers, nn.Flatten(), hnn.HeavisideLinear(widths[-1] * height * width, n_classes))


class DeepHeavisideNet(_Layered):
    """Network with real weights whose hidden activations are 0 and 1.

    Args:
        in_shape: values in an image for a fully connected network, or its (C, H, W) for a convolutional one.
        hidden: neurons of each hidden layer; or channels of each 3x3 convolution, of which one that is wider than the
            one before halves the resolution.
        n_classes: number of classes.
        surrogate: as in `BinaryMLP`.
        norm: "batch" for BatchNorm before every activation, or "none" for a bias instead.
        identity: at the start, this multiple of the identity is added to the weights of hidden layers that keep their
            width, so that a layer tends to copy its input: an aid for very deep networks. 0 for none.

    Shape:
        Images (B, *features), or (B, C, H, W), to class scores (B, n_classes).

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.
        ValueError: if a size is no integer of at least 1 or `hidden` has none, `in_shape` is of another form, the norm
            is unknown, or `identity` is negative.

    Reference:
        Zagoruyko and Komodakis 2017, "DiracNets", arXiv 1706.00388, for the identity in place of shortcuts.

    Example:
        >>> import torch
        >>> DeepHeavisideNet(784, [64] * 8, 10)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 10])
        >>> DeepHeavisideNet((3, 32, 32), [16, 32, 64], 10)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        hidden: Sequence[int],
        n_classes: int,
        *,
        surrogate: SurrogateLike = "htaf",
        norm: str = "batch",
        identity: float = 0.0,
    ):
        check_counts(n_classes=n_classes)
        new_surrogate = copies(surrogate)
        layers, features = _hidden_layers(
            in_shape,
            hidden,
            (hnn.HeavisideLinear, hnn.HeavisideConv2d),
            lambda: hnn.BinaryActivation(new_surrogate(), (0, 1)),
            norm,
            identity,
        )
        super().__init__(*layers, hnn.HeavisideLinear(features, n_classes))


class ReLUNet(_Layered):
    """The floating-point twin of `BinaryMLP` and `DeepHeavisideNet`: the same layers with ReLU.

    Args:
        in_shape, hidden, n_classes, norm, identity: as in `DeepHeavisideNet`.

    Shape:
        Images (B, *features), or (B, C, H, W), to class scores (B, n_classes).

    Raises:
        ValueError: if a size is no integer of at least 1 or `hidden` has none, `in_shape` is of another form, the norm
            is unknown, or `identity` is negative.

    Example:
        >>> import torch
        >>> ReLUNet(784, [64, 64], 10)(torch.rand(3, 1, 28, 28)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_shape: int | Sequence[int],
        hidden: Sequence[int],
        n_classes: int,
        *,
        norm: str = "batch",
        identity: float = 0.0,
    ):
        check_counts(n_classes=n_classes)
        layers, features = _hidden_layers(in_shape, hidden, (nn.Linear, nn.Conv2d), nn.ReLU, norm, identity)
        super().__init__(*layers, nn.Linear(features, n_classes))


class _Block(nn.Module):
    """A 3x3 convolution with a real shortcut around it, as in Bi-Real Net, between two nonlinearities."""

    def __init__(self, activation: nn.Module, conv: nn.Conv2d | hnn.BinaryConv2d, nonlinear: nn.Module):
        super().__init__()
        (a, b), stride = (conv.in_channels, conv.out_channels), int(conv.stride[0])
        self.activation, self.conv = activation, conv
        self.norm, self.nonlinear = nn.BatchNorm2d(b), nonlinear
        self.shortcut: nn.Module = nn.Identity()
        if a != b or stride > 1:
            pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlinear(self.norm(self.conv(self.activation(x))) + self.shortcut(x))


class _ResNet(Chain):
    """A stem, three stages of blocks, of `width`, twice and four times as many channels, and a readout."""

    def __init__(
        self, depth: int, in_channels: int, n_classes: int, width: int, block: Callable[[int, int, int], nn.Module]
    ):
        check_counts(depth=depth, in_channels=in_channels, n_classes=n_classes, width=width)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth: expected 8, 14, 20 or another 6 n + 2, got {depth}")
        channels, layers = width, []
        for stage in range(3):
            for number in range((depth - 2) // 3):
                layers.append(block(channels, width << stage, 2 if stage and not number else 1))
                channels = width << stage
        stem = [nn.Conv2d(in_channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
        super().__init__(*stem, *layers, *head)


class BinaryResNet(_ResNet):
    """Residual network with binary 3x3 convolutions; stem, shortcuts between widths and readout are real.

    It has three stages, of `width`, twice and four times as many channels, a shortcut around every convolution (Liu et
    al. 2018, "Bi-Real Net", ECCV), and the shifts of ReActNet (Liu et al. 2020, ECCV).

    Args:
        depth: number of layers, 6 n + 2: 8, 14, 20, …
        in_channels: of an image.
        n_classes: number of classes.
        width: channels of the first stage.
        surrogate, weight_surrogate: as in `BinaryMLP`.

    Shape:
        Images (B, in_channels, H, W) to class scores (B, n_classes).

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`; ValueError if the depth is of another form
            or a size is no integer of at least 1.

    Example:
        >>> import torch
        >>> BinaryResNet(8, in_channels=1, width=8)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        depth: int = 20,
        in_channels: int = 3,
        n_classes: int = 10,
        *,
        width: int = 16,
        surrogate: SurrogateLike = "htaf",
        weight_surrogate: SurrogateLike = "clipped_ste",
    ):
        new_surrogate = copies(surrogate)

        def block(a: int, b: int, stride: int) -> nn.Module:
            activation = hnn.BinaryActivation(new_surrogate(), channels=a)
            own = copy.deepcopy(weight_surrogate)
            return _Block(
                activation, hnn.BinaryConv2d(a, b, 3, stride, 1, scale="magnitude", surrogate=own), hnn.RPReLU(b)
            )

        super().__init__(depth, in_channels, n_classes, width, block)


class ReLUResNet(_ResNet):
    """The floating-point twin of `BinaryResNet`: the same blocks with real convolutions and ReLU.

    Args:
        depth, in_channels, n_classes, width: as in `BinaryResNet`.

    Shape:
        Images (B, in_channels, H, W) to class scores (B, n_classes).

    Raises:
        ValueError: if the depth is of another form, or a size is no integer of at least 1.

    Example:
        >>> import torch
        >>> ReLUResNet(8, in_channels=1, width=8)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, depth: int = 20, in_channels: int = 3, n_classes: int = 10, *, width: int = 16):
        def block(a: int, b: int, stride: int) -> nn.Module:
            return _Block(nn.Identity(), nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.ReLU())

        super().__init__(depth, in_channels, n_classes, width, block)


def summary(model: nn.Module) -> dict:
    """Count parameters and their bits when deployed: one per binary weight, 32 per other number.

    Args:
        model: any network. Statistics of BatchNorm count as parameters, and what layers share counts once; lazy layers
            must be initialised first.

    Returns:
        {"layers": [{"name", "type", "parameters", "bits"}], "parameters", "bits", "float_bits": 32 per parameter}.

    Example:
        >>> summary(hnn.BinaryLinear(64, 10))["bits"]
        640
    """
    layers, counted = [], set()
    for name, module in model.named_modules():
        statistics = {key: value for key, value in module.named_buffers(recurse=False) if value.is_floating_point()}
        own = {key: value for key, value in module.named_parameters(recurse=False)} | statistics
        own = {key: value for key, value in own.items() if id(value) not in counted}
        counted |= {*map(id, own.values())}
        if own:
            binary = own.get("weight") if isinstance(module, (hnn.BinaryLinear, hnn.BinaryConv2d)) else None
            count = sum(value.numel() for value in own.values())
            ones = 0 if binary is None else binary.numel()
            bits = ones + 32 * (count - ones)
            layers.append({"name": name, "type": type(module).__name__, "parameters": count, "bits": bits})
    totals = {key: sum(layer[key] for layer in layers) for key in ("parameters", "bits")}
    return {"layers": layers, **totals, "float_bits": 32 * totals["parameters"]}
