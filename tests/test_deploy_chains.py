"""Layers on bits in one call, with the results of the steps one by one."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from htaf_snn import deploy
from htaf_snn import nn as hnn
from htaf_snn.deploy import chains

pytest.importorskip("numba", reason="numba is not installed")


def only(packed):
    (chain,) = packed._chains.values()
    return chain


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.sampled_from([1, 3, 10, 63, 64, 65, 130]), min_size=3, max_size=5),
    batch=st.sampled_from([1, 2, 31, 32, 200]),
    bounds=st.sampled_from([None, (0.0, 1.0), (-2.5, 0.7)]),
    data=st.data(),
)
def test_any_chain(seed, sizes, batch, bounds, data):
    torch.manual_seed(seed)
    low, high = bounds or (-1.0, 1.0)
    layers = [hnn.BinaryActivation(levels=(-1, 1))] if bounds is None else [hnn.QuantizeInput(low, high)]
    kinds = st.sampled_from([hnn.BinaryLinear, hnn.HeavisideLinear])
    for i, (n, outputs) in enumerate(pairwise(sizes)):
        kind = hnn.BinaryLinear if bounds and not i else data.draw(kinds)
        layers += [kind(n, outputs, bias=data.draw(st.booleans()))]
        if i < len(sizes) - 2 or data.draw(st.booleans()):
            out_levels = data.draw(st.sampled_from([(-1, 1), (0, 1)]))
            layers += [nn.BatchNorm1d(outputs), hnn.BinaryActivation(levels=out_levels)]
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    packed = deploy.pack(net.eval())
    x = torch.rand(batch, sizes[0]) * (high - low) + low
    steps = deploy.steps.as_float(packed.values(x)[packed.output])
    value = x if bounds is not None else packed.values(x)[1]
    assert torch.equal(deploy.steps.as_float(only(packed)(value)), steps)
    assert torch.equal(packed(x), steps)


def quantized():
    torch.manual_seed(0)
    net = nn.Sequential(
        hnn.QuantizeInput(-1.0, 2.0), hnn.BinaryLinear(70, 66), hnn.BinaryActivation(), hnn.BinaryLinear(66, 5)
    )
    return deploy.pack(net.eval())


def test_bytes_of_all_levels_and_their_borders():
    packed = quantized()
    x = ((torch.arange(256 * 70).view(256, 70) % 511) / 510 * 3 - 1).clamp(-1, 2)
    assert torch.equal(packed(x), packed.values(x)[packed.output])


@pytest.mark.parametrize("value", [-1.01, 2.01, torch.nan, torch.inf])
@pytest.mark.parametrize("batch", [1, 100])
def test_images_outside_the_range_are_refused(value, batch):
    x = torch.rand(batch, 70)
    x[-1, -1] = value
    with pytest.raises(ValueError, match=r"^x: expected values within \[-1, 2\]"):
        quantized()(x)
    x[-1, -1] = 2.0001  # by less than a quarter of a level
    quantized()(x)


def test_other_shapes_and_strides():
    packed = quantized()
    x = torch.rand(70, 40).T
    assert torch.equal(packed(x), packed(x.contiguous()))
    assert packed(x[:0]).shape == (0, 5)
    assert packed(torch.rand(2, 3, 70)).shape == (2, 3, 5)
    with pytest.raises(ValueError, match=r"^x: expected 70 features"):
        packed(torch.rand(2, 71))
    with pytest.raises(ValueError, match=r"^x: expected "):
        packed(torch.rand(70, 2))


@pytest.mark.parametrize("assign", [False, True])
def test_changed_weights_are_seen(assign):
    packed, other, x = quantized(), quantized(), torch.rand(40, 70)
    before = packed(x)
    with torch.no_grad():
        other.steps[1].words_0.bitwise_xor_(5)
        other.steps[1].thresholds.add_(3)
        other.steps[2].factor.mul_(2)
    packed.load_state_dict({name: value.clone() for name, value in other.state_dict().items()}, assign=assign)
    expected = packed.values(x)[packed.output]
    assert torch.equal(packed(x), expected) and not torch.equal(expected, before)
    with torch.no_grad():
        packed.steps[1].thresholds.add_(100)
    expected = packed.values(x)[packed.output]
    assert torch.equal(packed(x), expected)
    assert torch.equal(packed.float()(x), expected)


def test_tensors_of_inference_mode():
    x = torch.rand(5, 70)
    expected = quantized()(x)
    with torch.inference_mode():
        assert torch.equal(quantized()(x), expected)


@pytest.mark.parametrize("name", ["thresholds", "factor", "bias"])
def test_arrays_of_another_length_are_refused(name):
    step = deploy.pack(nn.Sequential(hnn.BinaryActivation(), hnn.BinaryLinear(6, 3, bias=True)).eval()).steps[1]
    values = {"thresholds": torch.ones(2, dtype=torch.int32), "factor": torch.ones(1), "bias": torch.ones(4)}
    with pytest.raises(ValueError, match=rf"^{name}: expected one number per output, 3, got \("):
        deploy.steps.BinaryProduct(step.signs(), (-1, 1), batched=False, **{name: values[name]})


def test_compilers_take_the_steps():
    packed, x = quantized(), torch.rand(4, 70)
    expected = packed(x)
    assert torch.equal(torch.compile(packed, backend="eager")(x), expected)


def test_chains_end_where_a_value_is_used_twice_or_returned():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.sign, self.first, self.second, self.third = (
                hnn.BinaryActivation(), hnn.BinaryLinear(8, 8), hnn.BinaryLinear(8, 8), hnn.BinaryLinear(8, 8),
            )  # fmt: skip
            self.again, self.last = hnn.BinaryActivation(), hnn.BinaryActivation()

        def forward(self, x):
            bits = self.again(self.first(self.sign(x)))
            return self.third(self.last(self.second(bits))) + bits

    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(20, 8)
    packed = deploy.pack(net)
    assert [len(chain.steps) for chain in packed._chains.values()] == [2]
    assert torch.equal(packed(x), net(x))


def test_large_layers_of_few_samples_are_left_to_the_steps(monkeypatch):
    packed, x = quantized(), torch.rand(3, 70)
    expected = packed(x)
    monkeypatch.setattr(chains, "_MOST_WORK", 0)
    assert only(packed)(x) is None and torch.equal(packed(x), expected)
    assert only(packed)(torch.rand(32, 70)) is not None
