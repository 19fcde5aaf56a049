"""Networks as C: compiled without a warning, with the results of the packed network, and within their memory."""

import ctypes
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_nets import NETS, Net, conv, sign, step, trained
from test_deploy_options import network
from torch import nn

from htaf_snn import deploy, models
from htaf_snn import nn as hnn

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1"]
COMPILERS = [pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"{name} is not installed"))
             for name in ("gcc", "clang")]  # fmt: skip
pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
MAIN = """
#include <stdint.h>
#include <stdio.h>
int net(const uint8_t *image, float *scores);
int main(void) {
    uint8_t image[INPUTS];
    float scores[CLASSES];
    while (fread(image, 1, INPUTS, stdin) == INPUTS) {
        net(image, scores);
        fwrite(scores, sizeof(float), CLASSES, stdout);
    }
    return 0;
}
"""


def compiled(folder, compiler="gcc"):
    command = [compiler, *STRICT, "-shared", "-fPIC", "-o", folder / "net.so", folder / "net.c"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(folder / "net.so")).net


def run(function, images, classes):
    """Return the scores and the numbers that the function returns for images (B, …), uint8."""
    scores, best = np.empty((len(images), classes), np.float32), np.empty(len(images), int)
    for i, image in enumerate(images.numpy()):
        image = np.ascontiguousarray(image)
        best[i] = function(image.ctypes.data_as(ctypes.c_void_p), scores[i].ctypes.data_as(ctypes.c_void_p))
    return torch.from_numpy(scores), torch.from_numpy(best)


def assert_same(packed, shape, folder, n=50, compiler="gcc"):
    sizes = deploy.export_c(packed, folder / "net.c", shape)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8)
    expected = packed(images.float() / 255).flatten(1)
    scores, best = run(compiled(folder, compiler), images, expected.shape[1])
    assert torch.equal(scores, expected)
    assert torch.equal(best, expected.argmax(1))
    return sizes


def quantized_convolutional():
    """Bits from the first layer on, through a linear layer of levels."""
    return nn.Sequential(
        nn.Flatten(), hnn.QuantizeInput(), hnn.BinaryLinear(75, 66), nn.BatchNorm1d(66), sign(),
        hnn.BinaryLinear(66, 40, scale="magnitude"), nn.BatchNorm1d(40), nn.Hardtanh(), step(),
        hnn.HeavisideLinear(40, 37), sign(), hnn.HeavisideLinear(37, 33, bias=True), nn.BatchNorm1d(33), step(),
        hnn.BinaryLinear(33, 7, bias=True, scale="learned"),
    )  # fmt: skip


def convolutions_of_levels():
    """Bits from a convolution of an image's levels on."""
    return nn.Sequential(
        hnn.QuantizeInput(), hnn.BinaryConv2d(3, 66, 3, 2, 1, groups=3, scale="magnitude"), nn.BatchNorm2d(66), sign(),
        hnn.BinaryConv2d(66, 20, (3, 2), bias=True), nn.BatchNorm2d(20), sign(), nn.Flatten(),
        hnn.BinaryLinear(40, 7, scale="learned"),
    )  # fmt: skip


def images_of_bits():
    """A first activation of the pixels themselves, so that all is in integers."""
    return nn.Sequential(
        hnn.BinaryActivation(channels=3), conv(3, 40), nn.BatchNorm2d(40), sign(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        hnn.BinaryConv2d(40, 34, (2, 3), (1, 2), (1, 0), groups=2, bias=True), nn.BatchNorm2d(34), step(),
        hnn.HeavisideConv2d(34, 17, 3, padding=2, dilation=2), nn.BatchNorm2d(17), sign(),
        hnn.HeavisideConv2d(17, 17, 3, padding=1, groups=17), step(), nn.Flatten(), hnn.HeavisideLinear(17 * 4, 5),
    )  # fmt: skip


@pytest.mark.parametrize("make", [quantized_convolutional, convolutions_of_levels, images_of_bits])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("seed", range(3))
def test_c_equals_the_packed_network(make, compiler, seed, tmp_path):
    torch.manual_seed(seed)
    net = make()
    packed = deploy.pack(trained(net, torch.rand(20, 3, 5, 5)))
    assert_same(packed, (3, 5, 5), tmp_path, compiler=compiler)


POOLS = [
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0), "ceil_mode": True, "count_include_pad": False},
    {"kernel_size": (4, 2), "stride": (3, 3), "padding": (2, 1), "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True, "divisor_override": 7},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
@pytest.mark.parametrize("sides", [(7, 8), (9, 6)])
def test_average_pools_are_those_of_torch(options, sides, tmp_path):
    torch.manual_seed(0)
    assert_same(deploy.pack(nn.Sequential(nn.AvgPool2d(**options), nn.Flatten()).eval()), (2, *sides), tmp_path)


def test_a_binary_resnet(tmp_path):
    """With an odd side, so that the pools of its shortcuts jut out."""
    torch.manual_seed(0)
    packed = deploy.pack(trained(models.BinaryResNet(8, 1, 4, width=4), torch.rand(30, 1, 9, 9)))
    deploy.export_c(packed, tmp_path / "net.c", (1, 9, 9))
    images = torch.randint(0, 256, (200, 1, 9, 9), dtype=torch.uint8)
    scores, _ = run(compiled(tmp_path), images, 4)
    # The shortcuts are in floating point, so a bit on a threshold may flip.
    close = torch.isclose(scores, packed(images.float() / 255), rtol=1e-4, atol=1e-4).all(1)
    assert close.float().mean() >= 0.97


@pytest.mark.thorough
def test_ten_thousand_images(tmp_path):
    torch.manual_seed(0)
    net = trained(models.BinaryMLP(784, [128, 128], 10), torch.rand(50, 784))
    sizes = assert_same(deploy.pack(net), (1, 28, 28), tmp_path, n=10_000)
    # Words of 32 bits: 25 and 4 for an input and 128 outputs, twice, 4 for 10, and thresholds and factors.
    assert sizes["ram"] == 4 * (4 + 4 + 10)
    weights = 4 * (128 * 25 + 128 * 4) + 10 * 128 * deploy.pack(net).steps[-1].weight.element_size()
    assert 0.5 * weights < sizes["flash"] < 1.1 * weights


REFUSED = {"quantized_mlp", "vgg", "keras_order", "functional_style", "reshaped", "functional_activations"}


@pytest.mark.parametrize("make", NETS)
def test_published_networks(make, tmp_path):
    torch.manual_seed(0)
    net = trained(make(), torch.rand(30, 1, 8, 8))
    packed = deploy.pack(net)
    if make.__name__ in REFUSED:
        with pytest.raises(ValueError, match=r"^[\w.]+: .* cannot be written in C"):
            deploy.export_c(packed, tmp_path / "net.c", (1, 8, 8))
        assert not (tmp_path / "net.c").exists()
        return
    deploy.export_c(packed, tmp_path / "net.c", (1, 8, 8))
    images = torch.randint(0, 256, (200, 1, 8, 8), dtype=torch.uint8)
    expected = packed(images.float() / 255)
    scores, _ = run(compiled(tmp_path), images, 5)
    # The first layers are in floating point, so a bit on a threshold may flip.
    close = torch.isclose(scores, expected, rtol=1e-4, atol=1e-4).all(1)
    assert close.float().mean() >= 0.97


# Layers whose sums torch may round otherwise.
ROUNDED = (nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.BatchNorm1d, nn.BatchNorm2d, deploy.steps.Mean)


@pytest.mark.hypothesis
def test_random_networks_are_equal_or_refused(tmp_path):
    outcomes = []

    @settings(max_examples=examples(ci=10, thorough=300),
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(data=st.data(), seed=st.integers(0, 2**31))
    def check(data, seed):
        torch.manual_seed(seed)
        net, x = network(data)
        try:
            packed = deploy.pack(net)
            deploy.export_c(packed, tmp_path / "net.c", tuple(x.shape[1:]))
        except ValueError as error:
            outcomes.append(str(error))
            return
        images = torch.randint(0, 256, (4, *x.shape[1:]), dtype=torch.uint8)
        expected = packed(images.float() / 255).flatten(1)
        so = tmp_path / f"net{len(outcomes)}.so"
        subprocess.run(["gcc", *STRICT, "-shared", "-fPIC", "-o", so, tmp_path / "net.c"], check=True)
        scores, _ = run(ctypes.CDLL(str(so)).net, images, expected.shape[1])
        so.unlink()
        if any(isinstance(one, ROUNDED) for one in packed.steps):
            close = torch.isclose(scores, expected, rtol=1e-3, atol=1e-3).all(1)
            flips = any(isinstance(one, deploy.steps.ON_BITS) for one in packed.steps)
            assert close.all() or (flips and close.float().mean() >= 0.75), (scores, expected)
            outcomes.append("close")
            return
        assert torch.equal(scores, expected)
        outcomes.append("equal")

    check()
    assert outcomes.count("equal") >= len(outcomes) // 10
    reasons = r"cannot be written in C|not of two levels|without running|Flatten\(1\)|indices|in place|for C"
    refused = [outcome for outcome in outcomes if outcome not in ("equal", "close")]
    assert all(re.search(reasons, outcome) for outcome in refused), refused


@torch.no_grad()
def test_what_c_would_compute_otherwise_is_refused(tmp_path):
    """A linear layer on an image, and a sum of values of several shapes."""
    layers = [nn.Linear(8, 8), nn.Flatten(), sign(), hnn.BinaryLinear(192, 4)]
    broadcast = Net(lambda net, x: net.c(x) + net.c(x).mean((2, 3), keepdim=True), c=nn.Conv2d(3, 2, 3))
    for net in (nn.Sequential(*layers), broadcast):
        with pytest.raises(ValueError, match=r"^(0|add): .* cannot be written in C"):
            deploy.export_c(deploy.pack(net.eval()), tmp_path / "net.c", (3, 8, 8))


@torch.no_grad()
def test_bytes_are_of_the_range_of_the_network(tmp_path):
    torch.manual_seed(0)
    parts = {"q": hnn.QuantizeInput(0.25, 3.25), "bits": hnn.BinaryLinear(6, 4), "real": nn.Hardtanh(0, 1)}
    net = Net(lambda net, x: torch.cat([net.bits(net.q(x)), net.real(x)], 1), **parts).eval()
    packed = deploy.pack(net)
    deploy.export_c(packed, tmp_path / "net.c", (6,))
    images = torch.randint(0, 256, (50, 6), dtype=torch.uint8)
    scores, _ = run(compiled(tmp_path), images, 10)
    torch.testing.assert_close(scores, packed(images.float() / 255 * 3 + 0.25), rtol=1e-6, atol=1e-6)
    parts["other"] = hnn.QuantizeInput(0, 1)
    two = Net(lambda net, x: net.bits(net.q(x)) + net.bits(net.other(x)), **parts).eval()
    with pytest.raises(ValueError, match=r"^network: expected one range of images"):
        deploy.export_c(deploy.pack(two), tmp_path / "net.c", (6,))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_sanitizers_find_nothing(compiler, tmp_path):
    torch.manual_seed(0)
    packed = deploy.pack(trained(images_of_bits(), torch.rand(20, 3, 5, 5)))
    deploy.export_c(packed, tmp_path / "net.c", (3, 5, 5))
    (tmp_path / "main.c").write_text(MAIN.replace("INPUTS", "75").replace("CLASSES", "5"))
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    command = [compiler, *STRICT, *flags, "-o", tmp_path / "net", tmp_path / "main.c", tmp_path / "net.c"]
    subprocess.run(command, check=True)
    images = torch.randint(0, 256, (40, 3, 5, 5), dtype=torch.uint8)
    process = subprocess.run([tmp_path / "net"], input=images.numpy().tobytes(), capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"")
    scores = torch.from_numpy(np.frombuffer(process.stdout, np.float32).reshape(40, 5).copy())
    assert torch.equal(scores, packed(images.float() / 255))


@pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="arm-none-eabi-gcc is not installed")
def test_a_microcontroller_has_room(tmp_path):
    torch.manual_seed(0)
    packed = deploy.pack(trained(models.BinaryMLP(784, [128], 10), torch.rand(20, 784)))
    sizes = deploy.export_c(packed, tmp_path / "net.c", (784,))
    command = ["arm-none-eabi-gcc", *STRICT, "-Os", "-mcpu=cortex-m4", "-mthumb", "-c", "net.c", "-o", "net.o"]
    subprocess.run(command, check=True, cwd=tmp_path)
    text, data, bss = map(int, subprocess.run(
        ["arm-none-eabi-size", tmp_path / "net.o"], check=True, capture_output=True, text=True
    ).stdout.splitlines()[1].split()[:3])  # fmt: skip
    assert bss == sizes["ram"] and data == 0
    assert sizes["flash"] <= text <= sizes["flash"] + 2048  # the program


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"path": "net.cpp"}, ValueError, "^path: expected NAME.c with a name for a function of C .*got 'net.cpp'"),
        ({"path": "my-net.c"}, ValueError, "^path: expected NAME.c"),
        ({"path": "float.c"}, ValueError, "^path: expected NAME.c"),
        ({"path": "count.c"}, ValueError, "^path: expected NAME.c"),
        ({"shape": (8, 8)}, ValueError, r"^shape: expected \(C, H, W\) or \(features,\), got \(8, 8\)"),
        ({"shape": (1, 0, 8)}, ValueError, "^shape: expected"),
        ({"shape": (1, 8, 9)}, ValueError, r"^x: expected \(B, 64\) at this layer, got \(1, 72\)"),
        ({"network": models.BinaryMLP(64, [8], 3)}, TypeError, "^network: expected a packed network, got BinaryMLP"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message, tmp_path):
    network = deploy.pack(models.BinaryMLP(64, [8], 3).eval())
    given = {"network": network, "path": "net.c", "shape": (1, 8, 8)} | arguments
    given["path"] = tmp_path / given["path"]
    with pytest.raises(error, match=message):
        deploy.export_c(**given)
    assert not list(tmp_path.iterdir())
