"""Spiking networks of the literature's sizes: beside SpikingJelly's own, in parts, and with any neuron."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from htaf_snn import models
from htaf_snn import nn as hnn
from htaf_snn.configuration import Recipe
from htaf_snn.training.step import optimizer_of


def leaky():
    return hnn.Leaky(beta=0.5, threshold=0.2)


def parametric():
    return hnn.ParametricLIF(learn=("w",), surrogate="sigmoid")


SMALL = {
    "plif": lambda neuron: models.PLIFNet((2, 32, 32), 10, neuron, channels=8, n_hidden=32),
    "vgg": lambda neuron: models.SpikingVGG11((2, 32, 32), 10, neuron, pool=1, n_hidden=32),
    "sew18": lambda neuron: models.SEWResNet(18, (2, 32, 32), 10, neuron, width=8),
    "sew34 iand": lambda neuron: models.SEWResNet(34, (2, 32, 32), 10, neuron, width=4, join="iand"),
    "spikformer": lambda neuron: models.Spikformer((2, 32, 32), 10, neuron, dim=32, n_heads=4, depth=1),
}


def frames(steps=4, batch=2, side=32):
    return torch.rand(steps, batch, 2, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SMALL)
def test_a_network_learns_in_parts_as_in_whole(name):
    net, x = SMALL[name](leaky), frames(5)
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.body[0].weight.grad.any()
    for module in net.modules():  # statistics of these frames, so that neurons spike
        if isinstance(module, _BatchNorm):
            module.momentum = None
    with torch.no_grad():
        net(x)
        net.eval()
        first, state = net.stream(x[:2])
        rest, _ = net.stream(x[2:], hnn.detached(state))
        assert first.shape == (2, 2, 10) and first.std() > 0
        torch.testing.assert_close(torch.cat([first, rest]).mean(0), net(x), rtol=1e-4, atol=1e-5)


def test_a_network_keeps_channels_last():
    net, seen = SMALL["plif"](parametric), []
    for layer in net.body:
        layer.register_forward_hook(lambda layer, taken, given: seen.append(given))
    net(frames())
    for given in seen[:12]:  # up to the last frames of more than a pixel
        output = given[0] if isinstance(given, tuple) else given
        assert output.flatten(0, -4).is_contiguous(memory_format=torch.channels_last)


def test_fused_and_plain_optimizers_train_alike():
    net = SMALL["sew18"](parametric)
    nets = net, copy.deepcopy(net)
    ours, plain = optimizer_of(nets[0], Recipe()), torch.optim.Adam(nets[1].parameters(), lr=Recipe().lr, fused=False)
    assert ours.defaults["fused"] and not nets[0].body[0].weight.is_contiguous()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for parameters in zip(*(net.parameters() for net in nets), strict=True):
            gradient = torch.randn(parameters[0].shape, generator=generator)
            for parameter in parameters:
                parameter.grad = None
                (parameter * gradient).sum().backward()
        ours.step()
        plain.step()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("library", ["snntorch", "norse", "fused"])
def test_a_network_takes_the_neurons_of_any_library(library):
    surrogate = "norse.super" if library == "norse" else "snntorch.atan"
    net = models.PLIFNet((2, 16, 16), 3, lambda: models.neuron(library, surrogate), channels=4, n_hidden=8)
    assert net(frames(side=16)).shape == (2, 3) and len(net.neurons) == 4


def counts(net):
    return sum(parameter.numel() for parameter in net.parameters())


def theirs():
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import functional, neuron
    from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet, spikformer, spiking_vgg

    plif, lif = neuron.ParametricLIFNode, neuron.LIFNode
    nets = {
        "plif": parametric_lif_net.DVSGestureNet(channels=16, spiking_neuron=plif),
        "vgg": spiking_vgg.spiking_vgg11_bn(spiking_neuron=plif, num_classes=11),
        "sew18": sew_resnet.sew_resnet18(spiking_neuron=plif, cnf="ADD", num_classes=11),
        "sew34": sew_resnet.sew_resnet34(spiking_neuron=plif, cnf="IAND", num_classes=11),
        "spikformer": spikformer.Spikformer(
            in_channels=2, img_size_h=32, img_size_w=32, patch_size=4, num_classes=11, depths=1, spiking_neuron=lif
        ),
    }
    for net in nets.values():
        functional.set_step_mode(net, "m")
    return nets


OURS = {
    "plif": lambda: models.PLIFNet((2, 128, 128), 11, parametric, channels=16),
    "vgg": lambda: models.SpikingVGG11((3, 32, 32), 11, parametric),
    "sew18": lambda: models.SEWResNet(18, (3, 64, 64), 11, parametric),
    "sew34": lambda: models.SEWResNet(34, (3, 64, 64), 11, parametric, join="iand"),
    "spikformer": lambda: models.Spikformer((2, 32, 32), 11, leaky, depth=1),
}


@pytest.mark.thorough
def test_parameters_are_as_many_as_in_spikingjelly():
    for name, net in theirs().items():
        assert counts(OURS[name]()) == counts(net), name


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["plif", "vgg", "sew18", "sew34"])
def test_networks_compute_what_those_of_spikingjelly_do(name):
    """With its weights, its neuron and the statistics of the batch."""
    torch.manual_seed(0)
    net, other = OURS[name](), theirs()[name]
    for ours, of_other in zip(net.parameters(), other.parameters(), strict=True):
        assert ours.shape == of_other.shape
        if of_other.ndim == 2:  # so that the neurons behind fully connected layers spike
            of_other.data *= 20
        ours.data.copy_(of_other.data)
    for module in [*net.modules(), *other.modules()]:
        if "Dropout" in type(module).__name__:
            module.p = 0.0
    side, channels = (128, 2) if name == "plif" else (64, 3)
    x = 2 * torch.rand(3, 2, channels, side, side)
    with torch.no_grad():
        expected = other(x).mean(0)
        assert expected.std() > 0
        torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-4)


def test_a_residual_connection_joins_element_by_element():
    x = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    y = torch.tensor([0.0, 1.0, 0.0, 1.0])

    class Fixed(nn.Module):
        def forward(self, rows):
            return y.expand_as(rows)

    expected = {"add": x + y, "and": x * y, "iand": x * (1 - y)}
    for join, joined in expected.items():
        assert torch.equal(hnn.Residual(Fixed(), join=join)(x)[0], joined)
    with pytest.raises(ValueError, match=r"^join: expected one of add, and, iand, got 'or'"):
        hnn.Residual(Fixed(), join="or")
    with pytest.raises(ValueError, match=r"^shortcut: expected an output of \(1, 1, 4\), the branch's, got"):
        hnn.Residual(Fixed(), nn.Linear(4, 2))(x)


def test_dropout_has_one_mask_per_sequence():
    torch.manual_seed(0)
    layer, x = hnn.Dropout(0.25), torch.ones(5, 7, 100)
    y, mask = layer(x)
    assert torch.equal(y, mask.expand_as(y)) and mask.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert mask.ne(0).float().mean().item() == pytest.approx(0.75, abs=0.06) and not torch.equal(mask[0], mask[1])
    assert torch.equal(layer(x, mask)[0], y)
    chain = hnn.Sequential(layer)
    first, state = chain.stream(x[:2])
    assert torch.equal(chain.stream(x[2:], state)[0][0], first[0])
    assert torch.equal(layer.eval()(x)[0], x)
    for wrong in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"^p: expected a number in \[0, 1\), got"):
            hnn.Dropout(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.PLIFNet((2, 1, 9), 3, leaky), "in_shape: expected frames of 2 pixels or more"),
        (lambda: models.PLIFNet((2, 8, 8), 3, leaky, n_blocks=0), "n_blocks: expected an integer of at least 1, got 0"),
        (lambda: models.PLIFNet((2, 8, 8), 3, leaky, n_blocks=4), "in_shape: expected frames of 16 pixels or more"),
        (lambda: models.PLIFNet((2, 8, 8), 3, leaky, channels=0), "channels: expected an integer of at least 1, got 0"),
        (lambda: models.PLIFNet((2, 8, 8), 0, leaky), "n_classes: expected an integer of at least 1, got 0"),
        (lambda: models.SEWResNet(18, (2, 8, 8), 3, leaky, width=2.5), "width: expected an integer of .* got 2.5"),
        (lambda: models.Spikformer((2, 32, 32), 3, leaky, n_heads=0), "n_heads: expected an integer of .* got 0"),
        (
            lambda: SMALL["plif"](leaky)(torch.zeros(3, 2, 2, 16, 16)),
            r"frames: expected shape \(T, B, 2, 32, 32\), got .*\(3, 2, 2, 16, 16\)",
        ),
        (lambda: SMALL["sew18"](leaky)(torch.zeros(2, 2, 32, 32)), r"frames: expected shape \(T, B, 2, H, W\)"),
        (lambda: hnn.Dropout("a"), r"p: expected a number in \[0, 1\), got 'a'"),
        (lambda: models.SpikingVGG11((2, 31, 40), 3, leaky), "in_shape: expected frames of 32 pixels or more"),
        (lambda: models.SEWResNet(50, (2, 34, 34), 3, leaky), "depth: expected 18 or 34, got 50"),
        (lambda: models.Spikformer((2, 32, 32), 3, leaky, dim=20), "dim: expected a multiple of 8 and of the 8 heads"),
        (lambda: models.neuron("fused", "htaf", "leeky(beta=0.9)"), "neuron: .* got 'leeky'; did you mean leaky"),
        (lambda: models.neuron("norse", "htaf", "leaky"), "neuron: expected one of lif, lif_adex, lif_ex of norse"),
        (lambda: models.neuron("snntorch", "htaf", "leaky(bta=1)"), "neuron: 'leaky\\(bta=1\\)' does not fit snntorch"),
        (lambda: models.neuron("fused", "htaf", "leaky(beta"), "neuron: expected a name and parameters, such as"),
    ],
)
def test_what_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
