"""Packed networks: equal to the networks they come from, in files that hold no code."""

import json
import operator
import re

import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from without_bits import assert_same_without_bits

from htaf_snn import deploy, models, training
from htaf_snn import nn as hnn

pytestmark = pytest.mark.usefixtures("by_programs")


def trained(net, x):
    """Randomise a network as training would: all parameters and statistics, BatchNorm's weights also negative and 0."""
    net.train()
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.weight.data.normal_()
            module.bias.data.normal_()
            module.weight.data[0] = 0
        for name in ("shift", "before", "after", "scale", "bias"):
            if isinstance(getattr(module, name, None), nn.Parameter):
                getattr(module, name).data.normal_(0, 0.3)
    for _ in range(2):
        net((x + 0.1 * torch.rand_like(x)).clamp(0, 1))
    return net.eval()


def hidden_bits(net, x):
    """The output of each activation, True for the upper level."""
    bits = []
    modules = [m for m in net.modules() if isinstance(m, hnn.BinaryActivation)]
    handles = [m.register_forward_hook(lambda _, inputs, output: bits.append(output > 0.5)) for m in modules]
    with torch.no_grad():
        scores = net(x)
    for handle in handles:
        handle.remove()
    return bits, scores


def packed_bits(packed, x):
    bits = []

    def keep(step, inputs, output):
        if isinstance(output, deploy.steps.Bits) and not isinstance(step, deploy.steps.Flatten):
            bits.append(deploy.steps.as_float(output) > 0.5)

    handles = [step.register_forward_hook(keep) for step in packed.steps]
    scores = packed(x)
    for handle in handles:
        handle.remove()
    return bits, scores


def assert_equal(net, x):
    expected, scores = hidden_bits(net, x)
    packed = deploy.pack(net)
    bits, packed_scores = packed_bits(packed, x)
    assert len(bits) == len(expected) > 0
    for number, (ours, theirs) in enumerate(zip(bits, expected, strict=True)):
        assert torch.equal(ours, theirs), f"layer {number}: {(ours != theirs).sum()} bits differ"
    torch.testing.assert_close(packed_scores, scores, rtol=1e-5, atol=1e-5)
    assert torch.equal(packed(x), packed_scores)  # without hooks, layers may be computed in one call
    assert_same_without_bits(packed, x)
    return packed


def _at_zero(x):
    """A callable that fires at 0 too, where weights and activations do not."""
    return (x >= 0).to(x.dtype) + x - x.detach()


NETS = {
    "BinaryMLP": lambda: (models.BinaryMLP(77, [130, 65], 10), (77,)),
    "DeepHeavisideNet": lambda: (models.DeepHeavisideNet(77, [70] * 8, 10), (77,)),
    "convolutional": lambda: (models.DeepHeavisideNet((3, 9, 11), [5, 70, 66], 10), (3, 9, 11)),
    "without BatchNorm": lambda: (models.DeepHeavisideNet(77, [70] * 3, 10, norm="none", identity=1.0), (77,)),
    "convolutional without BatchNorm": lambda: (
        models.DeepHeavisideNet((3, 9, 11), [5, 5, 66], 10, norm="none", identity=1.0),
        (3, 9, 11),
    ),
    "BinaryResNet": lambda: (models.BinaryResNet(14, 3, width=6), (3, 13, 16)),
    "binarized": lambda: (_binarized(), (2, 8, 8)),
    "callable": lambda: (models.BinaryMLP(77, [130, 65], 10, surrogate=_at_zero, weight_surrogate=_at_zero), (77,)),
}


def _binarized():
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1, groups=2)]
    layers += [nn.MaxPool2d(2), nn.BatchNorm2d(8), nn.Identity(), nn.ReLU(), nn.Dropout(), nn.Flatten()]
    layers += [nn.Linear(128, 30), nn.ReLU(), nn.Linear(30, 4)]
    return models.binarize(nn.Sequential(*layers), skip=["0", "12"])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_packed_equals_the_network(name, seed):
    torch.manual_seed(seed)
    net, shape = NETS[name]()
    x = torch.rand(20, *shape)
    packed = assert_equal(trained(net, x), x)
    torch.testing.assert_close(packed(x[:1]), packed(x)[:1], rtol=1e-5, atol=1e-5)
    assert packed(x[:0]).shape == (0, *packed(x).shape[1:])


@settings(max_examples=examples(ci=40, thorough=400))
@given(
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([(-1, 1), (0, 1)]),
    out_levels=st.sampled_from([(-1, 1), (0, 1)]),
    scale=st.sampled_from(["none", "learned", "magnitude"]),
    bias=st.booleans(),
    norm=st.booleans(),
    shifted=st.booleans(),
    image=st.booleans(),
    exact=st.booleans(),
    groups=st.sampled_from([1, 2]),
    padding=st.integers(0, 2),
)
def test_any_layer_between_two_activations(
    seed, levels, out_levels, scale, bias, norm, shifted, image, exact, groups, padding
):
    torch.manual_seed(seed)
    a, b = 2 * torch.randint(1, 45, (2,))
    a, b = int(a), int(b)
    if image:
        where = (3, 1, padding, 1, groups, bias)
        layer = hnn.HeavisideConv2d(a, b, *where) if exact else hnn.BinaryConv2d(a, b, *where, scale=scale)
    else:
        layer = hnn.HeavisideLinear(a, b, bias) if exact else hnn.BinaryLinear(a, b, bias, scale=scale)
    first = hnn.BinaryActivation(levels=levels)
    last = hnn.BinaryActivation(levels=out_levels, channels=b if shifted else None)
    norms = [(nn.BatchNorm2d if image else nn.BatchNorm1d)(b)] if norm else []
    net = nn.Sequential(first, layer, *norms, last)
    x = torch.randn(3, a, 5, 4) if image else torch.randn(9, a)
    assert_equal(trained(net, x), x)


def test_layers_are_folded():
    packed = deploy.pack(models.BinaryMLP(64, [32, 32], 10).eval())
    kinds = [type(step).__name__ for step in packed.steps]
    assert kinds == ["Flatten", "Quantize", "BinaryProduct", "BinaryProduct", "HeavisideProduct"]


@pytest.mark.parametrize("name", NETS)
def test_files(name, tmp_path):
    torch.manual_seed(0)
    net, shape = NETS[name]()
    x = torch.rand(5, *shape)
    packed = deploy.pack(trained(net, x))
    deploy.save(packed, tmp_path / "net.safetensors")
    again = deploy.load(tmp_path / "net.safetensors")
    assert torch.equal(again(x), packed(x))
    deploy.save(again, tmp_path / "again.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("net", "again")]
    assert _network(files[0]) == _network(files[1])
    first, second = map(load_file, files)
    assert all(torch.equal(first[name], second[name]) for name in {*first, *second})


def test_the_file_of_a_binary_network_is_small(tmp_path):
    net = models.BinaryMLP(784, [1024, 1024], 10).eval()
    deploy.save(deploy.pack(net), tmp_path / "net.safetensors")
    save_file({k: v for k, v in net.state_dict().items() if v.ndim}, tmp_path / "float.safetensors")
    sizes = [(tmp_path / name).stat().st_size for name in ("float.safetensors", "net.safetensors")]
    assert sizes[0] >= 25 * sizes[1], sizes


class _Training(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def _nan():
    net = models.BinaryMLP(4, [3], 2).eval()
    net[2].weight.data[0, 0] = torch.nan
    return net


class _Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class _Product(nn.Module):
    def forward(self, x):
        return operator.mul(x, x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: models.BinaryMLP(4, [3], 2), ValueError, "^model: expected eval mode, got training mode"),
        (lambda: models.BinaryMLP(4, [3], 2).double().eval(), ValueError, r"^2\.weight: expected float32 on the CPU"),
        (_nan, ValueError, r"^2\.weight: expected numbers, got NaN"),
        (lambda: nn.Sequential(hnn.BinaryLinear(3, 2)).eval(), ValueError, "^0: BinaryLinear cannot be packed: its in"),
        (lambda: _Training(nn.Sequential(nn.ReLU(), hnn.HeavisideLinear(3, 2))).eval(), ValueError, r"^layer\.1: Heav"),
        (lambda: nn.Sequential(nn.GLU()).eval(), ValueError, "^0: GLU cannot be packed"),
        (lambda: nn.Sequential(nn.Flatten(2)).eval(), ValueError, r"^0: expected Flatten\(1\)"),
        (lambda: _Branches().eval(), ValueError, r"^model: expected a network that torch\.fx can trace"),
        (lambda: _Product().eval(), ValueError, "^mul: mul cannot be packed; expected scale=.learned. of"),
        (lambda: "net", TypeError, "^model: expected a module"),
    ],
)
def test_networks_that_cannot_be_packed_are_refused_by_layer(make, error, message):
    with pytest.raises(error, match=message):
        deploy.pack(make())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    deploy.save(deploy.pack(models.BinaryMLP(16, [8], 2).eval()), path)
    return path


def test_missing_folder_and_device(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none/net\.safetensors: expected an existing folder"):
        deploy.save(deploy.load(saved), tmp_path / "none" / "net.safetensors")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"^device: expected a usable GPU for 'cuda', got none"):
            deploy.load(saved, device="cuda")


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 16, dtype=torch.int64), TypeError, r"^x: expected a floating-point tensor, got a torch\.int64"),
        ([0.0], TypeError, r"^x: expected a floating-point tensor, got \[0"),
        (torch.zeros(2, 15), ValueError, r"^x: expected \(B, 16\) at this layer, got \(2, 15\)"),
        (torch.full((2, 16), 1.5), ValueError, r"^x: expected values within \[0, 1\], got 1\.5 to 1\.5"),
        (torch.full((2, 16), torch.nan), ValueError, r"^x: expected values within \[0, 1\], got NaN$"),
    ],
)
def test_bad_inputs(saved, x, error, message):
    with pytest.raises(error, match=message):
        deploy.load(saved)(x)


def _rewritten(path, change):
    tensors = load_file(path)
    about = {"format": "htaf-snn packed network", "version": deploy.network.VERSION, "network": _network(path)}
    about = change(tensors, about)
    save_file(tensors, path, about | {"sha256": deploy.network.checksum(tensors, about["network"])})


def _network(path):
    header = path.read_bytes()
    return json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]["network"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, about: about | {"format": "other"}, "got another safetensors file"),
        (
            lambda tensors, about: about | {"version": "9"},
            "expected version 6 of the format, got 9; pack the network again",
        ),
        (lambda tensors, about: about | {"network": "{"}, "got a damaged file"),
        (lambda tensors, about: about | {"network": about["network"].replace("Quantize", "System")}, "damaged file"),
        (
            lambda tensors, about: about | {"network": about["network"].replace('"output": 4', '"output": 40')},
            "damaged",
        ),
        (lambda tensors, about: tensors.pop("2.signs") is None or about, "got a damaged file"),
        (lambda tensors, about: tensors.update({"2.signs": tensors["2.signs"][:3]}) or about, "got a damaged file"),
        (
            lambda tensors, about: tensors.update({"3.weight": torch.ones(2, 3).int()}) or about,
            r"^x: expected \(B, 3\)",
        ),
    ],
)
def test_foreign_and_damaged_files(saved, change, message):
    _rewritten(saved, change)
    with pytest.raises(ValueError, match=message):
        deploy.load(saved)(torch.rand(1, 16))


def test_a_file_keeps_the_names_of_layers(saved):
    assert deploy.load(saved).names == ["0", "1", "2", "5"]
    _rewritten(saved, lambda tensors, about: about | {"network": re.sub(r'"name": "\d", ', "", about["network"])})
    assert deploy.load(saved).names == ["step 0", "step 1", "step 2", "step 3"]


def test_a_file_with_a_changed_bit_is_refused(saved):
    content = saved.read_bytes()
    for at in (8, *range(9, len(content), 11), len(content) - 1):
        changed = bytes([content[at] ^ 1])
        saved.write_bytes(content[:at] + changed + content[at + 1 :])
        if content[at : at + 1].isspace():  # JSON has other spaces, and the header ends in some
            continue
        with pytest.raises(ValueError, match=r"net\.safetensors: expected "):
            deploy.load(saved)


def test_folders_checkpoints_and_unknown_devices(saved, tmp_path):
    with pytest.raises(IsADirectoryError, match=r"got a folder; for a training's network see training.load, then pack"):
        deploy.load(tmp_path)
    training.checkpoint.save_checkpoint(tmp_path / "checkpoint", nn.Linear(2, 2), None, 1)
    with pytest.raises(ValueError, match=r"got another safetensors file; .*see training.load, then pack"):
        deploy.load(tmp_path / "checkpoint")
    for device in ("gpu", 1.5):
        with pytest.raises(ValueError, match=r"^device: expected 'cpu' or 'cuda', got "):
            deploy.load(saved, device=device)


def test_a_truncated_file(saved):
    content = saved.read_bytes()
    for length in range(0, len(content), 7):
        saved.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged or other file"):
            deploy.load(saved)
    saved.unlink()
    with pytest.raises(FileNotFoundError, match="expected a packed network, got no file"):
        deploy.load(saved)


def test_a_packed_network_stays_in_eval(saved):
    packed = deploy.load(saved)
    with pytest.raises(ValueError, match="cannot be trained"):
        packed.train()
    with pytest.raises(TypeError, match="expected a packed network, got Linear"):
        deploy.save(nn.Linear(1, 1), saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [("padding", (-1, -1)), ("window", (9, 9)), ("stride", (0, 1)), ("dilation", (1, 0)), ("groups", 0)],
)
def test_impossible_windows_are_refused(name, value):
    where = deploy.values.Geometry((3, 3), (1, 1), (0, 0), (1, 1), 1)._replace(**{name: value})
    with pytest.raises(ValueError, match=rf"^({name}|where): expected "):
        deploy.steps.BinaryProduct(torch.ones(2, 2, 3, 3), (-1, 1), batched=False, where=where)
