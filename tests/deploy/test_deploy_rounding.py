"""Weights of Heaviside layers in 8 or 16 bits: chosen by a score, and as few bytes in files and in C."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_deploy import trained
from torch import nn

from htaf_snn import deploy, models
from htaf_snn import nn as hnn


def network():
    torch.manual_seed(0)
    net, x = models.DeepHeavisideNet(64, [48] * 4, 10), torch.rand(400, 64)
    net = trained(net, x)
    with torch.no_grad():
        labels = net(x).argmax(1)
    return net, x, labels


def agreement(x, labels):
    def score(net):
        with torch.no_grad():
            return (net(x).argmax(1) == labels).float().mean().item()

    return score


def test_files_and_c_are_as_small_as_the_weights(tmp_path):
    net, x, labels = network()
    before = deploy.pack(net)
    chosen = deploy.round_weights(net, agreement(x, labels), tolerance=1.0)
    assert [*chosen.values()] == [8] * 4
    packed = deploy.pack(net)
    with torch.no_grad():
        assert torch.equal(packed(x), net(x))
    kinds = [step.tensors()["weight"].dtype for step in packed.steps if isinstance(step, deploy.steps.HeavisideProduct)]
    assert kinds == [torch.int8] * 4
    deploy.save(packed, tmp_path / "net.safetensors")
    deploy.save(before, tmp_path / "before.safetensors")
    save_file({k: v for k, v in net.state_dict().items() if v.ndim}, tmp_path / "float.safetensors")
    own, full, real = (
        sum(value.nbytes for name, value in load_file(tmp_path / f"{name}.safetensors").items() if "weight" in name)
        for name in ("net", "before", "float")
    )
    heaviside = 48 * (48 * 3 + 10)
    assert full - own == 3 * heaviside and real - own >= 3 * heaviside
    assert torch.equal(deploy.load(tmp_path / "net.safetensors")(x), packed(x))
    sizes = [deploy.export_c(one, tmp_path / "net.c", (64,))["flash"] for one in (before, packed)]
    assert sizes[0] - sizes[1] == 3 * heaviside


def test_the_score_decides_by_layer():
    net, *_ = network()
    heads = [name for name, module in net.named_modules() if isinstance(module, hnn.HeavisideLinear)]
    full = {name: net.get_submodule(name).weight.detach().clone() for name in heads}

    def score(model):
        """Falls if the second layer is rounded to 8 bits, or the third at all."""
        changes = [(model.get_submodule(name).weight - full[name]).abs().max() for name in heads]
        return 1.0 - float(changes[1] > 1e-4) - float(changes[2] > 0)

    assert [*deploy.round_weights(net, score).values()] == [8, 16, 24, 8]
    assert torch.equal(net.get_submodule(heads[2]).weight, full[heads[2]])
    kinds = [step.tensors()["weight"].dtype for step in deploy.pack(net).steps if hasattr(step, "rows_0")]
    assert kinds == [torch.int8, torch.int16, torch.int32, torch.int8]


def test_the_score_stays_within_the_tolerance():
    net, x, labels = network()
    score = agreement(x, labels)
    deploy.round_weights(net, score, bits=(2, 3, 4, 6, 8), tolerance=0.05)
    assert 0.95 <= score(net) < 1


def test_convolutions_are_rounded():
    torch.manual_seed(0)
    net = models.DeepHeavisideNet((1, 8, 8), [5, 6], 3)
    x = torch.rand(30, 1, 8, 8)
    net = trained(net, x)
    assert set(deploy.round_weights(net, lambda net: 1.0).values()) == {8}
    with torch.no_grad():
        torch.testing.assert_close(deploy.pack(net)(x), net(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "options", "message"),
    [
        (models.DeepHeavisideNet(4, [3], 2), {}, "model: expected eval mode, got training mode"),
        (nn.Linear(3, 2).eval(), {}, "model: expected one with nn.HeavisideLinear or nn.HeavisideConv2d"),
        (
            models.DeepHeavisideNet(4, [3], 2).eval(),
            {"bits": (8, 32)},
            "bits: expected integers from 2 to 16, as in (8, 16), got (8, 32)",
        ),
        (models.DeepHeavisideNet(4, [3], 2).eval(), {"bits": ()}, "bits: expected integers from 2 to 16"),
        (models.DeepHeavisideNet(4, [3], 2).eval(), {"tolerance": -1.0}, "tolerance: expected a finite number >= 0"),
    ],
)
def test_bad_arguments_are_named(net, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        deploy.round_weights(net, lambda net: 1.0, **options)


def test_an_interrupted_score_leaves_the_weights():
    net, *_ = network()
    before, calls = {name: value.clone() for name, value in net.state_dict().items()}, []

    def score(model):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        deploy.round_weights(net, score)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_parametrized_weights_are_refused():
    net = nn.Sequential(hnn.BinaryActivation(), hnn.HeavisideLinear(4, 3))
    torch.nn.utils.parametrizations.weight_norm(net[1])
    with pytest.raises(ValueError, match=r"^1: expected a weight without parametrizations"):
        deploy.round_weights(net.eval(), lambda net: 1.0)


def test_rows_of_zeros_stay():
    net = nn.Sequential(hnn.BinaryActivation(), hnn.HeavisideLinear(4, 3)).eval()
    nn.init.zeros_(net[1].weight)
    deploy.round_weights(net, lambda net: 1.0)
    assert (net[1].weight == 0).all()


def test_a_layer_that_is_used_twice():
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    net = hnn.Sequential(layer, hnn.Leaky(beta=0.5), layer, hnn.Leaky(beta=0.5)).eval()
    assert deploy.round_weights(net, lambda net: 1.0) == {"0": 8}


def test_weights_whose_sums_reach_beyond_exact_numbers_are_no_integers():
    net = hnn.Sequential(hnn.Leaky(beta=0.5), nn.Linear(3, 2, bias=False)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([2.0**24, 1, 1]))
    assert "HeavisideProduct" not in [type(step).__name__ for step in deploy.pack(net).steps]
