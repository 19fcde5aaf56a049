"""Networks that an export refuses for more than one of their layers: `check` says so, in the same words."""

import re
import shutil
import subprocess

import pytest
import torch
from test_deploy_options import Forward
from torch import nn

from htaf_snn import deploy
from htaf_snn import nn as hnn
from htaf_snn.deploy import c_names

EXPORTS = {"c": deploy.export_c, "qonnx": deploy.export_qonnx}
NOT_FIRST = "expected QuantizeInput first for C, got it behind another layer"
TWO_RANGES = "expected one range of images"


def behind(*layers):
    last = hnn.QuantizeInput(-4.0, 4.0), nn.Flatten(), hnn.BinaryLinear(8, 3)
    return nn.Sequential(*layers, *last)


def twice(first, second):
    net = Forward(lambda net, x: net.head(net.first(x) + net.second(x)), first=first, second=second)
    net.head = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    return net


NETWORKS = {
    "behind BatchNorm": (lambda: behind(nn.BatchNorm2d(2, affine=False)), {"c": NOT_FIRST}),
    "behind a pool": (lambda: behind(nn.Conv2d(2, 8, 1), nn.AdaptiveAvgPool2d(1)), {"c": NOT_FIRST}),
    "behind ReLU": (lambda: behind(nn.ReLU()), {"c": NOT_FIRST}),
    "behind itself": (lambda: behind(hnn.QuantizeInput()), {"c": NOT_FIRST}),
    "behind Flatten": (lambda: behind(nn.Dropout(), nn.Flatten()), {}),
    "of one range": (lambda: twice(hnn.QuantizeInput(), hnn.QuantizeInput()), {}),
    "of two ranges": (
        lambda: twice(hnn.QuantizeInput(), hnn.QuantizeInput(-1.0, 1.0)), dict.fromkeys(EXPORTS, TWO_RANGES)
    ),
}  # fmt: skip


@pytest.mark.parametrize("target", EXPORTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_where_images_are_quantized(name, target, tmp_path):
    if target == "qonnx":
        pytest.importorskip("onnx")
    make, refused = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    if name == "behind BatchNorm":
        net[0](torch.rand(50, 2, 2, 2))
    result, packed = deploy.check(net, target), deploy.pack(net.eval())
    reasons = [layer.reason for layer in result.layers if not layer.is_written]
    assert result.exports == (target not in refused) == (not reasons)
    if reasons:
        assert len(reasons) == 1 and reasons[0].startswith(refused[target])
        with pytest.raises(ValueError, match=rf"^[\w.]+: {re.escape(reasons[0])}$"):
            EXPORTS[target](packed, tmp_path / "net.c", (2, 2, 2))
    else:
        EXPORTS[target](packed, tmp_path / "net.c", (2, 2, 2))
    assert deploy.check(net, "onnx").exports


@pytest.mark.parametrize("target", EXPORTS)
@pytest.mark.parametrize(
    ("size", "is_written"), [(1, True), ((1, 1), True), ([1, 1], True), (2, False), ((1, 2), False)]
)
def test_pools_to_one_pixel(size, is_written, target, tmp_path):
    if target == "qonnx":
        pytest.importorskip("onnx")
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.AdaptiveAvgPool2d(size), nn.Flatten()).eval()
    packed = deploy.pack(net)
    assert deploy.check(net, target).exports == is_written
    if is_written:
        EXPORTS[target](packed, tmp_path / "net.c", (2, 6, 6))
    else:
        with pytest.raises(ValueError, match=rf"^1: .* cannot be written in {target.upper()}$"):
            EXPORTS[target](packed, tmp_path / "net.c", (2, 6, 6))


def test_messages_hold_no_numbers_of_tensors(tmp_path):
    pytest.importorskip("onnx")
    x, net = torch.rand(4, 9), nn.Sequential(nn.Flatten(), hnn.HeavisideLinear(9, 3)).eval()
    packed = deploy.pack(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval())
    a_tensor = r"a torch\.float32 tensor of shape \(4, 9\)"
    with pytest.raises(TypeError, match=r"^model: expected a module, got a dict$"):
        deploy.pack(net.state_dict())
    for given, got in ((x, a_tensor), ((x, x, x), "a tuple"), ([x], "a list")):
        for export in EXPORTS.values():
            with pytest.raises(ValueError, match=rf"^shape: expected \(C, H, W\) or \(features,\), got {got}$"):
                export(packed, tmp_path / "net.c", given)
        with pytest.raises(ValueError, match=rf"^score: expected a function that returns a number, got {got}$"):
            deploy.round_weights(net, lambda net, given=given: given)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)])
@pytest.mark.parametrize("view", [nn.Dropout, nn.Flatten])
def test_a_pool_behind_quantize_input_is_named(pool, view):
    remedy = "; put the pool before QuantizeInput, or behind the layer"
    layers = hnn.QuantizeInput(), nn.Dropout(), pool, view()
    with pytest.raises(ValueError, match=rf", got the output of 2, {type(pool).__name__}{remedy}$"):
        deploy.pack(nn.Sequential(*layers, hnn.BinaryLinear(8, 3)).eval())
    with pytest.raises(ValueError, match=r"QuantizeInput before a binary layer, got the output of 0, QuantizeInput$"):
        deploy.pack(nn.Sequential(*layers, hnn.HeavisideLinear(8, 3)).eval())


def test_a_loop_over_time_has_a_remedy():
    net = Forward(lambda net, x: sum(net.a(x[t]) for t in range(x.shape[0])), a=nn.Linear(9, 3)).eval()
    remedy = r"; write the network without the loop, as htaf_snn\.nn\.Sequential$"
    with pytest.raises(ValueError, match=rf"^model: .*\){remedy}"):
        deploy.pack(net)


@pytest.mark.parametrize(
    "name", ["printf", "exp", "logf", "cabsl", "abs", "malloc", "strlen", "while", "main", "uint8_t", "INT_MAX", "NULL"]
)
def test_names_that_c_uses_are_refused(name, tmp_path):
    packed = deploy.pack(nn.Sequential(nn.Linear(9, 3)).eval())
    with pytest.raises(ValueError, match=rf"^path: expected NAME\.c .* C does not use .*, got '{name}\.c'$"):
        deploy.export_c(packed, tmp_path / f"{name}.c", (9,))
    deploy.export_c(packed, tmp_path / f"{name}_.c", (9,))
    deploy.export_c(packed, tmp_path / f"net_{name}.c", (9,))


@pytest.mark.thorough
def test_names_that_c_uses_are_those_that_gcc_refuses():
    """A function of the name, with the headers of a file: all that is refused, and what the headers declare."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed")
    command = [gcc, "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-xc", "-"]
    headers = "#include <limits.h>\n#include <stdint.h>\n#include <string.h>\n"
    content = subprocess.run([gcc, "-std=c99", "-E", "-P", "-xc", "-"], input=headers, text=True, capture_output=True)
    declared = {*re.findall(r"\b[A-Za-z_]\w*", content.stdout)}
    for name in sorted(declared | c_names._NAMES):
        prototype = f"int {name}(const uint8_t *image, float *scores)"
        source = f"{headers}{prototype};\n{prototype}\n{{ return scores[0] > (float)image[0]; }}\n"
        is_refused = subprocess.run(command, input=source, text=True, capture_output=True).returncode != 0
        assert c_names.is_of_c(name) or not is_refused, name
        assert is_refused or name not in c_names._NAMES, name
