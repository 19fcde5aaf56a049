"""Which steps the exports write, asked of each on its own, before a shape of images is known."""

from __future__ import annotations

import re

import torch
from torch import nn

from . import steps
from .c_source import Source
from .network import PackedNetwork
from .plain import Plain
from .qonnx import Graph

TARGETS = ("c", "onnx", "qonnx")
_SIDE = 64
_OVER_TIME = (steps.ToRows, steps.FromRows, steps.Neurons, steps.MeanOverTime)
_ANY_SHAPE = (steps.Add, steps.Cat, steps.Flatten, steps.FromRows, steps.MeanOverTime, steps.Quantize, steps.ToRows)


def why_not_written(step: nn.Module, target: str) -> str | None:
    """Return why an export refuses a step, whatever the image's shape; None if it takes it, or if the shape decides.

    Args:
        step: of a packed network.
        target: one of `TARGETS`.
    """
    if target != "c" and isinstance(step, _OVER_TIME):
        return f"cannot be written in {target.upper()}, which has no time; see export_c"
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
        return re.sub(r"^(step \d+|model): ", "", str(error))
    return None


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
