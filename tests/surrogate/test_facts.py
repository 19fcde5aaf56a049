"""The facts about HTAF that the documentation states, one by one, in float64."""

import math

import pytest
import torch

from htaf_snn import functional, profile, surrogate
from htaf_snn.functional import htaf, htaf_derivative

PAIRS = [(1.0, 4.0), (0.5, 8.0), (3.0, 0.7), (10.0, 2.0)]


def grid(alpha):
    return torch.linspace(-12, 12, 2001, dtype=torch.float64) / alpha


def logistic(z):
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_half_at_zero_odd_and_increasing(alpha, beta):
    x = grid(alpha)
    h = htaf(x, alpha, beta)
    assert htaf(torch.zeros(1, dtype=torch.float64), alpha, beta).item() == 0.5
    torch.testing.assert_close(h - 0.5, 0.5 - h.flip(0), rtol=0, atol=1e-15)
    assert (h.diff() > 0).all()


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_limits_leave_the_residual(alpha, beta):
    low, high = htaf(torch.tensor([-1e300, 1e300], dtype=torch.float64), alpha, beta).tolist()
    assert low == pytest.approx(logistic(-beta), rel=1e-14)
    assert high == pytest.approx(logistic(beta), rel=1e-14)


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_peak_slope(alpha, beta):
    slope = htaf_derivative(grid(alpha), alpha, beta)
    assert slope.max().item() == pytest.approx(alpha * beta / 4, rel=1e-15)
    assert slope.argmax().item() == len(slope) // 2


def test_default_peak_is_that_of_atan_and_fast_sigmoid():
    zero = torch.zeros(1, dtype=torch.float64)
    for name in ("htaf", "atan(alpha=2)", "fast_sigmoid"):
        slope = torch.func.grad(lambda x, name=name: functional.spike(x, name).sum())(zero)
        assert slope.item() == 1.0


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_gradient_mass(alpha, beta):
    measured = profile.measure(surrogate.HTAF(alpha, beta), deltas=(0.01, 0.3, 2.0))
    for delta, mass in measured.mass.items():
        assert mass == pytest.approx(math.tanh(beta / 2 * math.tanh(alpha * delta)), rel=1e-9)
        assert measured.exact_mass[delta] == pytest.approx(mass, rel=1e-9)
    assert measured.total_mass == pytest.approx(math.tanh(beta / 2), rel=1e-9)
    assert measured.exact_total_mass == pytest.approx(math.tanh(beta / 2), rel=1e-12)


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_tail(alpha, beta):
    x = torch.tensor([20.0, 30.0], dtype=torch.float64) / alpha
    saturated = logistic(beta) * logistic(-beta)
    expected = 4 * alpha * beta * saturated * torch.exp(-2 * alpha * x)
    torch.testing.assert_close(htaf_derivative(x, alpha, beta), expected, rtol=1e-12, atol=0)
    assert profile.measure(surrogate.HTAF(alpha, beta)).rate == pytest.approx(2 * alpha, rel=1e-6)


@pytest.mark.parametrize("beta", [1.0, 1.9, 2.1, 8.0])
def test_heavier_than_the_sigmoid_of_the_same_peak_when_beta_exceeds_two(beta):
    alpha = 0.8
    ours = profile.measure(surrogate.HTAF(alpha, beta))
    sigmoid = profile.measure(surrogate.Sigmoid(alpha * beta))
    assert ours.peak == pytest.approx(sigmoid.peak, rel=1e-12)
    assert ours.rate / sigmoid.rate == pytest.approx(2 / beta, rel=1e-6)
    assert (ours.rate < sigmoid.rate) == (beta > 2)


@pytest.mark.parametrize(("alpha", "beta"), PAIRS)
def test_normalized_reaches_zero_and_one(alpha, beta):
    x = grid(alpha)
    residual = logistic(-beta)
    stretched = (htaf(x, alpha, beta) - residual) / (logistic(beta) - residual)
    torch.testing.assert_close(htaf(x, alpha, beta, normalized=True), stretched, rtol=1e-9, atol=1e-14)
    ends = htaf(torch.tensor([-1e300, 1e300], dtype=torch.float64), alpha, beta, normalized=True)
    assert ends.tolist() == [0.0, 1.0]
