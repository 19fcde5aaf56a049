import json
import math

import pytest
import torch

from htaf_snn import profile, surrogate


def measured(spec):
    return profile.measure(surrogate.resolve(spec), spec)


@pytest.mark.parametrize(
    ("spec", "peak", "width", "total", "tail", "rate"),
    [
        ("sigmoid(slope=4)", 1, 4 / 4 * math.acosh(math.sqrt(2)), 1, "exponential", 4),
        ("atan(alpha=2)", 1, 2 / math.pi, 1, "power", 2),
        ("atan(alpha=200)", 100, 0.02 / math.pi, 1, "power", 2),
        ("fast_sigmoid(slope=25)", 1, 2 * (math.sqrt(2) - 1) / 25, 0.08, "power", 2),
        ("triangle(alpha=4)", 4, 0.25, 1, "compact", 0.25),
        ("rectangle(width=0.5)", 2, 0.5, 1, "compact", 0.25),
        ("straight_through", 1, math.inf, math.inf, "constant", 0),
        ("straight_through(clip=3)", 1, 6, 6, "compact", 3),
        ("piecewise_exp(alpha=2)", 1, math.log(2), 1, "exponential", 2),
        ("gaussian(sigma=0.5)", math.sqrt(2 / math.pi), math.sqrt(2 * math.log(2)), 1, "gaussian", 2),
        ("erfc(alpha=2)", 2 / math.sqrt(math.pi), math.sqrt(math.log(2)), 1, "gaussian", 4),
    ],
)
def test_equals_closed_form(spec, peak, width, total, tail, rate):
    result = measured(spec)
    assert result.peak == pytest.approx(peak, rel=1e-9)
    assert result.width == pytest.approx(width, rel=1e-7)
    assert result.total_mass == pytest.approx(total, rel=1e-7)
    assert (result.tail, result.rate) == (tail, pytest.approx(rate, rel=1e-4))
    assert result.finite
    for delta, mass in result.mass.items():
        assert mass == pytest.approx(result.exact_mass[delta], rel=1e-7)


def test_faults_of_other_libraries_show():
    sigmoid = measured("snntorch.sigmoid")
    assert not sigmoid.finite and sigmoid.peak == pytest.approx(6.25)
    assert measured("snntorch.triangular").mass[1.0] == pytest.approx(0, abs=1e-9)
    assert math.isnan(measured("snntorch.triangular").total_mass)  # +1 below and -1 above, up to infinity
    assert math.isnan(profile.measure(lambda x: x.abs()).total_mass)
    assert measured("snntorch.heaviside").total_mass == math.inf
    shifted = measured("snntorch.spike_rate_escape")
    assert shifted.peak_at == pytest.approx(1, rel=1e-2)
    tanh = measured("norse.tanh(alpha=1)")  # 1 - tanh², quantised by rounding in its tail
    assert (tanh.tail, tanh.rate) == ("exponential", pytest.approx(2, rel=1e-4))
    assert measured("norse.super(alpha=1)").rate == pytest.approx(2, rel=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="without"):
        profile.measure(lambda x: (x > 0).double(), "step")
    with pytest.raises(ValueError, match="nothing to measure"):
        profile.measure(lambda x: x * 0, "zero")
    with pytest.raises(ValueError, match="deltas"):
        profile.measure(surrogate.HTAF(), deltas=[0.0])


def test_json_and_table_and_plot(tmp_path):
    profiles = [measured("htaf"), measured("straight_through")]
    assert json.loads(json.dumps(profiles[1].as_dict(), allow_nan=False))["total_mass"] is None
    lines = profile.table(profiles).splitlines()
    assert [line.split()[0] for line in lines] == ["surrogate", "htaf", "straight_through"]
    path = tmp_path / "s.png"
    profile.plot({"htaf": surrogate.HTAF(), "atan": surrogate.ATan()}, path)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_mode & 0o444 == 0o444
    with pytest.raises(ValueError, match=r"xyz|format"):
        profile.plot({"htaf": surrogate.HTAF()}, tmp_path / "s.xyz")
    assert [p.name for p in tmp_path.iterdir()] == ["s.png"]


def test_float64_gradient_is_used():
    seen = []

    def spy(x):
        seen.append(x.dtype)
        return surrogate.ATan()(x)

    profile.measure(spy)
    assert set(seen) == {torch.float64}
