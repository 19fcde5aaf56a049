"""Which steps the exports write, asked of each on its own, before a shape of images is known."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

from . import steps
from .c_source import Source, check_quantized_first
from .network import PackedNetwork, range_of_images
from .plain import Plain
from .qonnx import Graph

TARGETS = ("c", "onnx", "qonnx")
_SIDE = 64
_OVER_TIME = (steps.ToRows, steps.FromRows, steps.Neurons, steps.MeanOverTime)
_ANY_SHAPE = (steps.Add, steps.Cat, steps.Flatten, steps.FromRows, steps.MeanOverTime, steps.ToRows)


def why_not_written(taken: Sequence[tuple[nn.Module, Sequence[int]]], target: str) -> str | None:
    """Return why an export refuses a step, whatever the image's shape; None if it takes it, or if the shape decides.

    Args:
        taken: the step, after all earlier ones, with the numbers of the values that each takes.
        target: one of `TARGETS`.
    """
    step = taken[-1][0]
    if target != "c" and isinstance(step, _OVER_TIME):
        return f"cannot be written in {target.upper()}, which has no time; see export_c"
    if isinstance(step, steps.Quantize):
        return None if target == "onnx" else _why_not_quantized(taken, target)
    if isinstance(step, _ANY_SHAPE):
        return None
    network, shape = _alone(step)
    try:
        with torch.no_grad():
            if target == "c":
                Source(network, shape)
            elif target == "onnx":
                Plain(network)
            else:
                Graph(network, [tuple(value.shape) for value in network.values(torch.zeros(1, *shape))])
    except ValueError as error:
        return _without_name(error)
    return None


def _why_not_quantized(taken: Sequence[tuple[nn.Module, Sequence[int]]], target: str) -> str | None:
    """Return why an export refuses the last step, a `Quantize`, for its place or its range; None if it takes it."""
    try:
        if target == "c":
            check_quantized_first(taken, [f"step {i}" for i in range(len(taken))])
        range_of_images(taken)
    except ValueError as error:
        return _without_name(error)
    return None


def _without_name(error: ValueError) -> str:
    return re.sub(r"^(step \d+|model|network): ", "", str(error))


def _alone(step: nn.Module) -> tuple[PackedNetwork, tuple[int, ...]]:
    """Return a network of one step, after what it needs, and the shape of a sample that it takes."""
    channels, is_image = _channels(step)
    shape = (channels, _SIDE, _SIDE) if is_image else (channels,)
    if isinstance(step, steps.Neurons):
        own = torch.broadcast_shapes(*(value.shape for value in step.buffers()))
        shape = tuple(own) if len(own) == 3 else shape
        return PackedNetwork([(steps.ToRows(None), [0]), (step, [1, 0])], 2), shape
    if isinstance(step, (steps.BinaryProduct, steps.HeavisideProduct, steps.MaxPool)):
        levels = getattr(step, "levels", (0, 1))
        return PackedNetwork([(steps.Threshold(levels), [0]), (step, [1])], 2), shape
    return PackedNetwork([(step, [0])], 1), shape


def _channels(step: nn.Module) -> tuple[int, bool]:
    """Return the number of channels or features of a step's input, and whether it is an image."""
    if isinstance(step, (steps.BinaryProduct, steps.HeavisideProduct)):
        return step.shape[1] * step.groups, step.where is not None
    known = [getattr(step, name) for name in ("in_features", "in_channels", "num_features") if hasattr(step, name)]
    images = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, steps.MaxPool, steps.Mean)
    return known[0] if known else _own_channels(step), isinstance(step, images)


def _own_channels(step: nn.Module) -> int:
    """Return the number of channels to which the parameters of a step belong."""
    return max((value.shape[-1] for value in step.state_dict().values() if value.ndim), default=1)
