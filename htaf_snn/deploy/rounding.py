"""Weights of layers on bits or spikes in fewer bits, where the network stays as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from .. import nn as hnn
from .._checks import check_number, describe
from ..nn.binary import exact_grid
from .over_time import layers_on_spikes

_HEAVISIDE = (hnn.HeavisideLinear, hnn.HeavisideConv2d)


def round_weights(
    model: nn.Module, score: Callable[[nn.Module], float], *, bits: Sequence[int] = (8, 16), tolerance: float = 0.0
) -> dict[str, int]:
    """Round the weights of layers on bits or spikes in place, each to the fewest bits with which the score holds.

    Files of the packed network then have 8 or 16 bits per weight instead of 32, and so does the C code. The layers are
    tried one after another, each with the earlier ones rounded. Measure on validation data: the choice favours the data
    that it is made with. Of a layer on spikes the bias is rounded too, to 24 bits of the sum of all magnitudes, so that
    all its sums are exact in float32.

    Args:
        model: a network in eval mode with `nn.HeavisideLinear` or `nn.HeavisideConv2d`; or a spiking one that `pack`
            takes, whose linear layers and convolutions on spikes are rounded.
        score: of the model, higher is better, such as its validation accuracy.
        bits: to try, from 2 to 16.
        tolerance: by how much the score may fall in all, >= 0.

    Returns:
        The bits of each layer by its name. Where none suffice, 24 for a Heaviside layer, as in eval mode always, and 32
        for another, which is left as it was and stays in floating point.

    Raises:
        ValueError: if the model is in training mode, has no such layer or a parametrized one, an argument is out of
            range, or the score is not a number.

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
    if not isinstance(bits, Sequence) or not bits or not all(isinstance(own, int) and 2 <= own <= 16 for own in bits):
        raise ValueError(f"bits: expected integers from 2 to 16, as in (8, 16), got {bits!r}")
    check_number("tolerance", tolerance)
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance: expected a finite number >= 0, got {tolerance!r}")
    on_spikes = {id(model.get_submodule(name)) for name in layers_on_spikes(model)}
    layers = {
        name: own for name, own in model.named_modules()
        if isinstance(own, _HEAVISIDE) or (id(own) in on_spikes and isinstance(own, (nn.Linear, nn.Conv2d)))
    }  # fmt: skip
    if not layers:
        expected = "one with nn.HeavisideLinear or nn.HeavisideConv2d of htaf_snn, or layers on spikes"
        raise ValueError(f"model: expected {expected}, got none; binary weights have one bit already")
    for name, layer in layers.items():
        if is_parametrized(layer):
            raise ValueError(f"{name}: expected a weight without parametrizations, which would undo the rounding")
    least, chosen = _checked(score(model)) - tolerance, {}
    for name, layer in layers.items():
        chosen[name] = _fewest(layer, sorted(bits), lambda: _checked(score(model)) >= least)
    return chosen


def _checked(score: float) -> float:
    """Return a score; raise ValueError unless it is a number."""
    if isinstance(score, Tensor) and score.numel() == 1:
        score = score.item()
    if isinstance(score, bool) or not isinstance(score, Real):
        raise ValueError(f"score: expected a function that returns a number, got {describe(score)}")
    return float(score)


def _fewest(layer: nn.Module, bits: Sequence[int], is_enough: Callable[[], bool]) -> int:
    """Round a layer to the fewest bits that are enough, and return them; leave it unchanged if none are."""
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    full, chosen = 24 if isinstance(layer, _HEAVISIDE) else 32, None
    try:
        for own in bits:
            for name, value in _rounded_parameters(layer, before, own).items():
                layer.get_parameter(name).data.copy_(value)
            if is_enough():
                chosen = own
                break
    finally:
        if chosen is None:
            for name, value in before.items():
                layer.get_parameter(name).data.copy_(value)
    return full if chosen is None else chosen


def _rounded_parameters(layer: nn.Module, before: dict[str, Tensor], bits: int) -> dict[str, Tensor]:
    weight = _rounded(before["weight"], bits)
    if isinstance(layer, _HEAVISIDE) or "bias" not in before:
        return {"weight": weight}
    bias = before["bias"]
    grid = exact_grid(torch.cat([weight.flatten(1), bias[:, None]], 1))
    return {"weight": weight, "bias": torch.round(bias / grid) * grid}


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """Return weights as multiples of a power of two per output, the largest of them with so many bits.

    With many weights per output they have fewer, so that their sums are exact.
    """
    rows = weight.flatten(1)
    largest = rows.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    scale = torch.exp2(torch.ceil(torch.log2(largest / (2 ** (bits - 1) - 1)))).clamp(min=torch.finfo(rows.dtype).tiny)
    scale = torch.maximum(scale, exact_grid(rows)[:, None])
    return (torch.round(rows / scale) * scale).view_as(weight)
