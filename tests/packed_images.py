"""Networks for images of 3 x 8 x 7, with all that programs of packed networks compute, and their random numbers."""

import torch
from torch import nn

from htaf_snn import nn as hnn


def conv(kind, a, b, **options):
    return kind(a, b, options.pop("window", 3), **options)


IMAGES = {
    "quantized": lambda: [
        hnn.QuantizeInput(), conv(hnn.BinaryConv2d, 3, 8, padding=1), nn.BatchNorm2d(8), hnn.BinaryActivation(),
        nn.MaxPool2d(2), conv(hnn.BinaryConv2d, 8, 5), nn.BatchNorm2d(5), hnn.BinaryActivation(), nn.Flatten(),
        hnn.BinaryLinear(10, 4),
    ],
    "strides": lambda: [
        hnn.BinaryActivation(), conv(hnn.BinaryConv2d, 3, 70, stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        hnn.BinaryActivation(levels=(0, 1)), conv(hnn.HeavisideConv2d, 70, 17, window=(1, 3), padding=(1, 0)),
    ],
    "groups": lambda: [
        hnn.BinaryActivation(), conv(hnn.BinaryConv2d, 3, 6, padding=1, groups=3, scale="magnitude"),
        nn.BatchNorm2d(6), hnn.BinaryActivation(), conv(hnn.HeavisideConv2d, 6, 140, padding=1, groups=2),
        hnn.BinaryActivation(), conv(hnn.BinaryConv2d, 140, 140, groups=140), nn.PReLU(),
    ],
    "pools": lambda: [
        hnn.BinaryActivation(), nn.MaxPool2d(3, 2, 1, ceil_mode=True), conv(hnn.BinaryConv2d, 3, 65, window=2),
        nn.BatchNorm2d(65), nn.Hardtanh(), hnn.RPReLU(65), hnn.BinaryActivation(channels=65), nn.MaxPool2d((2, 1)),
        nn.Flatten(), hnn.HeavisideLinear(390, 3, bias=True),
    ],
}  # fmt: skip


def drawn(layers):
    net = nn.Sequential(*layers).eval()
    for name, value in (*net.named_parameters(), *net.named_buffers()):
        if value.is_floating_point() and "surrogate" not in name:
            value.detach().copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return net
