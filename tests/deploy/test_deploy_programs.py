"""Steps of packed networks in one call, with their results one by one."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from packed_images import IMAGES, drawn
from torch import nn
from without_bits import assert_same_without_bits

from htaf_snn import deploy, models
from htaf_snn import nn as hnn

pytest.importorskip("numba", reason="numba is not installed")
pytestmark = pytest.mark.usefixtures("by_programs")


def by_steps(packed, x):
    return deploy.steps.as_float(packed.values(x)[packed.output])


def assert_by_programs(packed, x, count=1):
    """Assert that so many programs compute a network, and what the steps do."""
    assert torch.equal(packed(x), by_steps(packed, x))
    assert_same_without_bits(packed, x)
    used = [program for program in packed._programs.values() if program._made]
    assert len(used) == count and all(any(program._made.values()) for program in used)


@settings(max_examples=examples(ci=15, thorough=300))
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
    assert_by_programs(packed, x)


def quantized(seed=0):
    torch.manual_seed(seed)
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
    with pytest.raises(ValueError, match=r"^x: expected \(B, 70\) at this layer, got \(2, 71\)"):
        packed(torch.rand(2, 71))
    with pytest.raises(ValueError, match=r"^x: expected "):
        packed(torch.rand(70, 2))


@pytest.mark.parametrize("assign", [False, True])
def test_changed_weights_are_seen(assign):
    packed, other, x = quantized(), quantized(1), torch.rand(40, 70)
    before = packed(x)
    with torch.no_grad():
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


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("seed", range(3))
def test_images(name, seed):
    torch.manual_seed(seed)
    net = drawn(IMAGES[name]())
    packed = deploy.pack(net)
    for x in (torch.rand(5, 3, 8, 7), torch.rand(1, 3, 8, 7)):
        x = x if name == "quantized" else x - 0.5
        assert torch.equal(packed(x), net(x))
        assert_by_programs(packed, x)


class Twice(nn.Module):
    """A value that is used twice, one of them after the others, and additions of bits and of floats."""

    def __init__(self):
        super().__init__()
        self.sign, self.first, self.second, self.third = (
            hnn.BinaryActivation(), hnn.BinaryLinear(8, 8), hnn.BinaryLinear(8, 8), hnn.BinaryLinear(8, 8),
        )  # fmt: skip
        self.again, self.last, self.norm = hnn.BinaryActivation(), hnn.BinaryActivation(), nn.BatchNorm1d(8)

    def forward(self, x):
        signs = self.sign(x)
        bits = self.again(self.first(signs))
        return self.norm(self.third(self.last(self.second(bits) + signs)) + bits) + torch.sigmoid(bits)


def test_values_that_are_used_again():
    torch.manual_seed(0)
    net, x = Twice().eval(), torch.randn(20, 8)
    packed = deploy.pack(net)
    assert torch.equal(packed(x), net(x))
    assert_by_programs(packed, x)


@pytest.mark.parametrize("width", [8, 20])
def test_residual_networks(width):
    torch.manual_seed(0)
    net = models.BinaryResNet(8, 1, width=width)
    net(torch.rand(16, 1, 12, 10))
    packed, x = deploy.pack(net.eval()), torch.rand(3, 1, 12, 10)
    assert torch.equal(packed(x), net(x))
    assert_by_programs(packed, x, 3)


def test_other_image_sizes_are_read_anew_and_small_ones_refused():
    torch.manual_seed(0)
    packed = deploy.pack(drawn(IMAGES["strides"]()))
    for sides in ((8, 7), (5, 9), (8, 7)):
        assert_by_programs(packed, torch.randn(2, 3, *sides))
    with pytest.raises(RuntimeError, match="size"):
        packed(torch.randn(2, 3, 2, 2))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [hnn.QuantizeInput(), nn.Flatten(), hnn.BinaryLinear(168, 20), nn.BatchNorm1d(20), nn.Linear(20, 3)],
        lambda: [hnn.QuantizeInput(), hnn.BinaryConv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.PReLU(16)],
        lambda: [hnn.QuantizeInput(), hnn.BinaryConv2d(3, 16, 3, dilation=2), nn.BatchNorm2d(16), nn.PReLU(16)],
    ],
)
def test_modules_after_a_product_of_levels(layers):
    torch.manual_seed(0)
    net, x = drawn(layers()), torch.rand(3, 3, 8, 7)
    packed = deploy.pack(net)
    assert torch.equal(packed(x), net(x))


class Sides(nn.Module):
    """Several results of one program, each of which a module in floating point takes."""

    def __init__(self):
        super().__init__()
        self.sign, self.first, self.second = hnn.BinaryActivation(), *(hnn.BinaryConv2d(256, 256, 1) for _ in range(2))
        self.norm, self.other = nn.BatchNorm2d(256), nn.BatchNorm2d(256)

    def forward(self, x):
        bits = self.sign(x)
        first, second = self.first(bits), self.second(bits)
        return self.norm(first) + self.other(second)


def test_several_results_lie_as_those_of_the_steps():
    torch.manual_seed(0)
    net, x = Sides(), torch.randn(3, 256, 5, 5)
    for _ in range(3):
        net(torch.randn(8, 256, 5, 5))
    packed = deploy.pack(net.eval())
    assert torch.equal(packed(x), net(x))
    assert_by_programs(packed, x)


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.sign, self.rows, self.conv, self.gelu = (
            hnn.BinaryActivation(), hnn.BinaryLinear(70, 70), hnn.BinaryConv2d(3, 3, 1), nn.GELU(),
        )  # fmt: skip

    def forward(self, x):
        rows = self.sign(self.rows(self.sign(x)))
        return rows + self.conv(self.sign(self.gelu(rows)))


def test_bits_along_rows_are_no_images():
    torch.manual_seed(0)
    net, x = Rows().eval(), torch.randn(2, 3, 4, 70)
    assert torch.equal(deploy.pack(net)(x), net(x))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.sign, self.real, self.gelu = hnn.BinaryActivation(), nn.Linear(6, 6), nn.GELU()
        self.quantize, self.first, self.second = hnn.QuantizeInput(), hnn.BinaryLinear(6, 6), hnn.BinaryLinear(6, 6)

    def forward(self, x):
        return self.first(self.quantize(x)) + self.second(self.sign(self.gelu(self.real(x))))


def test_an_image_out_of_range_beside_another_value():
    packed = deploy.pack(Branches().eval())
    packed(torch.rand(2, 6))
    with pytest.raises(ValueError, match=r"^x: expected values within \[0, 1\], got"):
        packed(torch.rand(2, 6) + 5)


@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_zeros_keep_their_sign(slope):
    torch.manual_seed(0)
    net = nn.Sequential(hnn.BinaryActivation(), hnn.BinaryLinear(4, 8, scale="learned"), nn.PReLU(init=slope)).eval()
    bare = nn.Sequential(*net[:2]).eval()
    x = torch.randn(9, 4)
    for scale in (-0.5, 0.5):
        with torch.no_grad():
            net[1].scale.fill_(scale)
        for one in (net, bare):
            assert torch.equal(torch.signbit(deploy.pack(one)(x)), torch.signbit(one(x)))


@pytest.mark.parametrize("way", ["vmap", "trace", "autocast", "default device", "threads"])
def test_other_ways_to_call(way):
    packed, x = deploy.pack(drawn(IMAGES["strides"]())), torch.randn(4, 3, 8, 7)
    expected = by_steps(packed, x)
    if way == "vmap":
        torch.testing.assert_close(torch.func.vmap(packed)(x[:, None]).squeeze(1), expected)
    elif way == "trace":
        with pytest.warns((torch.jit.TracerWarning, DeprecationWarning)):
            assert torch.equal(torch.jit.trace(packed, x, check_trace=False)(x), expected)
    elif way == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(packed(x), expected)
        assert torch.equal(packed(x), expected)
    elif way == "default device":
        torch.set_default_device("meta")
        try:
            assert torch.equal(packed(x), expected)
        finally:
            torch.set_default_device(None)
    else:
        with ThreadPoolExecutor(4) as pool:
            results = [*pool.map(lambda i: packed(x if i % 2 else x[:, :, :7]), range(40))]
        assert all(torch.equal(own, expected) for own in results[1::2])


@torch.no_grad()
def test_autocast_has_no_effect():
    torch.manual_seed(0)
    first, last = nn.Linear(20, 30), nn.Linear(30, 4)
    net = nn.Sequential(first, hnn.BinaryActivation(), hnn.BinaryLinear(30, 30), nn.ReLU(), last).eval()
    packed, x = deploy.pack(net), torch.randn(8, 20)
    with torch.autocast("cpu", torch.bfloat16):
        scores = packed(x)
    assert scores.dtype == torch.float32 and torch.equal(scores, net(x))


def test_a_replaced_step_and_a_copy():
    packed, x = quantized(), torch.rand(3, 70)
    packed(x)
    copied = pickle.loads(pickle.dumps(packed))
    unused = pickle.loads(pickle.dumps(quantized()))  # copied too, as pickle writes equal strings once if they are one
    assert len(pickle.dumps(copied)) == len(pickle.dumps(unused))
    assert len(pickle.dumps(packed)) == len(pickle.dumps(quantized()))
    other = quantized(1)
    packed.steps[2] = other.steps[2]
    assert torch.equal(packed(x), by_steps(packed, x))
    assert not torch.equal(packed(x), copied(x)) and torch.equal(copied(x), by_steps(copied, x))
