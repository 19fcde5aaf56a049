"""Factors of matching against closed forms."""

import math
import pickle
from typing import get_args

import pytest
import torch

from htaf_snn import nn as hnn
from htaf_snn import profile, surrogate, training
from htaf_snn.compare.matching import identity, rescaled, width
from htaf_snn.configuration import Match
from htaf_snn.surrogate import HTAF, ATan, FastSigmoid, Gaussian, Rescaled, StraightThrough, resolve


def gradient(surrogate, x):
    x = torch.as_tensor(x, dtype=torch.float64).requires_grad_()
    return torch.autograd.grad(surrogate(x).sum(), x)[0]


def test_a_slope_is_the_chain_rule():
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    steep = rescaled(ATan(alpha=2.0), HTAF(), "none", slope=3.0)
    assert (steep.stretch, steep.gain) == (3.0, 1.0)
    torch.testing.assert_close(gradient(steep, x), gradient(ATan(alpha=6.0), x), rtol=1e-12, atol=0)
    assert torch.equal(steep(x), (x > 0).double())


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_peaks_become_equal(slope):
    # HTAF's peak is alpha * beta / 4, ATan's alpha / 2.
    matched = rescaled(ATan(alpha=6.0), HTAF(alpha=0.5, beta=4.0), "peak", slope)
    assert matched.gain == pytest.approx(0.5 / (3.0 * slope), rel=1e-9)
    assert gradient(matched, 0.0) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_widths_become_equal(slope):
    # ATan's full width at half maximum is 4 / (pi * alpha), the fast sigmoid's 2 * (sqrt(2) - 1) / slope.
    matched = rescaled(ATan(alpha=2.0), FastSigmoid(slope=5.0), "half_width", slope)
    assert matched.stretch == pytest.approx(slope * (2 / math.pi) / (2 * (math.sqrt(2) - 1) / 5), rel=1e-6)
    assert profile.measure(matched).width == pytest.approx(2 * (math.sqrt(2) - 1) / 5 / slope, rel=1e-6)


def test_the_width_of_a_stretched_gradient():
    matched = rescaled(ATan(alpha=2.0), FastSigmoid(slope=5.0), "half_width", 2.0)
    assert width("atan(alpha=2)", matched.stretch) == pytest.approx((math.sqrt(2) - 1) / 5, rel=1e-6)
    assert width("straight_through") is None
    assert width("rescaled(function='atan', stretch=2)", 3.0) == pytest.approx(width("atan") / 6)
    assert width("snntorch.atan(alpha=4)") == pytest.approx(width("snntorch.atan") / 2)
    assert width(lambda x: (x > 0).to(x.dtype) + 0 * x) is None  # its gradient is 0


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_areas_become_equal(slope):
    # HTAF's area is tanh(beta / 2), ATan's 1.
    matched = rescaled(ATan(alpha=2.0), HTAF(beta=2.0), "area", slope)
    assert matched.gain == pytest.approx(math.tanh(1.0), rel=1e-5)
    assert profile.measure(matched).total_mass == pytest.approx(math.tanh(1.0), rel=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("htaf", "htaf()", True),
        ("htaf", "htaf(alpha=1, beta=4.0, hardness=1)", True),
        ("htaf", "htaf(alpha=1.5)", False),
        ("htaf", "htaf(normalized=True)", False),
        ("htaf", "htaf(hardness=0.5)", False),
        ("htaf", "htaf(learn=('beta',))", False),
        ("approx_sign", "triangle", True),
        ("sigmoid", "htaf", False),
        ("htaf", "rescaled(function='htaf')", True),
        ("htaf", "rescaled(function='htaf', stretch=2)", False),
        ("snntorch.atan", "snntorch.atan(alpha=2.0)", True),
        ("snntorch.atan", "snntorch.atan(alpha=3)", False),
        ("snntorch.atan", "atan", False),
        ("norse.super", "norse.super(alpha=2)", True),  # which it ignores
    ],
)
def test_one_function_is_known_by_all_its_names(one, other, same):
    assert (identity(one) == identity(other)) == same


@pytest.mark.parametrize("match", get_args(Match))
def test_a_match_with_itself_changes_nothing(match):
    matched = rescaled(Gaussian(), Gaussian(), match)
    assert (matched.stretch, matched.gain) == (1.0, 1.0)


def test_a_surrogate_without_width_or_area_cannot_be_matched():
    for match, quantity in (("half_width", "half width"), ("area", "area")):
        with pytest.raises(ValueError, match=f"positive finite {quantity}.*leave out the surrogate"):
            rescaled(StraightThrough(), HTAF(), match)
    assert rescaled(StraightThrough(), HTAF(), "peak").gain == 1.0


@pytest.mark.parametrize("spec", ["snntorch.fast_sigmoid", "norse.tanh(alpha=2)", "snntorch.triangular"])
def test_surrogates_of_libraries_are_matched(spec):
    matched = rescaled(surrogate.resolve(spec), HTAF(), "peak", slope=2.0)
    assert profile.measure(matched).peak == pytest.approx(1.0, rel=1e-6)


def test_a_rescaled_surrogate_has_a_specification():
    resolved = resolve("rescaled(function='atan(alpha=3)', stretch=0.5, gain=2)")
    x = torch.linspace(-2, 2, 9)
    expected = gradient(Rescaled(ATan(alpha=3.0), stretch=0.5, gain=2), x)
    torch.testing.assert_close(gradient(resolved, x), expected, rtol=0, atol=0)
    for wrong, message in (
        ("rescaled(stretch=2)", "function"),
        ("rescaled(function='hat')", "unknown surrogate 'hat'"),
    ):
        with pytest.raises(ValueError, match=message):
            resolve(wrong)


def test_a_run_with_a_rescaled_surrogate_is_loaded_again(tmp_path):
    run = training.Run(model="dhn", hidden=(8,), epochs=1, surrogate="rescaled(function='htaf', stretch=0.5, gain=2)")
    result = training.train(run, tmp_path, progress=False)
    net = training.load(tmp_path)
    assert training.evaluate(net, training.make_loaders(run)[2])["accuracy"] == result["test_accuracy"]


def test_a_rescaled_surrogate_goes_into_the_fused_neuron():
    current = torch.randn(6, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain = hnn.Leaky(beta=0.9, surrogate=ATan(alpha=4.0))
    scaled = hnn.Leaky(beta=0.9, surrogate=Rescaled(ATan(alpha=2.0), stretch=2.0))
    outputs = [neuron(current)[0] for neuron in (plain, pickle.loads(pickle.dumps(scaled)))]
    assert torch.equal(*outputs)
    grads = [torch.autograd.grad(output.sum(), current)[0] for output in outputs]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("area ", 1.0), "^match: expected one of none, peak, half_width, area, got 'area '"),
        (("peak", 0.0), "^slope: expected a positive finite number, got 0.0"),
        (("peak", math.nan), "^slope"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        rescaled(ATan(), HTAF(), *arguments)
    with pytest.raises(ValueError, match=r"^gain: expected a positive finite number, got -1"):
        Rescaled(ATan(), gain=-1)
