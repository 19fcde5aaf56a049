"""What `deploy` says of networks, layers and inputs that it does not take: which one, and what to write instead."""

import inspect
import re

import numpy as np
import pytest
import torch
from test_deploy_options import Forward
from torch import nn
from torch.nn import functional

from htaf_snn import deploy, interop, models, surrogate
from htaf_snn import nn as hnn

sign = hnn.BinaryActivation


def bits():
    return sign(levels=(0, 1))


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def of_snntorch(**options):
    snntorch = pytest.importorskip("snntorch")
    return nn.Sequential(nn.Linear(8, 6), snntorch.Leaky(beta=0.9, **options))


def of_norse(name):
    return nn.Sequential(nn.Linear(8, 6), getattr(pytest.importorskip("norse.torch"), name)())


PACKED = deploy.pack(nn.Sequential(nn.Linear(3, 3)).eval())
REPLACE = "cannot be packed; replace it by a neuron of htaf_snn.nn; see interop.fuse, interop.from_snntorch"


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (of_snntorch, f"1: snntorch.Leaky {REPLACE}"),
        (lambda: of_snntorch(init_hidden=True), f"1: snntorch.Leaky {REPLACE}"),
        (lambda: hnn.Sequential(*of_snntorch(), hnn.Leaky(beta=0.9)), f"1: snntorch.Leaky {REPLACE}"),
        (lambda: of_norse("LIF"), f"1: norse.LIF {REPLACE}"),
        (lambda: of_norse("LIFCell"), f"1: norse.LIFCell {REPLACE}"),
        (
            lambda: nn.Sequential(nn.Linear(5, 3), surrogate.HTAF()),
            "1: HTAF is a surrogate, not a layer; write htaf_snn.nn.BinaryActivation(HTAF(…))",
        ),
        (lambda: PACKED, "model: already packed"),
        (lambda: nn.Sequential(nn.Linear(3, 3), PACKED), "1: already packed"),
        (lambda: hnn.Leaky(beta=0.9), "model: expected a network, got neurons alone; write htaf_snn.nn.Sequential"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Sequential(Branches())),
            "1.0: expected a module that torch.fx can trace: symbolically traced",
        ),
        (Branches, "model: expected a network that torch.fx can trace: symbolically traced"),
        (
            lambda: models.SEWResNet(18, (2, 16, 16), 4, lambda: hnn.Leaky(beta=0.9)),
            "model: SEWResNet cannot be packed; expected SpikingMLP or SpikingCNN as they are, or htaf_snn.nn.Seq",
        ),
    ],
)
def test_the_module_that_cannot_be_traced_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        deploy.pack(make().eval())


def in_place(net, x):
    y = net.a(x)
    z = net.b(y)
    y.add_(z)
    return y + z


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            lambda net, x: 0.5 * functional.relu(x),
            '^mul: mul cannot be packed; expected scale="learned" of a binary layer, or Batch',
        ),
        (lambda net, x: functional.relu(x) - 1, "^sub: sub cannot be packed; expected a bias of the layer, or BatchN"),
        (lambda net, x: functional.relu(x) - x, "^sub: sub cannot be packed; expected modules, functions that"),
        (lambda net, x: functional.layer_norm(x, (3,)), "^layer_norm: .*; expected BatchNorm, or no normalisation, in"),
        (lambda net, x: torch.sign(x), r"^sign: sign cannot be packed; expected htaf_snn\.nn\.BinaryActivation"),
        (lambda net, x: x.sign(), r"^sign: sign cannot be packed; expected htaf_snn\.nn\.BinaryActivation"),
        (lambda net, x: functional.pad(x, (1, 1)), "^pad: pad cannot be packed; expected padding= of the convolution"),
        (lambda net, x: torch.cumsum(x, 1), "^cumsum: cumsum cannot be packed; expected modules, functions"),
    ],
)
def test_functions_have_plain_names_and_remedies(net, message):
    with pytest.raises(ValueError, match=message):
        deploy.pack(Forward(net).eval())


def test_a_change_in_place_is_a_row_of_the_table():
    net = Forward(in_place, a=sign(), b=nn.ReLU()).eval()
    message = "^add_: cannot be packed: it changes the input of add in place; expected a function that returns a new"
    with pytest.raises(ValueError, match=message):
        deploy.pack(net)
    refused = {layer.name: layer.reason for layer in deploy.check(net).layers if layer.form == "refused"}
    assert [*refused] == ["add_"] and re.match(message, refused["add_"])


def test_remedies_of_modules():
    pool = nn.Sequential(sign(), nn.AvgPool2d(2), hnn.BinaryConv2d(3, 3, 2)).eval()
    with pytest.raises(ValueError, match=r"got the output of 1, AvgPool2d; means of bits .*: write nn\.MaxPool2d"):
        deploy.pack(pool)
    for norm in (nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.RMSNorm(4)):
        message = f"^1: {type(norm).__name__} cannot be packed; use BatchNorm, or leave normalisation out$"
        with pytest.raises(ValueError, match=message):
            deploy.pack(nn.Sequential(sign(), norm).eval())
    norm = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match=r"^0: .*batch; write track_running_stats=True"):
        deploy.pack(norm)
    net = models.BinaryMLP(4, [3], 2).eval()
    net[3].train()
    with pytest.raises(ValueError, match=r"^3: expected eval mode, got training mode"):
        deploy.pack(net)
    with pytest.raises(ValueError, match=r"^2\.weight: expected float32 .*; call model\.float\(\)"):
        deploy.pack(net.eval().double())


def standardised(net, x):
    return net.b(2 * x - 1)


def test_arithmetic_on_the_input_has_a_remedy_of_its_own():
    net = Forward(standardised, b=hnn.BinaryLinear(3, 2)).eval()
    expected = "expected nn.BatchNorm2d(C, affine=False), or the range of the images as htaf_snn.nn.QuantizeInput(low"
    mul, sub, _ = deploy.check(net).layers
    assert f"mul: mul cannot be packed; {expected}" in mul.reason and f"sub cannot be packed; {expected}" in sub.reason


@pytest.mark.parametrize(
    ("layers", "got"),
    [
        ([nn.Linear(4, 4), nn.ReLU(), nn.Dropout(), nn.Flatten()], "the output of 1, ReLU"),
        ([nn.Conv2d(1, 1, 1), nn.GELU(), nn.MaxPool2d(1), nn.Flatten()], "the output of 1, GELU"),
        ([sign(), nn.BatchNorm1d(4), nn.Flatten()], "the output of 1, BatchNorm1d"),
        ([nn.Flatten()], "the network's input"),
        ([Forward(lambda net, x: x + x), nn.Flatten()], "the output of add"),
        ([sign(), nn.AvgPool2d(2), nn.Flatten()], "the output of 1, AvgPool2d; means of bits have more levels"),
    ],
)
def test_the_layer_whose_values_are_not_of_two_levels_is_named(layers, got):
    with pytest.raises(ValueError, match=rf": its input is not of two levels; .*, got {got}(: write .*)?$"):
        deploy.pack(nn.Sequential(*layers, hnn.BinaryLinear(4, 2)).eval())


def test_the_line_that_cannot_be_traced_is_named():
    own, line = re.escape(__file__), inspect.getsourcelines(Branches.forward)[1] + 1
    for net, title in ((Branches(), "model"), (nn.Sequential(nn.ReLU(), Branches()), "1")):
        message = rf"^{title}: .* control flow \({own}, line {line}\); move the branch out of forward$"
        with pytest.raises(ValueError, match=message):
            deploy.check(net)
    unpacked = Forward(lambda net, x: next(iter(x)))
    with pytest.raises(ValueError, match=rf"^model: .* \({own}, line \d+\)$"):
        deploy.check(unpacked)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_neurons_of_other_libraries_are_packed_if_their_spikes_are_the_strict_step():
    snntorch = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    own = interop.from_snntorch(snntorch.Leaky(beta=0.9))
    net = hnn.Sequential(nn.Linear(9, 30), own, nn.Linear(30, 4), hnn.Leaky(beta=0.9, threshold=0.2)).eval()
    x = torch.rand(20, 3, 9)
    with torch.no_grad():
        net[0].weight *= 4
        deploy.round_weights(net, lambda net: 1.0)
        expected = net(x)
    packed = deploy.pack(net)
    assert isinstance(packed.steps[3], deploy.steps.HeavisideProduct)
    assert torch.equal(packed(x), expected) and expected.any()


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(("library", "is_strict"), [("snntorch", True), ("norse", True), ("spikingjelly", False)])
def test_which_surrogates_are_the_strict_step(library, is_strict):
    pytest.importorskip(library)
    checked = 0
    for name in surrogate.libraries.names(library):
        own = surrogate.resolve(name)
        try:
            at_zero = own(torch.tensor([-1.0, -0.0, 0.0, 1e-45, 1.0])).tolist()
        except TypeError:  # LSO of snnTorch, which fails
            assert not deploy.reasons.is_strict_step(own)
            continue
        assert (at_zero == [0, 0, 0, 1, 1]) == is_strict, name
        assert deploy.reasons.is_strict_step(own) == is_strict, name
        checked += 1
    assert checked > 3


@pytest.mark.parametrize(
    ("function", "is_strict"),
    [
        (lambda u: (u > 0).float(), True),
        (lambda u: (0 < u).to(u.dtype), True),
        (lambda u: (u >= 0).float(), False),
        (lambda u: (u > 1e-9).float(), False),
        (lambda u: (u - 1 > 0).float(), False),
        (lambda u: (u > 0).float() * 2, False),
        (lambda u: (u > 0).float() + u - u.detach(), False),
        (lambda u: (u > torch.tensor(0.0)).float(), True),
        (lambda u: (u > torch.tensor([0.0, 0.0, 1.0])).float(), False),
        (lambda u: (u > u.detach()).float(), False),
        (lambda u: u, False),
        (lambda u: torch.ones_like(u), False),
        (lambda u: (u > 0).float() if u.sum() > 0 else u, False),
    ],
)
def test_only_a_proved_step_is_strict(function, is_strict):
    assert deploy.reasons.is_strict_step(surrogate.resolve(function)) == is_strict


def mlp():
    return deploy.pack(models.BinaryMLP(16, [8], 2).eval())


def cnn(*layers):
    return deploy.pack(nn.Sequential(*layers).eval())


@pytest.mark.parametrize(
    ("make", "x", "error", "message"),
    [
        (mlp, torch.rand(16), ValueError, "expected (B, …) at this layer, got (16,)"),
        (mlp, np.zeros((9, 16)), TypeError, "expected a floating-point tensor, got a NumPy array of float64 and shape"),
        (lambda: cnn(nn.Conv2d(1, 8, 3)), torch.rand(2, 3, 9, 9), ValueError, "expected (B, 1, H, W) at this layer"),
        (
            lambda: cnn(nn.Conv2d(3, 8, 3)), torch.rand(2, 9, 9, 3), ValueError,
            "expected (B, 3, H, W) at this layer, got (2, 9, 9, 3), which looks like channels last; write x.movedim",
        ),
        (
            lambda: cnn(hnn.QuantizeInput(), hnn.BinaryConv2d(3, 8, 3)), torch.rand(2, 9, 9, 3), ValueError,
            "expected (B, 3, H, W) at this layer, got (2, 9, 9, 3), which looks like channels last",
        ),
        (lambda: cnn(nn.BatchNorm2d(3)), torch.rand(2, 9, 9), ValueError, "expected (B, 3, H, W) at this layer, got"),
        (lambda: cnn(nn.Linear(3, 2)), torch.rand(2, 9), ValueError, "expected (B, 3) at this layer, got (2, 9)"),
        (lambda: cnn(nn.BatchNorm1d(3)), torch.rand(2, 9), ValueError, "expected (B, 3) at this layer, got (2, 9)"),
        (lambda: cnn(nn.MaxPool2d(2)), torch.rand(2, 9), ValueError, "expected (B, C, H, W) at this layer, got (2, 9)"),
    ],
)  # fmt: skip
def test_inputs_of_other_shapes(make, x, error, message):
    with pytest.raises(error, match=f"^x: {re.escape(message)}"):
        make()(x)


def test_event_counts_are_not_divided():
    packed = deploy.pack(models.SpikingMLP(9, [8], 3, lambda: hnn.Leaky(beta=0.9)).eval())
    with pytest.raises(TypeError, match=r"^x: .*; write x\.float\(\)$"):
        packed(torch.zeros(5, 2, 9, dtype=torch.uint8))
    with pytest.raises(TypeError, match=r"x\.float\(\) / 255"):
        mlp()(torch.zeros(5, 16, dtype=torch.uint8))


def test_arguments_of_other_types(tmp_path):
    packed, path = mlp(), tmp_path / "net.c"
    for export in (deploy.export_c, deploy.export_qonnx):
        with pytest.raises(ValueError, match=r"^shape: expected \(C, H, W\) or \(features,\), got 64"):
            export(packed, path, 64)
    for model in (np.zeros((50, 50)), [0.0] * 3):
        with pytest.raises(TypeError, match=r"^model: expected a module, got "):
            deploy.export_onnx(model, path, torch.rand(2, 16))
    with pytest.raises(TypeError, match=r"^example: .*got a NumPy array of float64 and shape \(50, 50\)$"):
        deploy.export_onnx(packed, path, np.zeros((50, 50)))
    net = models.DeepHeavisideNet(16, [8, 8], 3).eval()
    with pytest.raises(ValueError, match=r"^bits: expected integers from 2 to 16, as in \(8, 16\), got 8"):
        deploy.round_weights(net, lambda net: 1.0, bits=8)
    with pytest.raises(ValueError, match=r"^score: expected a function that returns a number, got None"):
        deploy.round_weights(net, lambda net: None)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0)])
def test_c_says_what_a_byte_means(low, high, tmp_path):
    first = [nn.Linear(6, 6), sign()] if low == 0 else [hnn.QuantizeInput(low, high)]
    deploy.export_c(cnn(*first, hnn.BinaryLinear(6, 4)), tmp_path / "net.c", (6,))
    header = (tmp_path / "net.c").read_text().split("*/")[0]
    assert f"byte 0 is the value {low:g} of the network's input, and 255 is {high:g}" in header
    assert "BatchNorm (affine=False)" in header


def late_pool():
    """A first layer in float32, a max pool before BatchNorm, and a plain linear layer on bits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), sign(), hnn.BinaryConv2d(8, 8, 3), nn.MaxPool2d(2), nn.BatchNorm2d(8),
        bits(), nn.Flatten(), hnn.HeavisideLinear(32, 20), bits(), nn.Linear(20, 10), nn.GELU(), nn.LogSoftmax(1),
    )  # fmt: skip


def unwritten():
    """A layer that no export but ONNX writes, within a block and as a function, beside layers that are folded."""
    block = Forward(lambda net, x: functional.gelu(net.b(net.a(x))), a=nn.Linear(6, 6), b=nn.Hardswish())
    return nn.Sequential(hnn.QuantizeInput(), hnn.BinaryLinear(6, 6), sign(), nn.Dropout(), block).eval()


@pytest.mark.parametrize(("target", "export"), [("c", deploy.export_c), ("qonnx", deploy.export_qonnx)])
@pytest.mark.parametrize("is_loaded", [False, True])
def test_exports_name_the_layers_as_check_does(target, export, is_loaded, tmp_path):
    if target == "qonnx":
        pytest.importorskip("onnx")
    net = unwritten()
    assert [layer.name for layer in deploy.check(net, target).layers if not layer.is_written] == ["4.b", "gelu"]
    for name in ("4.b", "gelu"):
        packed = deploy.pack(net)
        if is_loaded:
            deploy.save(packed, tmp_path / "net.safetensors")
            packed = deploy.load(tmp_path / "net.safetensors")
        with pytest.raises(ValueError, match=rf"^{name}: .* cannot be written in {target.upper()}$"):
            export(packed, tmp_path / "net.c", (6,))
        net[4].b = nn.ReLU().eval()


def test_other_refusals_of_c_name_the_layer_too(tmp_path):
    net = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)).eval()
    net[0][0].bias.data[0] = torch.inf
    with pytest.raises(ValueError, match=r"^0\.0: bias: expected finite numbers for C, got infinity or NaN$"):
        deploy.export_c(deploy.pack(net), tmp_path / "net.c", (2,))


def test_the_table_of_check():
    lines = str(deploy.check(late_pool())).split("\n")
    assert [line.split("  ")[-1] for line in lines if "Max" in line or "Linear " in line][::2] == [
        "move it behind the activation: bits instead of float32",
        "would be on bits as htaf_snn.nn.HeavisideLinear",
    ]
    assert [line.split()[2] for line in lines if "Flatten" in line] == ["bits"]
    assert lines[-1] == "2 of 4 weight layers on bits"
    moved = late_pool()
    moved[4], moved[5], moved[6] = moved[5], moved[6], moved[4]
    assert "behind" not in str(deploy.check(moved))
    real = deploy.check(nn.Sequential(nn.Conv2d(1, 1, 3), nn.MaxPool2d(2)))
    assert str(real).endswith("0 of 1 weight layers on bits: packing makes the network neither smaller nor faster")
    assert real.packs and not real.on_bits
    assert str(deploy.check(nn.Sequential(nn.ReLU()))).endswith("\n0 of 0 weight layers on bits")
    assert str(deploy.check(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)))).endswith(
        "\n0 of 1 weight layers on bits; pack refuses the network"
    )
    for layer in (nn.ConvTranspose2d(1, 1, 3), nn.Conv1d(1, 1, 3), nn.LSTM(1, 1)):
        refused = deploy.check(nn.Sequential(layer, nn.LayerNorm(1)))
        assert str(refused).endswith("\n0 of 1 weight layers on bits; pack refuses the network")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, []),
        ("c", [("11", "^GELU.* cannot be written in C$"), ("12", "^LogSoftmax.* cannot be written in C; the highest")]),
        ("onnx", []),
        ("qonnx", [("4", "; move it behind the activation"), ("11", "QONNX$"), ("12", "QONNX$")]),
    ],
)
def test_what_an_export_does_not_write(target, expected):
    if target == "qonnx":
        pytest.importorskip("onnx")
    result = deploy.check(late_pool(), target)
    missing = [(layer.name, layer.reason) for layer in result.layers if not layer.is_written]
    assert [name for name, _ in missing] == [name for name, _ in expected]
    assert all(re.search(message, reason) for (_, reason), (_, message) in zip(missing, expected, strict=True))
    assert result.packs and result.exports == (not expected)
    if target is not None:
        rows = f"{len(expected)} of 13 rows cannot be" if expected else "all 13 rows are"
        assert str(result).endswith(f"; {rows} written in {target.upper()}")


def test_what_does_not_pack_is_not_written_either():
    result = deploy.check(nn.Sequential(nn.Linear(1, 1), nn.LayerNorm(1)), "c")
    assert [layer.is_written for layer in result.layers] == [True, False] and not result.exports
    assert str(result).endswith("; 1 of 2 rows cannot be written in C")
    two = deploy.check(Forward(lambda net, x: (net.a(x), x), a=nn.Linear(1, 1)), "c")
    assert [layer.is_written for layer in two.layers] == [True, False]


def test_which_neurons_an_export_does_not_write():
    net = hnn.Sequential(nn.Linear(9, 8), hnn.LIFEx(), nn.Linear(8, 3), hnn.Leaky(beta=torch.rand(3)))
    reasons = {layer.name: layer.reason for layer in deploy.check(net, "c").layers if not layer.is_written}
    assert [*reasons] == ["1"] and reasons["1"].startswith("lif_ex cannot be written in C: it has exp")
    assert not deploy.check(net, "onnx").exports
    with pytest.raises(ValueError, match=r"^target: expected one of c, onnx, qonnx, got 'C'"):
        deploy.check(net, "C")
