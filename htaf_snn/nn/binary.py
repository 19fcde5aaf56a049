"""Binary layers: weights -1 and +1 over real latent ones, and activations of two levels, with any surrogate.

What is greater than 0 is the upper level, in weights and activations alike; 0 is the lower one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, prelu

from .._checks import check_choice
from ..surrogate import Surrogate, SurrogateLike, resolve
from ..surrogate.elementwise import heaviside

LEVELS = ((-1, 1), (0, 1))
SCALES = ("none", "magnitude", "learned")
# So many levels up to 255, times -1 or +1, add up exactly in float32.
_EXACT = 2**24 // 255


def _check_levels(levels: tuple[int, int]) -> tuple[int, int]:
    if tuple(levels) not in LEVELS:
        raise ValueError(f"levels: expected (-1, 1) or (0, 1), got {levels!r}")
    low, high = levels
    return low, high


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """Return values (channels,) shaped to broadcast to x: (channels), (B, channels) or (B, channels, H, W).

    Three dimensions are refused: (B, S, F), an unbatched (C, H, W) and (B, C, L) have their channels elsewhere.
    """
    if x.ndim in (0, 3) or x.shape[min(1, x.ndim - 1)] != len(values):
        n = len(values)
        remedy = "; flatten (B, S, F) to (B * S, F), give (C, H, W) a batch, (B, C, L) a last dimension of 1"
        raise ValueError(
            f"x: expected ({n}), (B, {n}) or (B, {n}, H, W), got {tuple(x.shape)}{remedy if x.ndim == 3 else ''}"
        )
    return values.view(-1, *[1] * max(0, x.ndim - 2))


def _hard(surrogate: Surrogate, x: Tensor) -> Tensor:
    """Return 1 where x > 0, else 0, with the surrogate's gradient; a callable may give other values."""
    y = surrogate.at_hardness(1.0, x)
    return heaviside(x) + (y - y.detach()) if surrogate.formula is None else y


class BinaryActivation(nn.Module):
    """An activation of two levels, with any surrogate as its gradient.

    During training it has the surrogate's hardness; in `eval()` it is hard. From -1 to 1 the step is twice as high as
    from 0 to 1, and so is its gradient: "clipped_ste" is 1 on [-1, 1], and "approx_sign", which is "triangle", is
    2 - 2|x| there.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`.
        levels: (-1, 1), or (0, 1).
        channels: give each channel, along dimension 1, a learned shift of its input (RSign); None for no shift.

    Attributes:
        smooth_in_eval: keep the surrogate's hardness in `eval()` too, as within `htaf_snn.hardening.smooth`.

    Shape:
        Any floating-point tensor, with `channels` (channels), (B, channels) or (B, channels, H, W); the output has its
        shape and dtype.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.
        ValueError: if the levels are unknown; in the forward pass, if x has another number of channels, or three
            dimensions, of which any may be the channels.

    Example:
        >>> BinaryActivation("approx_sign")(torch.tensor([-0.3, 0.0, 0.3]))
        tensor([-1., -1.,  1.])
        >>> activation = BinaryActivation("htaf(hardness=0.0)", levels=(0, 1))
        >>> activation(torch.zeros(1)), activation.eval()(torch.tensor([0.0, 0.1]))
        (tensor([0.5000]), tensor([0., 1.]))
    """

    shift: nn.Parameter | None

    def __init__(
        self, surrogate: SurrogateLike = "htaf", levels: tuple[int, int] = (-1, 1), channels: int | None = None
    ):
        super().__init__()
        self.surrogate = resolve(surrogate)
        self.levels = _check_levels(levels)
        self.shift = None if channels is None else nn.Parameter(torch.zeros(channels))
        self.smooth_in_eval = False

    def forward(self, x: Tensor) -> Tensor:
        if self.shift is not None:
            x = x - by_channel(self.shift, x)
        y = self.surrogate(x) if self.training or self.smooth_in_eval else _hard(self.surrogate, x)
        return y if self.levels == (0, 1) else 2 * y - 1

    def extra_repr(self) -> str:
        return f"levels={self.levels}" + ("" if self.shift is None else f", channels={len(self.shift)}")


class _BinaryWeight(nn.Module):
    """A latent real weight, used as -1 and +1, with a scale per output and a bias."""

    surrogate_acts_on_weights = True

    def __init__(self, shape: tuple[int, ...], bias: bool, scale: str, surrogate: SurrogateLike):
        super().__init__()
        check_choice("scale", scale, SCALES)
        if isinstance(surrogate, str) and surrogate == "magnitude_aware":
            scale, surrogate = "magnitude", "clipped_ste"
        self.scale_by, self.surrogate = scale, resolve(surrogate)
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.scale = nn.Parameter(torch.ones(shape[0])) if scale == "learned" else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def binary_weight(self) -> Tensor:
        """Return the weight as -1 and +1, with the surrogate's gradient."""
        return 2 * _hard(self.surrogate, self.weight) - 1

    def output_scale(self) -> Tensor | None:
        """Return the factor of each output: None, learned, or the mean magnitude of its latent weights."""
        return self.weight.detach().abs().flatten(1).mean(1) if self.scale_by == "magnitude" else self.scale

    def finish(self, sums: Tensor) -> Tensor:
        """Apply scale and bias to sums (…, outputs), or (…, outputs, H, W) of a convolution."""
        shape = (-1, *[1] * (self.weight.ndim - 2))
        scale = self.output_scale()
        if scale is not None:
            sums = sums * scale.view(shape)
        return sums if self.bias is None else sums + self.bias.view(shape)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, bias={self.bias is not None}, scale={self.scale_by!r}"


class BinaryLinear(_BinaryWeight):
    """A linear layer whose weights are -1 and +1.

    Args:
        in_features, out_features: sizes.
        bias: add a real bias, initially 0.
        scale: what multiplies each output: "none", "learned", or "magnitude", the mean |w| of its latent weights,
            taken as a constant in the backward pass as in Bi-Real Net's magnitude-aware gradient.
        surrogate: gives the latent weights their gradient, doubled as in `BinaryActivation`, whatever its hardness; or
            "magnitude_aware" for "clipped_ste" with the scale "magnitude".

    Shape:
        x (…, in_features) to (…, out_features). With inputs of two levels, or from `QuantizeInput`, the sums are exact
        in float32 in any order, and rounded once beyond 2**24; so packed inference can be equal bit for bit.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`; ValueError if the scale is unknown.

    Reference:
        Hubara et al. 2016, "Binarized neural networks", NeurIPS, for latent weights and "clipped_ste"; Liu et al. 2018,
        "Bi-Real Net", ECCV, for "magnitude_aware".

    Example:
        >>> import torch
        >>> layer = BinaryLinear(3, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.2, -0.7, 0.1], [-0.1, -0.3, 0.5]]))
        >>> layer(torch.tensor([[1.0, -1.0, 1.0]])).tolist()
        [[3.0, 1.0]]
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        scale: str = "none",
        surrogate: SurrogateLike = "clipped_ste",
    ):
        super().__init__((out_features, in_features), bias, scale, surrogate)
        self.in_features, self.out_features = in_features, out_features

    def forward(self, x: Tensor) -> Tensor:
        weight = self.binary_weight()
        if self.in_features <= _EXACT:
            return self.finish(linear(x, weight))
        parts = [linear(*part) for part in zip(x.split(_EXACT, -1), weight.split(_EXACT, -1), strict=True)]
        return self.finish(torch.stack([part.double() for part in parts]).sum(0).to(parts[0].dtype))


class BinaryConv2d(_BinaryWeight):
    """A convolution whose weights are -1 and +1.

    Padding adds zeros, which count neither as -1 nor as +1, in the packed form too.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups: as in `torch.nn.Conv2d`; the padding
            must be numbers.
        bias, scale, surrogate: as in `BinaryLinear`.

    Shape:
        x (B, in_channels, H, W), or (in_channels, H, W), to (B, out_channels, H', W'), H' and W' as in
        `torch.nn.Conv2d`; sums as in `BinaryLinear`.

    Raises:
        TypeError: as `BinaryLinear`.
        ValueError: as `BinaryLinear`; or if `groups` does not divide the channels, or a size is not an integer >= 0 or
            two of them.

    Example:
        >>> import torch
        >>> BinaryConv2d(4, 2, 3, padding=1, groups=2)(torch.ones(1, 4, 5, 5)).shape
        torch.Size([1, 2, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        scale: str = "none",
        surrogate: SurrogateLike = "clipped_ste",
    ):
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: expected a divisor of {in_channels} and {out_channels}, got {groups}")
        kernel_size = _pair("kernel_size", kernel_size)
        super().__init__((out_channels, in_channels // groups, *kernel_size), bias, scale, surrogate)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding = _pair("stride", stride), _pair("padding", padding)
        self.dilation, self.groups = _pair("dilation", dilation), groups

    def forward(self, x: Tensor) -> Tensor:
        where = (self.stride, self.padding, self.dilation, self.groups)
        weight = self.binary_weight()
        if weight[0].numel() <= _EXACT:
            return self.finish(conv2d(x, weight, None, *where))
        return self.finish(conv2d(x.double(), weight.double(), None, *where).to(x.dtype))


@torch.no_grad()
def clip_weights(model: nn.Module, limit: float = 1.0) -> None:
    """Keep the latent weights of binary layers within ±limit; beyond it a clipped surrogate passes no gradient.

    Args:
        model: the latent weights of its `BinaryLinear` and `BinaryConv2d` layers are changed, in place.
        limit: > 0.

    Example:
        >>> layer = BinaryLinear(2, 2)
        >>> _ = layer.weight.data.fill_(3.0)
        >>> clip_weights(layer)
        >>> layer.weight.max().item()
        1.0
    """
    for module in model.modules():
        if isinstance(module, _BinaryWeight):
            module.weight.clamp_(-limit, limit)


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value if isinstance(value, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 0 for v in pair):
        raise ValueError(f"{name}: expected an integer or two, got {value!r}")
    return pair[0], pair[1]


def exact_grid(weight: Tensor) -> Tensor:
    """Return per output the power of two whose multiples add up exactly in float32, in any order.

    No sum of any of an output's weights, rounded to such multiples, exceeds 2**24 times that power.
    """
    wide = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))  # a power this small is 0 in float16
    norm = wide.abs().flatten(1).sum(1).clamp(min=torch.finfo(wide.dtype).tiny)
    # Rounding may add half a multiple per weight.
    return torch.exp2(torch.ceil(torch.log2(norm)) + 1 - 24)


def adds_exactly(weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether sums of any of an output's weights, and its bias, are exact in float32, in any order.

    They are multiples of a power of two then, and the magnitudes of all of them add up to at most 2**24 of it.
    """
    values = weight.detach().flatten(1)
    values = values if bias is None else torch.cat([values, bias.detach()[:, None]], 1)
    # Twice as fine as `exact_grid`, which leaves room for rounding; in float64, as it may be too small for float32.
    parts = values.double() / (exact_grid(values).double()[:, None] / 2)
    return bool((parts == torch.round(parts)).all() and (parts.abs().sum(1) <= 2**24).all())


class _ExactSums:
    """A layer whose weights are rounded in `eval()` to multiples of `exact_grid`.

    With inputs of two levels all sums are then exact, so that they do not depend on the order or the machine.
    """

    training: bool
    weight: Tensor

    def exact_weight(self) -> Tensor:
        """Return the weight that the next forward pass uses."""
        if self.training:
            return self.weight
        grid = exact_grid(self.weight).view(-1, *[1] * (self.weight.ndim - 1))
        return (torch.round(self.weight / grid) * grid).to(self.weight.dtype)


class HeavisideLinear(_ExactSums, nn.Linear):
    """A linear layer with real weights for inputs of two levels, exact in `eval()`.

    In `eval()` the weights are rounded to 24 bits of each output's sum of magnitudes, so that sums of two-level inputs
    are exact in float32: any order, any machine and the packed form give the same bits.

    Args:
        in_features, out_features, bias, device, dtype: as in `torch.nn.Linear`, which it equals in training mode.

    Shape:
        x (…, in_features) to (…, out_features).

    Example:
        >>> import torch
        >>> layer = HeavisideLinear(300, 2).eval()
        >>> x, order = torch.randint(2, (4, 300)).float(), torch.randperm(300)
        >>> torch.equal(layer(x), (x[:, order] @ layer.exact_weight()[:, order].T) + layer.bias)
        True
    """

    def forward(self, x: Tensor) -> Tensor:
        sums = linear(x, self.exact_weight())
        return sums if self.bias is None else sums + self.bias


class HeavisideConv2d(_ExactSums, nn.Conv2d):
    """A convolution with real weights for inputs of two levels, exact in `eval()` like `HeavisideLinear`.

    Args:
        *args, **kwargs: as in `torch.nn.Conv2d`; the padding must be a number of zeros.

    Shape:
        x (B, in_channels, H, W) to (B, out_channels, H', W'), H' and W' as in `torch.nn.Conv2d`.

    Raises:
        ValueError: for any other padding.

    Example:
        >>> import torch
        >>> HeavisideConv2d(1, 2, 3)(torch.ones(1, 1, 5, 5)).shape
        torch.Size([1, 2, 3, 3])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.padding_mode != "zeros" or isinstance(self.padding, str):
            got = (self.padding, self.padding_mode)
            raise ValueError(f"padding, padding_mode: expected numbers and 'zeros', got {got[0]!r} and {got[1]!r}")

    def forward(self, x: Tensor) -> Tensor:
        sums = conv2d(x, self.exact_weight(), None, self.stride, self.padding, self.dilation, self.groups)
        return sums if self.bias is None else sums + self.bias.view(-1, 1, 1)


class RPReLU(nn.Module):
    """PReLU with learned shifts of input and output per channel, from ReActNet.

    Args:
        channels: of x.

    Shape:
        (channels), (B, channels) or (B, channels, H, W); the output has its shape.

    Raises:
        ValueError: in the forward pass, if x has another number of channels, or three dimensions.

    Reference:
        Liu et al. 2020, "ReActNet", ECCV.

    Example:
        >>> import torch
        >>> RPReLU(2)(torch.tensor([[-1.0, 1.0]])).tolist()
        [[-0.25, 1.0]]
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.before, self.after = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        x = x - by_channel(self.before, x)
        y = prelu(x, self.slope) if x.ndim > 1 else prelu(x[None], self.slope)[0]
        return y + by_channel(self.after, x)
