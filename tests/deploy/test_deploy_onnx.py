"""ONNX files of networks, run by ONNX Runtime."""

import published_nets as published
import pytest
import torch
from test_deploy_c import convolutions_of_levels, images_of_bits, quantized_convolutional
from test_deploy_options import Forward
from torch import nn

from htaf_snn import deploy, models
from htaf_snn import nn as hnn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NETWORKS = {
    "mlp": (lambda: models.BinaryMLP(30, [17, 9], 4), (30,)),
    "heaviside": (lambda: models.DeepHeavisideNet(30, [17, 9, 8], 4), (30,)),
    "convolutions": (lambda: models.DeepHeavisideNet((1, 9, 9), [5, 7], 4), (1, 9, 9)),
    "resnet": (lambda: models.BinaryResNet(8, 1, 4, width=4), (1, 9, 9)),
    "magnitudes and shifts": (
        lambda: nn.Sequential(
            hnn.BinaryActivation("atan", channels=12),
            hnn.BinaryLinear(12, 7, bias=True, scale="magnitude", surrogate="ede"),
            hnn.BinaryActivation("htaf(normalized=True, hardness=0.0)", (0, 1)),
            hnn.HeavisideLinear(7, 4),
        ),
        (12,),
    ),
}


def trained(name):
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    net = make()
    for _ in range(3):
        net(torch.rand(16, *shape))
    return net.eval(), shape


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_the_same(tmp_path, name):
    net, shape = trained(name)
    report = deploy.export_onnx(net, tmp_path / "net.onnx", torch.rand(6, *shape))
    assert report["opset"] == deploy.export.OPSET == 18
    assert report["max_difference"] < 1e-5
    assert report["same_class"] == 1
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == 18
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for batch in (1, 200):
        x = torch.rand(batch, *shape)
        torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), net(x))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("name", ["mlp", "heaviside", "convolutions", "resnet", "magnitudes and shifts"])
def test_the_file_of_a_packed_network_is_exact(tmp_path, name):
    net, shape = trained(name)
    packed = deploy.pack(net)
    report = deploy.export_onnx(packed, tmp_path / "net.onnx", torch.rand(6, *shape))
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for batch in (1, 300):
        x = torch.rand(batch, *shape)
        scores = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        if name in ("convolutions", "resnet"):  # their first layer is in floating point
            torch.testing.assert_close(scores, packed(x), rtol=1e-5, atol=1e-5)
        else:
            assert report["max_difference"] == 0 and torch.equal(scores, packed(x))


@pytest.mark.thorough
@pytest.mark.parametrize("make", [quantized_convolutional, convolutions_of_levels, images_of_bits])
@torch.no_grad()
def test_all_layers_on_bits_are_exact(tmp_path, make):
    torch.manual_seed(1)
    packed = deploy.pack(published.trained(make(), torch.rand(20, 3, 5, 5)))
    x = torch.rand(500, 3, 5, 5)
    assert torch.equal(deploy.plain.Plain(packed)(x), packed(x))
    report = deploy.export_onnx(packed, tmp_path / "net.onnx", x)
    assert (report["max_difference"], report["same_class"]) == (0, 1)


@pytest.mark.parametrize("make", published.NETS)
@torch.no_grad()
def test_published_networks(make):
    torch.manual_seed(0)
    packed, x = deploy.pack(published.trained(make(), torch.rand(30, 1, 8, 8))), torch.rand(100, 1, 8, 8)
    # A mean over an image is rounded by its layout in memory.
    torch.testing.assert_close(deploy.plain.Plain(packed)(x), packed(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", [deploy.pack, lambda net: net])
@pytest.mark.parametrize("ranges", [((0, 1), (0, 1)), ((0, 1), (-1, 2))])
def test_one_image_quantized_twice(tmp_path, ranges, form):
    first, second = (hnn.QuantizeInput(*own) for own in ranges)
    net = Forward(lambda net, x: net.head(net.first(x) + net.second(x)), first=first, second=second)
    net.head = nn.Linear(6, 3)
    report = deploy.export_onnx(form(net.eval()), tmp_path / "net.onnx", torch.rand(5, 6))
    assert report["max_difference"] < 1e-5


def test_sums_beyond_float32_are_in_float64(tmp_path):
    """Of an image of more than 2**24 / 255 levels."""
    torch.manual_seed(0)
    net = nn.Sequential(hnn.QuantizeInput(), hnn.BinaryLinear(70_000, 2)).eval()
    packed, x = deploy.pack(net), torch.rand(3, 70_000)
    assert deploy.plain.Plain(packed).steps[1].dtype == torch.float64
    assert deploy.export_onnx(packed, tmp_path / "net.onnx", x)["max_difference"] == 0


def test_weights_take_one_byte(tmp_path):
    net = models.BinaryMLP(784, [256], 10).eval()
    deploy.export_onnx(deploy.pack(net), tmp_path / "net.onnx", torch.rand(2, 784))
    assert (tmp_path / "net.onnx").stat().st_size < 1.2 * (784 * 256 + 4 * 2560)


def test_a_difference_is_reported_and_nothing_is_written(tmp_path, monkeypatch):
    net, shape = trained("mlp")
    monkeypatch.setattr(deploy.export, "_with_plain_weights", lambda model: trained("heaviside")[0])
    with pytest.raises(RuntimeError, match="scores differ from the model's by up to"):
        deploy.export_onnx(net, tmp_path / "net.onnx", torch.rand(6, *shape))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("neuron", [lambda: hnn.Leaky(beta=0.9), lambda: hnn.RLeaky(beta=0.9, linear_features=3)])
def test_spiking_networks_are_refused(tmp_path, neuron):
    message = "^model: expected a network of images for ONNX, got a spiking one; see export_c$"
    net = hnn.Sequential(nn.Linear(4, 3), neuron()).eval()
    nets = [net, deploy.pack(net)] if isinstance(net[1], hnn.Leaky) else [net]
    for own in nets:
        with pytest.raises(ValueError, match=message):
            deploy.export_onnx(own, tmp_path / "net.onnx", torch.rand(5, 2, 4))


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x[:, :2]


@pytest.mark.parametrize(
    ("net", "example", "error", "words"),
    [
        (models.BinaryMLP(4, [3], 2), torch.rand(2, 4), ValueError, "expected eval mode"),
        (models.BinaryMLP(4, [3], 2).double().eval(), torch.rand(2, 4), ValueError, "expected float32"),
        ("net", torch.rand(2, 4), TypeError, "expected a module"),
        (models.BinaryMLP(4, [3], 2).eval(), torch.ones(2, 4).int(), TypeError, "^example: expected a floating-point"),
        (Untraceable().eval(), torch.rand(2, 3), ValueError, "torch.export can trace"),
    ],
)
def test_bad_input_is_named(tmp_path, net, example, error, words):
    with pytest.raises(error, match=words):
        deploy.export_onnx(net, tmp_path / "net.onnx", example)
    assert not [*tmp_path.iterdir()]


def test_a_missing_library_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    net, shape = trained("mlp")
    with pytest.raises(ImportError, match=r'onnxscript is not installed; pip install ".\[onnx\]"'):
        deploy.export_onnx(net, tmp_path / "net.onnx", torch.rand(2, *shape))
