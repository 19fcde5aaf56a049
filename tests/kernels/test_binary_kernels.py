"""Products of packed bits: every backend against sums of real numbers."""

import numpy as np
import pytest
import torch
from devices import DEVICES
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from htaf_snn import functional
from htaf_snn.kernels.binary_conv2d import reference as conv_reference

LEVELS = [(-1, 1), (0, 1)]
CASES = examples(ci=300, thorough=3000)


def signs(weight):
    return torch.where(weight > 0, 1, -1).double()


def values(x, levels):
    return (x > 0).double() * (levels[1] - levels[0]) + levels[0]


def drawn(seed, *shape):
    """Random numbers, with zeros and extremes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.1, torch.tensor([0.0, -0.0, 3e38])[seed % 3], x)


@settings(max_examples=CASES)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 9),
    size=st.integers(0, 200),
    outputs=st.integers(1, 140),
    levels=st.sampled_from(LEVELS),
)
def test_linear_equals_sums(seed, rows, size, outputs, levels):
    x, w = drawn(seed, rows, size), drawn(seed + 1, outputs, size)
    thresholds = torch.from_numpy(np.random.default_rng(seed).integers(-size - 2, size + 2, outputs)).int()
    expected = (values(x, levels) @ signs(w).T).int()
    words, weight = functional.pack_bits(x), functional.pack_weight(w)
    assert torch.equal(functional.binary_linear(words, weight, levels=levels), expected)
    bits = functional.binary_linear(words, weight, levels=levels, thresholds=thresholds)
    assert torch.equal(functional.unpack_bits(bits, outputs), expected > thresholds)
    assert torch.equal(bits, functional.pack_bits((expected > thresholds).int()))


@settings(max_examples=CASES // 3)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 9), size=st.integers(0, 200), outputs=st.integers(1, 140))
def test_products_of_levels_equal_sums(seed, rows, size, outputs):
    levels = torch.randint(256, (rows, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    w = drawn(seed + 1, outputs, size)
    assert torch.equal(functional.level_linear(levels, functional.pack_weight(w)), (levels.double() @ signs(w).T).int())


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 784])
def test_every_backend_multiplies_levels(backend, size):
    levels = torch.randint(256, (2, 3, size), generator=torch.Generator().manual_seed(size), dtype=torch.uint8)
    levels[0, 0], levels[1, 2] = 255, 0
    levels, w = levels.to(DEVICES[backend]), drawn(size, 67, size).to(DEVICES[backend])
    sums = functional.level_linear(levels[:, ::2], functional.pack_weight(w), backend)
    assert torch.equal(sums, (levels[:, ::2].double() @ signs(w).T).int())
    assert functional.level_linear(levels[0, 1], functional.pack_weight(w), backend).shape == (67,)


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        (torch.ones(3), TypeError, "^levels: expected uint8, got"),
        ([1, 2, 3], TypeError, "^levels: expected uint8, got"),
        (torch.ones(4, dtype=torch.uint8), ValueError, r"^levels: expected \(…, 3\)"),
    ],
)
def test_wrong_levels_are_named(levels, error, message):
    with pytest.raises(error, match=message):
        functional.level_linear(levels, functional.pack_weight(torch.ones(2, 3)))


@settings(max_examples=CASES // 3)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 70),
    image=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    window=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    levels=st.sampled_from(LEVELS),
)
def test_conv2d_equals_sums(seed, batch, channels, outputs, image, window, stride, padding, dilation, levels):
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if any(size + 2 * pad < need for size, pad, need in zip(image, padding, reach, strict=True)):
        return
    x, w = drawn(seed, batch, *image, channels), drawn(seed + 1, outputs, channels, *window)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    words, weight = functional.pack_bits(x), functional.pack_weight(w)
    expected = conv_reference.product(words, channels, signs(w), levels, **options)
    direct = torch.nn.functional.conv2d(values(x, levels).movedim(-1, 1), signs(w), **options)
    assert torch.equal(expected, direct.movedim(1, -1).int())
    assert torch.equal(functional.binary_conv2d(words, weight, levels=levels, **options), expected)
    thresholds = torch.full((outputs,), seed % 9 - 4, dtype=torch.int32)
    bits = functional.binary_conv2d(words, weight, levels=levels, thresholds=thresholds, **options)
    assert torch.equal(functional.unpack_bits(bits, outputs), expected > thresholds[0])


@settings(max_examples=CASES)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 9), size=st.integers(0, 200), outputs=st.integers(1, 1100))
def test_heaviside_linear_equals_sums(seed, rows, size, outputs):
    x = drawn(seed, rows, size)
    weight = torch.from_numpy(np.random.default_rng(seed).integers(-(2**20), 2**20, (size, outputs), np.int32))
    sums = functional.heaviside_linear(functional.pack_bits(x), weight)
    assert torch.equal(sums, ((x > 0).double() @ weight.double()).int())


@settings(max_examples=CASES)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 5), size=st.integers(0, 300))
def test_unpacking_inverts_packing(seed, rows, size):
    x = drawn(seed, rows, size)
    words = functional.pack_bits(x)
    assert words.shape == (rows, -(-size // 64))
    assert torch.equal(functional.unpack_bits(words, size), x > 0)
    rest = functional.unpack_bits(words, words.shape[1] * 64)[:, size:]
    assert not rest.any()


@pytest.mark.parametrize("backend", DEVICES)
@pytest.mark.parametrize("levels", LEVELS)
def test_backends_agree(backend, levels):
    for seed, (rows, size, outputs) in enumerate([(3, 77, 130), (17, 64, 1), (1, 1, 64), (2, 130, 65), (0, 3, 3)]):
        x, w = (one.to(DEVICES[backend]) for one in (drawn(seed, rows, size), drawn(seed + 9, outputs, size)))
        words, weight = functional.pack_bits(x, backend), functional.pack_weight(w)
        assert torch.equal(words, functional.pack_bits(x, "torch"))
        expected = (values(x, levels) @ signs(w).T).int()
        options = {"levels": levels, "backend": backend}
        assert torch.equal(functional.binary_linear(words, weight, **options), expected)
        thresholds = torch.arange(outputs, dtype=torch.int32, device=x.device) % 7 - 3
        bits = functional.binary_linear(words, weight, thresholds=thresholds, **options)
        assert torch.equal(functional.unpack_bits(bits, outputs), expected > thresholds)
        integers = torch.arange(size * outputs, dtype=torch.int32, device=x.device).view(size, outputs) - 50
        sums = functional.heaviside_linear(words, integers, backend)
        assert torch.equal(sums, ((x > 0).double() @ integers.double()).int())
        for kind in (torch.int8, torch.int16):
            small = (integers % 100 - 50).to(kind)
            expected = ((x > 0).double() @ small.double()).int()
            assert torch.equal(functional.heaviside_linear(words, small, backend), expected)
    image, w = (one.to(DEVICES[backend]) for one in (drawn(5, 2, 4, 5, 70), drawn(6, 66, 70, 3, 3)))
    words, weight = functional.pack_bits(image, backend), functional.pack_weight(w)
    sums = functional.binary_conv2d(words, weight, padding=(1, 1), **options)
    assert torch.equal(sums, conv_reference.product(words, 70, signs(w), levels, padding=(1, 1)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("backend", DEVICES)
def test_any_dtype_packs(dtype, backend):
    x = drawn(1, 3, 70).clamp(-2, 2)
    x = x > 0 if dtype == torch.bool else x.abs().to(dtype) if dtype == torch.uint8 else x.to(dtype)
    x = x.to(DEVICES[backend])
    assert torch.equal(functional.unpack_bits(functional.pack_bits(x, backend), 70), x > 0)


def test_strides_and_nan():
    x = drawn(2, 70, 5).T
    assert torch.equal(functional.pack_bits(x), functional.pack_bits(x.contiguous()))
    for channels in (1, 64, 130):
        image = drawn(3, 2, channels, 3, 5).movedim(1, -1)
        assert torch.equal(functional.pack_bits(image), functional.pack_bits(image.contiguous()))
    assert functional.pack_bits(torch.tensor([torch.nan, 1.0])).tolist() == [2]
    words = functional.pack_bits(drawn(3, 4, 6, 130))[::2]
    weight = functional.pack_weight(drawn(4, 7, 130))
    assert torch.equal(functional.binary_linear(words, weight), functional.binary_linear(words.clone(), weight))


def test_the_operators_can_be_traced():
    """With fake tensors, as in compilers."""
    weight = functional.pack_weight(drawn(0, 66, 70))
    compiled = torch.compile(lambda x: functional.binary_linear(functional.pack_bits(x), weight), fullgraph=True)
    x = drawn(1, 3, 70)
    assert torch.equal(compiled(x), functional.binary_linear(functional.pack_bits(x), weight))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: functional.pack_bits([1.0]), TypeError, "^x: expected a tensor of numbers"),
        (lambda: functional.pack_bits(torch.tensor(1.0)), ValueError, "^x: expected at least one dimension"),
        (lambda: functional.unpack_bits(torch.ones(1), 1), TypeError, "^words: expected int64 words"),
        (lambda: functional.unpack_bits(torch.ones(1).long(), 65), ValueError, "^size: expected 0 to 64"),
        (lambda: functional.pack_weight(torch.ones(3)), ValueError, "^weight: expected the shape"),
        (lambda: functional.pack_weight(torch.tensor([[torch.nan]])), ValueError, "^weight: expected numbers, got NaN"),
        (lambda: _product(words=torch.ones(1, 2).long()), ValueError, "^words: expected 1 per row"),
        (lambda: _product(levels=(1, 2)), ValueError, "^levels: expected"),
        (lambda: _product(thresholds=torch.ones(3)), ValueError, r"^thresholds: expected int32 of shape \(2,\)"),
        (lambda: _product(backend="cpp"), ValueError, "^backend: expected one of"),
        (lambda: functional.binary_conv2d(_words(), _weight()), ValueError, "^words: expected .B, H, W, K."),
        (lambda: functional.heaviside_linear(_words(), torch.ones(5, 2)), ValueError, "^weight: expected int32"),
        (lambda: _product(words=torch.tensor([[32]])), ValueError, "^words: expected 5 elements per row"),
        (
            lambda: functional.heaviside_linear(torch.tensor([[-1]]), torch.ones(5, 2).int()),
            ValueError,
            "^words: expec",
        ),
        (
            lambda: functional.heaviside_linear(_words(), torch.full((3, 2), 2**30).int()),
            ValueError,
            "^weight: expected m",
        ),
        (lambda: functional.level_linear(*_wide_levels()), ValueError, "^levels: expected at most 8421504 per row"),
        (lambda: functional.binary_conv2d(_image(), _window(), stride=2), ValueError, "^stride: expected two integers"),
        (lambda: functional.binary_conv2d(_image(), _window(), dilation=(0, 1)), ValueError, "^dilation: expected two"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def _words():
    return torch.ones(1, 1).long()


def _wide_levels():
    size = 2**31 // 255 + 1
    weight = functional.pack_weight(torch.ones(1, 5))._replace(size=size)
    return torch.zeros(1, dtype=torch.uint8).expand(1, size), weight


def _image():
    return functional.pack_bits(torch.ones(1, 4, 4, 8))


def _window():
    return functional.pack_weight(torch.ones(2, 8, 3, 3))


def _weight():
    return functional.pack_weight(torch.ones(2, 5))


def _product(words=None, **options):
    return functional.binary_linear(_words() if words is None else words, _weight(), **options)
