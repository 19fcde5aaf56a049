"""Networks as people write them: packed, or `deploy.check` says what to change and the change suffices."""

import re

import pytest
import torch
from published_nets import NETS, Net, classic_mlp, sign, trained
from torch import nn
from torch.nn import functional

from htaf_snn import deploy
from htaf_snn import nn as hnn

pytestmark = pytest.mark.usefixtures("by_programs")


@pytest.mark.parametrize("make", NETS)
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_a_published_network_is_packed(make, seed, tmp_path):
    torch.manual_seed(seed)
    net, x = make(), torch.rand(30, 1, 8, 8)
    report = deploy.check(net)
    assert report.packs and "refused" not in str(report)
    assert any(layer.form == "bits" for layer in report.layers)
    expected = trained(net, x)(x.clone())
    packed = deploy.pack(net)
    assert torch.equal(packed(x), expected)
    deploy.save(packed, tmp_path / "net.safetensors")
    assert torch.equal(deploy.load(tmp_path / "net.safetensors")(x), expected)


def test_activations_between_bits_are_folded():
    kinds = [type(one).__name__ for one in deploy.pack(classic_mlp().eval()).steps]
    assert kinds == ["Flatten", "Linear", "BatchNorm1d", "Hardtanh", "Threshold", *["BinaryProduct"] * 3, "BatchNorm1d"]
    falling = nn.LeakyReLU(-0.1)
    kinds = [
        type(one).__name__
        for one in deploy.pack(nn.Sequential(sign(), hnn.BinaryLinear(4, 4), falling, sign()).eval()).steps
    ]
    assert kinds == ["Threshold", "BinaryProduct", "LeakyReLU", "Threshold"]


WRONG = {
    "no activation": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), hnn.BinaryLinear(4, 2)),
        "2", "2: BinaryLinear cannot be packed: its input is not of two levels; expected a BinaryActivation before it",
        lambda: nn.Sequential(nn.Linear(4, 4), hnn.BinaryActivation(), hnn.BinaryLinear(4, 2)),
    ),
    "unknown module": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.LocalResponseNorm(2), sign(), hnn.BinaryLinear(4, 2)),
        "1", "1: LocalResponseNorm cannot be packed; it is not a known module",
        lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), sign(), hnn.BinaryLinear(4, 2)),
    ),
    "product": (
        lambda: Net(lambda net, x: net.sign(net.last(net.sign(x)) * 2.0), sign=sign(), last=hnn.BinaryLinear(4, 4)),
        "mul", "mul: mul cannot be packed; expected scale=\"learned\" of a binary layer, or BatchNorm in its place",
        lambda: Net(lambda net, x: net.last(net.sign(x)), sign=sign(), last=hnn.BinaryLinear(4, 4)),
    ),
    "view": (
        lambda: Net(lambda net, x: net.last(net.sign(x.view(4, -1))), sign=sign(), last=hnn.BinaryLinear(4, 2)),
        "view", r"view: cannot be packed: expected a view as \(x.shape\[0\], -1\) or \(-1, features\), got \(4, -1\)",
        lambda: Net(
            lambda net, x: net.last(net.sign(x.view(x.shape[0], -1))), sign=sign(), last=hnn.BinaryLinear(4, 2)
        ),
    ),
    "mean of all": (
        lambda: Net(lambda net, x: net.sign(x).mean(), sign=sign()),
        "mean", "mean: cannot be packed: expected a mean over dimensions of a sample, got all",
        lambda: Net(lambda net, x: net.sign(x).mean(1), sign=sign()),
    ),
    "dropout that goes on": (
        lambda: Net(lambda net, x: functional.dropout(net.sign(x)), sign=sign()),
        "dropout", "dropout: cannot be packed: training has no effect in a packed network",
        lambda: Net(lambda net, x: functional.dropout(net.sign(x), training=net.training), sign=sign()),
    ),
    "batch statistics": (
        lambda: nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), sign()),
        "0", "0: .*without running statistics",
        lambda: nn.Sequential(nn.BatchNorm1d(4), sign()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_packed_is_said_with_what_to_change(name):
    make, layer, message, mended = WRONG[name]
    report = deploy.check(make())
    (refused,) = [one for one in report.layers if one.form == "refused"]
    assert refused.name == layer and not report.packs
    assert re.match(message, refused.reason)
    with pytest.raises(ValueError, match=f"^{message}"):
        deploy.pack(make().eval())
    assert deploy.check(mended()).packs
    deploy.pack(mended().eval())


def test_all_reasons_are_given_at_once_and_nothing_changes():
    net = nn.Sequential(hnn.BinaryLinear(4, 4), nn.Softshrink(), hnn.BinaryLinear(4, 4)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    report = deploy.check(net)
    assert [(layer.name, layer.kind, layer.form) for layer in report.layers] == [
        ("0", "BinaryLinear", "refused"), ("1", "Softshrink", "refused"), ("2", "BinaryLinear", "refused"),
    ]  # fmt: skip
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_a_view_of_another_size_is_refused():
    net = Net(lambda net, x: net.last(net.sign(x.view(-1, 4))), sign=sign(), last=hnn.BinaryLinear(4, 2)).eval()
    x = torch.rand(3, 2, 2)
    assert torch.equal(deploy.pack(net)(x), net(x))
    with pytest.raises(ValueError, match=r"^x: expected 4 values per sample at a view, got \(3, 8\)"):
        deploy.pack(net)(torch.rand(3, 8))


def test_a_function_beside_a_module_of_its_name():
    def forward(net, x):
        return net.view(net.relu(net.sign(functional.relu(x.view(x.size(0), -1)))))

    torch.manual_seed(0)
    net = Net(forward, relu=nn.LeakyReLU(-0.5), sign=sign(), view=nn.Linear(4, 2)).eval()
    x = torch.randn(9, 2, 2)
    assert torch.equal(deploy.pack(net)(x), net(x))
    assert [layer.kind for layer in deploy.check(net).layers][:2] == ["Flatten", "ReLU"]


def test_a_result_that_nobody_uses():
    def forward(net, x):
        net.aux(x)
        return net.last(net.sign(x))

    net = Net(forward, aux=nn.Linear(4, 3), sign=sign(), last=hnn.BinaryLinear(4, 2)).eval()
    x = torch.randn(5, 4)
    assert torch.equal(deploy.pack(net)(x), net(x))


def test_concatenations_by_keywords():
    net = Net(lambda net, x: torch.cat(tensors=(net.sign(x), net.sign(x)), dim=1), sign=sign()).eval()
    x = torch.randn(5, 4)
    assert torch.equal(deploy.pack(net)(x), net(x))
    wrong = Net(lambda net, x: torch.cat((x, x)), sign=sign()).eval()
    assert not deploy.check(wrong).packs


def test_what_pack_refuses_check_refuses():
    hooked = nn.Sequential(sign(), hnn.BinaryLinear(4, 4), nn.BatchNorm1d(4), sign())
    hooked[2].register_forward_hook(lambda module, inputs, output: -output)
    pair = Net(lambda net, x: (net.sign(x), x), sign=sign())
    first = Net(lambda net, x: net.sign(x).mean(0), sign=sign())
    typed = Net(lambda net, x: torch.softmax(net.sign(x), 1, torch.float64), sign=sign())
    learned = Net(
        lambda net, x: functional.leaky_relu(net.sign(x), net.slope), sign=sign(), slope=nn.Parameter(torch.ones(1))
    )
    for net, name in ((hooked, "2"), (pair, "model"), (first, "mean"), (typed, "softmax"), (learned, "slope")):
        assert not deploy.check(net).packs
        with pytest.raises(ValueError, match=rf"^{name}: .*(cannot be packed|expected one tensor)"):
            deploy.pack(net.eval())


@torch.no_grad()
def test_levels_beside_other_values_are_exact_in_plain_operations():
    torch.manual_seed(0)
    nets = [
        Net(lambda net, x: net.q(x) + net.a(net.q(x)), q=hnn.QuantizeInput(), a=hnn.BinaryLinear(6, 6)),
        Net(lambda net, x: torch.cat([net.q(x), net.a(net.q(x))], 1), q=hnn.QuantizeInput(), a=hnn.BinaryLinear(6, 6)),
    ]
    x = torch.rand(9, 6)
    for net in nets:
        packed = deploy.pack(net.eval())
        assert torch.equal(packed(x), net(x))
        assert torch.equal(deploy.plain.Plain(packed)(x), packed(x))
