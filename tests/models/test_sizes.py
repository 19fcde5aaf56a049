"""Sizes of the models' layers and shapes of their inputs: taken, or refused by name."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from htaf_snn import models

FEATURES = {
    "BinaryMLP": lambda size: models.BinaryMLP(size, [4], 2),
    "SpikingMLP": lambda size: models.SpikingMLP(size, [4], 2, nn.Identity),
}
SHAPES = {
    "BinaryCNN": lambda shape: models.BinaryCNN(shape, [4], 2),
    "SpikingCNN": lambda shape: models.SpikingCNN(shape, [4], 2, nn.Identity),
    "PLIFNet": lambda shape: models.PLIFNet(shape, 2, nn.Identity, channels=4, n_hidden=4),
    "SpikingVGG11": lambda shape: models.SpikingVGG11(shape, 2, nn.Identity, pool=1, n_hidden=4),
    "SEWResNet": lambda shape: models.SEWResNet(18, shape, 2, nn.Identity, width=2),
    "Spikformer": lambda shape: models.Spikformer(shape, 2, nn.Identity, dim=8, n_heads=1, depth=1),
}
EITHER = {
    "DeepHeavisideNet": lambda shape: models.DeepHeavisideNet(shape, [4], 2),
    "ReLUNet": lambda shape: models.ReLUNet(shape, [4], 2),
}
WRONG_COUNTS = (1, 28, 28), 0, -4, 4.0, "4", True, None
WRONG_SHAPES = (8, 8), (4, 1, 8, 8), (1, 8, 0), (1.0, 8, 8), "188", None, torch.zeros(1, 8, 8)


def refused(make, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(value)


@pytest.mark.parametrize("name", FEATURES)
def test_features(name):
    for wrong in WRONG_COUNTS:
        refused(FEATURES[name], wrong, f"in_features: expected an integer of at least 1, got {re.escape(repr(wrong))}$")
    FEATURES[name](np.int64(4))


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name):
    for wrong in (*WRONG_SHAPES, 1):
        refused(SHAPES[name], wrong, r"in_shape: expected \(C, H, W\), three integers of at least 1, got ")
    for shape in ([1, 32, 32], torch.Size([1, 32, 32]), tuple(map(int, np.array([1, 32, 32])))):
        SHAPES[name](shape)


@pytest.mark.parametrize("name", EITHER)
def test_features_or_shapes(name):
    for wrong in (*WRONG_SHAPES, 0, True):
        refused(EITHER[name], wrong, r"in_shape: expected the number of features or \(C, H, W\), .* got ")
    for shape in (np.int64(4), (1, 8, 8)):
        EITHER[name](shape)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("n_classes", lambda n: models.BinaryMLP(4, [4], n)),
        ("n_classes", lambda n: models.BinaryCNN((1, 8, 8), [4], n)),
        ("n_classes", lambda n: models.DeepHeavisideNet(4, [4], n)),
        ("n_classes", lambda n: models.ReLUNet(4, [4], n)),
        ("n_classes", lambda n: models.SpikingMLP(4, [4], n, nn.Identity)),
        ("n_classes", lambda n: models.SpikingCNN((1, 8, 8), [4], n, nn.Identity)),
        ("depth", lambda n: models.BinaryResNet(n)),
        ("in_channels", lambda n: models.BinaryResNet(8, n)),
        ("n_classes", lambda n: models.BinaryResNet(8, 1, n)),
        ("width", lambda n: models.ReLUResNet(8, 1, 2, width=n)),
        ("in_channels", lambda n: models.ImageEncoder(n)),
        ("width", lambda n: models.ImageEncoder(1, n)),
    ],
)
def test_counts(name, make):
    for wrong in WRONG_COUNTS:
        refused(make, wrong, f"{name}: expected an integer of at least 1, got {re.escape(repr(wrong))}$")


@pytest.mark.parametrize(
    "make", [lambda c: models.BinaryCNN((1, 8, 8), c, 2), lambda c: models.SpikingCNN((1, 8, 8), c, 2, nn.Identity)]
)
def test_channels(make):
    for wrong in (4, [], [4, 0], "4"):
        refused(make, wrong, f"channels: expected one or more positive integers, got {re.escape(repr(wrong))}$")
