"""Binary and Heaviside networks as people publish them, written anew."""

import torch
from torch import nn
from torch.nn import functional

from htaf_snn import nn as hnn


class Net(nn.Module):
    """Layers by name, and what forward does with them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.own = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.own(self, x)


def sign():
    return hnn.BinaryActivation()


def step():
    return hnn.BinaryActivation(levels=(0, 1))


def conv(a, b, **options):
    return hnn.BinaryConv2d(a, b, 3, padding=1, **options)


def classic_mlp():
    """As in Courbariaux et al. 2016: linear, BatchNorm, Hardtanh, sign; squared-hinge scores through BatchNorm."""

    def block(a, b):
        return [hnn.BinaryLinear(a, b), nn.BatchNorm1d(b), nn.Hardtanh(), sign()]

    first = [nn.Flatten(), nn.Linear(64, 40), nn.BatchNorm1d(40), nn.Hardtanh(), sign()]
    return nn.Sequential(
        *first, *block(40, 40), nn.Dropout(0.5), *block(40, 40), hnn.BinaryLinear(40, 5), nn.BatchNorm1d(5)
    )


def quantized_mlp():
    return nn.Sequential(nn.Flatten(), hnn.QuantizeInput(), hnn.BinaryLinear(64, 30), nn.BatchNorm1d(30), sign(),
                         hnn.BinaryLinear(30, 5), nn.LogSoftmax(1))  # fmt: skip


def vgg():
    """VGG-like: two convolutions and a pool per stage, linear layers at the end."""
    layers, channels = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardtanh(), sign()], 8
    for width in (8, 16):
        layers += [conv(channels, width), nn.BatchNorm2d(width), nn.Hardtanh(), sign()]
        layers += [conv(width, width), nn.MaxPool2d(2), nn.BatchNorm2d(width), nn.Hardtanh(), sign()]
        channels = width
    layers += [
        nn.Flatten(),
        hnn.BinaryLinear(64, 32),
        nn.BatchNorm1d(32),
        sign(),
        hnn.BinaryLinear(32, 5),
        nn.Softmax(1),
    ]
    return nn.Sequential(*layers)


def lenet():
    """In bits from the image's levels on, with pools behind the activations."""
    return nn.Sequential(
        hnn.QuantizeInput(), hnn.BinaryConv2d(1, 4, 5, padding=2), nn.BatchNorm2d(4), sign(), nn.MaxPool2d(2),
        hnn.BinaryConv2d(4, 6, 3), nn.BatchNorm2d(6), sign(), nn.Flatten(), hnn.BinaryLinear(24, 12),
        nn.BatchNorm1d(12), sign(), hnn.HeavisideLinear(12, 5),
    )  # fmt: skip


def keras_order():
    """As in Larq's examples: the activation belongs to the next layer, pools stand before BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(8, affine=False),
        sign(), hnn.BinaryConv2d(8, 12, 3), nn.BatchNorm2d(12, affine=False),
        nn.Flatten(), sign(), hnn.BinaryLinear(12, 5), nn.BatchNorm1d(5, affine=False), nn.Softmax(-1),
    )  # fmt: skip


def pool_after_sign():
    return nn.Sequential(nn.Conv2d(1, 6, 3), sign(), nn.MaxPool2d(2), hnn.BinaryConv2d(6, 6, 3), nn.BatchNorm2d(6),
                         step(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))  # fmt: skip


def functional_style():
    def forward(net, x):
        x = functional.relu(net.norm(net.conv(x)))
        x = functional.max_pool2d(net.sign(x), 2)
        x = net.second(x)
        x = functional.dropout(x, training=net.training)
        x = x.view(x.size(0), -1)
        return functional.log_softmax(net.head(x), dim=1)

    return Net(forward, conv=nn.Conv2d(1, 6, 3, padding=1), norm=nn.BatchNorm2d(6), sign=sign(), second=conv(6, 4),
               head=nn.Linear(64, 5))  # fmt: skip


def reshaped():
    def forward(net, x):
        x = net.body(x.reshape(-1, 64))
        return torch.softmax(net.head(x.flatten(1)), 1)

    return Net(forward, body=nn.Sequential(nn.Linear(64, 9), sign()), head=hnn.BinaryLinear(9, 5))


def global_mean():
    def forward(net, x):
        x = net.sign(net.first(x))
        x = net.norm(net.second(x))
        return net.head(x.mean((2, 3)))

    return Net(forward, first=nn.Conv2d(1, 6, 3), sign=step(), second=hnn.HeavisideConv2d(6, 7, 3),
               norm=nn.BatchNorm2d(7), head=nn.Linear(7, 5))  # fmt: skip


def mean_of_bits():
    def forward(net, x):
        return net.head(torch.mean(net.body(x), dim=[-2, -1], keepdim=True).reshape(x.shape[0], -1))

    body = nn.Sequential(nn.Conv2d(1, 6, 3), step(), conv(6, 70), nn.BatchNorm2d(70), step())
    return Net(forward, body=body, head=nn.Linear(70, 5))


def basic_block(channels):
    """Bi-Real Net's: a shortcut around every convolution."""

    def forward(net, x):
        x = net.norm1(net.conv1(net.sign1(x))) + x
        return net.norm2(net.conv2(net.sign2(x))) + x

    parts = {f"sign{i}": sign() for i in (1, 2)} | {f"conv{i}": conv(channels, channels) for i in (1, 2)}
    return Net(forward, **parts, **{f"norm{i}": nn.BatchNorm2d(channels) for i in (1, 2)})


def resnet():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), basic_block(8), basic_block(8),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))  # fmt: skip


def downsampled():
    def forward(net, x):
        x = net.stem(x)
        out = net.norm(net.conv(net.sign(x)))
        return net.head((out + net.down(x)).mean([2, 3]))

    down = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12))
    return Net(forward, stem=nn.Conv2d(1, 6, 3, padding=1), sign=sign(), conv=hnn.BinaryConv2d(6, 12, 3, 2, 1),
               norm=nn.BatchNorm2d(12), down=down, head=nn.Linear(12, 5))  # fmt: skip


def reactnet():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), hnn.BinaryActivation(channels=8), conv(8, 8), nn.BatchNorm2d(8),
        hnn.RPReLU(8), hnn.BinaryActivation(channels=8), hnn.BinaryConv2d(8, 16, 1), nn.BatchNorm2d(16), hnn.RPReLU(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def densenet():
    def forward(net, x):
        x = net.stem(x)
        for block in (net.first, net.second):
            x = torch.cat([x, block(x)], 1)
        return net.head(x.mean((2, 3)))

    def block(a):
        return nn.Sequential(nn.BatchNorm2d(a), sign(), conv(a, 6))

    return Net(forward, stem=nn.Conv2d(1, 6, 3), first=block(6), second=block(12), head=nn.Linear(18, 5))


def bits_concatenated():
    def forward(net, x):
        x = net.stem(x)
        return net.head(torch.cat((net.a(x), net.b(x)), dim=1))

    return Net(forward, stem=nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), a=sign(),
               b=nn.Sequential(sign(), hnn.BinaryLinear(9, 7), sign()), head=hnn.BinaryLinear(16, 5))  # fmt: skip


def mobilenet():
    """Depthwise and pointwise convolutions, with the step function's 0 and 1."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), step(), conv(8, 8, groups=8), nn.BatchNorm2d(8), step(),
        hnn.BinaryConv2d(8, 16, 1), nn.BatchNorm2d(16), nn.PReLU(16), step(), conv(16, 16, groups=4),
        nn.BatchNorm2d(16), nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), sign(),
        hnn.BinaryLinear(16, 5),
    )  # fmt: skip


def heaviside_deep():
    layers = [nn.Flatten(), nn.Linear(64, 20)]
    for _ in range(6):
        layers += [step(), hnn.HeavisideLinear(20, 20)]
    return nn.Sequential(*layers, nn.BatchNorm1d(20), nn.ReLU6(), step(), hnn.HeavisideLinear(20, 5))


def functional_activations():
    def forward(net, x):
        x = functional.hardtanh(net.norm(net.first(x.flatten(1))))
        x = net.sign(x)
        x = functional.leaky_relu(net.second(x), 0.2)
        return net.last(net.again(torch.relu(x).tanh())).sigmoid()

    return Net(forward, first=nn.Linear(64, 8), norm=nn.BatchNorm1d(8), sign=sign(), second=hnn.BinaryLinear(8, 8),
               again=sign(), last=hnn.BinaryLinear(8, 5))  # fmt: skip


def pools_of_all_kinds():
    def forward(net, x):
        x = functional.max_pool2d(net.sign(x), kernel_size=3, stride=2, padding=1, ceil_mode=True)
        x = functional.avg_pool2d(net.conv(x), 2)
        return net.head(torch.flatten(functional.adaptive_avg_pool2d(x, (1, 1)), start_dim=1))

    return Net(forward, sign=sign(), conv=conv(1, 6), head=nn.Linear(6, 5))


def shared_activation():
    def forward(net, x):
        return net.last(net.sign(net.second(net.sign(net.first(x.flatten(1))))))

    return Net(forward, sign=sign(), first=nn.Linear(64, 8), second=hnn.BinaryLinear(8, 8), last=hnn.BinaryLinear(8, 5))


NETS = (
    classic_mlp, quantized_mlp, vgg, keras_order, pool_after_sign, functional_style, reshaped, global_mean,
    mean_of_bits, resnet, downsampled, reactnet, densenet, bits_concatenated, mobilenet, heaviside_deep,
    functional_activations, pools_of_all_kinds, shared_activation, lenet,
)  # fmt: skip


def trained(net, x):
    net.train()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        for name in ("shift", "before", "after"):
            if isinstance(getattr(module, name, None), nn.Parameter):
                nn.init.normal_(getattr(module, name), 0, 0.3)
    for _ in range(3):
        net((x + 0.1 * torch.rand_like(x)).clamp(0, 1))
    return net.eval()
