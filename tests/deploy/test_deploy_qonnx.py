"""QONNX files of packed networks, executed by qonnx."""

import re

import published_nets as published
import pytest
import torch
from test_deploy_c import convolutions_of_levels, images_of_bits, quantized_convolutional
from torch import nn

from htaf_snn import deploy, models
from htaf_snn import nn as hnn

pytest.importorskip("qonnx", reason="qonnx is not installed")


def executed(path, x):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx

    model = ModelWrapper(str(path))
    return torch.from_numpy(execute_onnx(model, {"x": x.numpy()})[model.graph.output[0].name])


@pytest.mark.parametrize("make", [quantized_convolutional, convolutions_of_levels, images_of_bits])
@pytest.mark.parametrize("seed", range(2))
@torch.no_grad()
def test_layers_on_bits_are_equal(make, seed, tmp_path):
    torch.manual_seed(seed)
    packed, x = deploy.pack(published.trained(make(), torch.rand(20, 3, 5, 5))), torch.rand(40, 3, 5, 5)
    deploy.export_qonnx(packed, tmp_path / "net.onnx", (3, 5, 5), batch=40)
    assert torch.equal(executed(tmp_path / "net.onnx", x), packed(x))


REFUSED = {
    "quantized_mlp", "vgg", "keras_order", "functional_style", "reshaped", "functional_activations", "reactnet",
    "mobilenet", "classic_mlp", "downsampled", "pools_of_all_kinds",
}  # fmt: skip


@pytest.mark.parametrize("make", published.NETS)
@torch.no_grad()
def test_published_networks(make, tmp_path):
    torch.manual_seed(0)
    packed = deploy.pack(published.trained(make(), torch.rand(30, 1, 8, 8)))
    try:
        deploy.export_qonnx(packed, tmp_path / "net.onnx", (1, 8, 8), batch=50)
        assert make.__name__ not in REFUSED
    except ValueError as error:
        assert make.__name__ in REFUSED
        assert re.search(r"^[\w.]+: .* cannot be written in QONNX(; move it behind the activation.*)?$", str(error))
        assert not [*tmp_path.iterdir()]
        return
    x = torch.rand(50, 1, 8, 8)
    scores = executed(tmp_path / "net.onnx", x)
    # The first layers are in floating point, so a bit on a threshold may flip.
    assert torch.isclose(scores, packed(x), rtol=1e-4, atol=1e-4).all(1).float().mean() >= 0.97


WRITTEN = [make for make in published.NETS if make.__name__ not in REFUSED]


@pytest.mark.parametrize("make", [*WRITTEN, quantized_convolutional, convolutions_of_levels, images_of_bits])
def test_the_shapes_are_those_that_qonnx_infers(make, tmp_path):
    """Of every value, for one image unless the file is written for more."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    shape = (1, 8, 8) if make in WRITTEN else (3, 5, 5)
    packed = deploy.pack(published.trained(make(), torch.rand(30, *shape)))
    for batch in ({}, {"batch": 3}):
        deploy.export_qonnx(packed, tmp_path / "net.onnx", shape, **batch)
        model = ModelWrapper(str(tmp_path / "net.onnx"))
        assert model.get_tensor_shape("x") == [batch.get("batch", 1), *shape]
        inferred = ModelWrapper(str(tmp_path / "net.onnx"))
        del inferred.graph.value_info[:]
        inferred = inferred.transform(InferShapes())
        for node in model.graph.node:
            assert model.get_tensor_shape(node.output[0]) == inferred.get_tensor_shape(node.output[0]), node


def test_weights_and_activations_are_bipolar(tmp_path):
    import onnx

    torch.manual_seed(0)
    net = models.BinaryMLP(64, [32, 32], 10).eval()
    deploy.export_qonnx(deploy.pack(net), tmp_path / "net.onnx", (64,))
    graph = onnx.load(tmp_path / "net.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("BipolarQuant"), kinds.count("Quant")) == (4, 2)  # two weights and activations; image and head
    domains = {node.domain for node in graph.node if node.op_type.endswith("Quant")}
    assert domains == {"qonnx.custom_op.general"}


def test_thresholds_of_large_sums_are_exact(tmp_path):
    """Sums of up to 2**23, where the numbers of float32 are halves apart."""
    torch.manual_seed(0)
    sign = hnn.BinaryActivation
    net = nn.Sequential(sign(), hnn.HeavisideLinear(1, 400, bias=True), sign(), hnn.BinaryLinear(400, 3)).eval()
    packed, x = deploy.pack(net), torch.randn(64, 1)
    assert packed.steps[1].thresholds.abs().max() >= 0.9 * 2**23
    deploy.export_qonnx(packed, tmp_path / "net.onnx", (1,), batch=64)
    assert torch.equal(executed(tmp_path / "net.onnx", x), packed(x))
    wide = deploy.pack(nn.Sequential(hnn.QuantizeInput(), hnn.BinaryLinear(2**15 + 200, 1)).eval())
    with pytest.raises(ValueError, match=r"^1: expected sums below 2\*\*23 for QONNX, got up to 8406840"):
        deploy.export_qonnx(wide, tmp_path / "wide.onnx", (2**15 + 200,))


def test_bad_arguments_are_named(tmp_path):
    packed = deploy.pack(models.BinaryMLP(64, [8], 3).eval())
    with pytest.raises(TypeError, match=r"^network: expected a packed network, got Linear"):
        deploy.export_qonnx(nn.Linear(2, 2), tmp_path / "net.onnx", (2,))
    with pytest.raises(ValueError, match=r"^batch: expected an integer >= 1, got 0"):
        deploy.export_qonnx(packed, tmp_path / "net.onnx", (64,), batch=0)
    with pytest.raises(ValueError, match=r"^x: expected \(B, 64\) at this layer"):
        deploy.export_qonnx(packed, tmp_path / "net.onnx", (63,))
    assert not [*tmp_path.iterdir()]
