"""Networks of random layers with every option: packed, saved and loaded they are equal, or refused by name."""

import os
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from htaf_snn import deploy
from htaf_snn import nn as hnn

REASONS = r"not of two levels|without running statistics|expected Flatten\(1\)|returns indices|changes in place"
EXAMPLES = int(os.environ.get("HTAF_EXAMPLES", "60"))
found = {"packed": 0, "refused": 0}

sizes = st.integers(1, 3)
levels = st.sampled_from([(-1, 1), (0, 1)])
binary = {
    "bias": st.booleans(),
    "scale": st.sampled_from(["none", "magnitude", "learned"]),
    "estimator": st.sampled_from(["clipped_ste", "magnitude_aware", "htaf"]),
}
norm = {
    "eps": st.sampled_from([1e-5, 0.5]),
    "momentum": st.sampled_from([0.1, None]),
    "affine": st.booleans(),
    "track_running_stats": st.sampled_from([True, True, True, False]),
}
window = {"kernel_size": sizes, "padding": st.integers(0, 1)}
places = {
    "kernel_size": st.one_of(sizes, st.tuples(sizes, sizes)),
    "stride": st.integers(1, 2),
    "padding": st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 1), st.integers(0, 2))),
    "dilation": st.integers(1, 2),
}
modes = st.sampled_from(["zeros", "reflect", "replicate", "circular"])
pool = window | {"stride": st.sampled_from([None, 1, 2]), "ceil_mode": st.booleans()}


def drawn(data, **options):
    return {name: data.draw(option, label=name) for name, option in options.items()}


def groups(data, channels):
    return data.draw(st.sampled_from([1, channels]), label="groups")


def wider(channels):
    return 2 * channels if channels < 40 else channels


def convolution(data, channels):
    by = groups(data, channels)
    where = drawn(data, **places, bias=st.booleans(), padding_mode=modes)
    if where["stride"] == 1 and data.draw(st.booleans()):
        where["padding"] = data.draw(st.sampled_from(["same", "valid"]), label="padding")
    return nn.Conv2d(channels, wider(channels), groups=by, **where)


IMAGES = {
    "conv": convolution,
    "norm": lambda data, n: nn.BatchNorm2d(n, **drawn(data, **norm)),
    "rprelu": lambda data, n: hnn.RPReLU(n),
    "prelu": lambda data, n: nn.PReLU(data.draw(st.sampled_from([1, n])), data.draw(st.sampled_from([0.25, -0.5]))),
    "relu": lambda data, n: nn.ReLU(data.draw(st.booleans(), label="inplace")),
    "average": lambda data, n: nn.AvgPool2d(
        **drawn(data, **pool, count_include_pad=st.booleans(), divisor_override=st.sampled_from([None, 3]))
    ),
    "adaptive": lambda data, n: nn.AdaptiveAvgPool2d(data.draw(st.sampled_from([1, 2, (None, 2)]), label="output_size")),
    "maximum": lambda data, n: nn.MaxPool2d(
        **drawn(data, **pool, dilation=st.integers(1, 2), return_indices=st.sampled_from([False] * 9 + [True]))
    ),
    "activation": lambda data, n: hnn.BinaryActivation("htaf", *drawn(data, levels=levels).values(), shift(data, n)),
    "dropout": lambda data, n: data.draw(st.sampled_from([nn.Dropout, nn.Dropout2d, nn.Identity]))(),
    "binary": lambda data, n: hnn.BinaryConv2d(
        n, wider(n), groups=groups(data, n), **drawn(data, **places, **binary)
    ),
    "heaviside": lambda data, n: hnn.HeavisideConv2d(
        n, wider(n), groups=groups(data, n), **drawn(data, **places, bias=st.booleans())
    ),
    "flatten": lambda data, n: nn.Flatten(*data.draw(st.sampled_from([(1,), (1, -1), (1, -1), (2,), (1, 2)]))),
}
FEATURES = {
    "linear": lambda data, n: nn.Linear(n, data.draw(st.integers(1, 70)), data.draw(st.booleans())),
    "norm": lambda data, n: nn.BatchNorm1d(n, **drawn(data, **norm)),
    "dropout": lambda data, n: data.draw(st.sampled_from([nn.Dropout, nn.Identity]))(),
    "binary": lambda data, n: hnn.BinaryLinear(n, data.draw(st.integers(1, 70)), **drawn(data, **binary)),
    "heaviside": lambda data, n: hnn.HeavisideLinear(n, data.draw(st.integers(1, 70)), data.draw(st.booleans())),
    "flatten": lambda data, n: nn.Flatten(),
    **{name: IMAGES[name] for name in ("rprelu", "prelu", "relu", "activation")},
}
# What a binary network is made of, in one piece, so that most networks have some of it.
BLOCKS = (["activation", "binary"], ["activation", "maximum", "binary"], ["activation", "heaviside", "norm"])


def shift(data, channels):
    return data.draw(st.sampled_from([None, channels]), label="channels")


@torch.no_grad()
def network(data):
    """Layers one after another, each of which takes what the one before gives, with random numbers, and their input."""
    shape = data.draw(st.sampled_from([(2, 9, 8), (1, 6, 7), (3, 5, 5), (20,)]), label="shape")
    x = value = torch.rand(4, *shape)
    layers = [hnn.QuantizeInput()] if data.draw(st.booleans(), label="quantized") else []
    for _ in range(data.draw(st.integers(1, 4), label="parts")):
        kinds = IMAGES if value.ndim == 4 else FEATURES
        part = data.draw(st.one_of(st.sampled_from([[kind] for kind in kinds]), st.sampled_from(BLOCKS)))
        for kind in part:
            kinds = IMAGES if value.ndim == 4 else FEATURES
            if kind not in kinds or value.ndim not in (2, 4):
                continue
            layer = randomised(kinds[kind](data, value.shape[1])).eval()
            try:
                after = layer(value.clone())
            except (RuntimeError, ValueError):  # the options do not fit the image
                continue
            if isinstance(after, tuple):  # indices too, which nothing takes
                return nn.Sequential(*layers, layer).eval(), x
            if after.isfinite().all():  # not so where a window lies outside of the image
                layers.append(layer)
                value = after
    return nn.Sequential(*layers).eval(), x


def randomised(layer):
    for name, value in (*layer.named_parameters(), *layer.named_buffers()):
        if value.is_floating_point() and "surrogate" not in name and "estimator" not in name:
            value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value))
    return layer


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_random_networks_are_equal_or_refused(tmp_path_factory, data, seed):
    torch.manual_seed(seed)
    net, x = network(data)
    try:
        packed = deploy.pack(net)
    except ValueError as error:
        assert re.search(rf"^\d+: .*({REASONS})", str(error)), error
        found["refused"] += 1
        return
    path = tmp_path_factory.getbasetemp() / "net.safetensors"
    deploy.save(packed, path)
    with torch.no_grad():
        expected = net(x.clone())
    assert torch.equal(packed(x), expected)
    assert torch.equal(deploy.load(path)(x), expected)
    found["packed"] += 1


def test_random_networks_were_packed():
    assert found["packed"] >= EXAMPLES // 3
