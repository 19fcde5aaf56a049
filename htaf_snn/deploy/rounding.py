"""Weights of Heaviside layers in fewer bits, where the network stays as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from .. import nn as hnn
from .._checks import check_number

_FULL = 24


def round_weights(
    model: nn.Module, score: Callable[[nn.Module], float], *, bits: Sequence[int] = (8, 16), tolerance: float = 0.0
) -> dict[str, int]:
    """Round the weights of Heaviside layers in place, each to the fewest bits with which the score holds.

    Files of the packed network then have 8 or 16 bits per weight instead of 32, and so has its C. The layers are tried
    one after another, each with the earlier ones rounded. Measure on validation data: the choice favours the data that
    it is made with.

    Args:
        model: a network in eval mode with `nn.HeavisideLinear` or `nn.HeavisideConv2d`.
        score: of the model, higher is better, such as its validation accuracy.
        bits: to try, from 2 to 16.
        tolerance: by how much the score may fall in all, >= 0.

    Returns:
        The bits of each layer by its name; 24, as in eval mode always, where no fewer suffice.

    Raises:
        ValueError: if the model is in training mode, has no such layer or a parametrized one, or an argument is out of
            range.

    Example:
        >>> from htaf_snn import models
        >>> net = models.DeepHeavisideNet(16, [8, 8], 3).eval()
        >>> x = torch.rand(50, 16)
        >>> labels = net(x).argmax(1)
        >>> chosen = round_weights(net, lambda net: (net(x).argmax(1) == labels).float().mean().item(), tolerance=0.2)
        >>> list(chosen.values())
        [8, 8]
    """
    if model.training:
        raise ValueError("model: expected eval mode, got training mode; call model.eval()")
    if not bits or not all(isinstance(own, int) and 2 <= own <= 16 for own in bits):
        raise ValueError(f"bits: expected integers from 2 to 16, got {bits!r}")
    check_number("tolerance", tolerance)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance: expected a finite number >= 0, got {tolerance!r}")
    kinds = (hnn.HeavisideLinear, hnn.HeavisideConv2d)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    if not layers:
        raise ValueError("model: expected one with Heaviside layers, got none")
    for name, layer in layers.items():
        if is_parametrized(layer, "weight"):
            raise ValueError(f"{name}: expected a weight without parametrizations, which would undo the rounding")
    least, chosen = score(model) - tolerance, dict.fromkeys(layers, _FULL)
    for name, layer in layers.items():
        weight = layer.weight.detach().clone()
        try:
            for own in sorted(bits):
                layer.weight.data.copy_(_rounded(weight, own))
                if score(model) >= least:
                    chosen[name] = own
                    break
        finally:
            if chosen[name] == _FULL:
                layer.weight.data.copy_(weight)
    return chosen


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """Return weights as multiples of a power of two per output, the largest of them with so many bits."""
    rows = weight.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    scale = torch.exp2(torch.ceil(torch.log2(largest / (2 ** (bits - 1) - 1)))).clamp(min=torch.finfo(rows.dtype).tiny)
    return (torch.round(rows / scale) * scale).view_as(weight)
