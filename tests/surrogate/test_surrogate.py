"""One contract for every surrogate, hardness and dtype."""

import math

import pytest
import torch
from closed_forms import DERIVATIVES, HARDNESSES, PARAMETERS, PRIMITIVES, evaluate, make, steepness
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from htaf_snn import HTAF, functional

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CASES = [(name, parameters) for name in PARAMETERS for parameters in PARAMETERS[name]]
FORMULAS = sorted(PARAMETERS)
# Relative error of one operation; half precision is computed in float32 and rounded once.
BOUND = {torch.float16: 2**-11 + 1e-6, torch.bfloat16: 2**-8 + 1e-6, torch.float32: 1e-6, torch.float64: 1e-12}


def blended(name, hardness):
    """The closed form of the forward pass."""
    return lambda x, *p: (1 - mpf(hardness)) * PRIMITIVES[name](x, *p) + mpf(hardness) * (x > 0)


def sample(name, parameters, dtype):
    """Odd-sized sample: random, a grid over the bulk, magnitudes from the smallest normal to the largest number."""
    info = torch.finfo(dtype)
    scale = 1 / steepness(name, parameters)
    bulk = torch.cat([torch.randn(40, dtype=torch.float64), torch.linspace(-100, 100, 51, dtype=torch.float64)]) * scale
    magnitudes = torch.logspace(math.log10(info.tiny), 4, 21, dtype=torch.float64).clamp(max=info.max)
    special = torch.tensor([0.0, -0.0, info.tiny, -info.tiny, info.max, -info.max], dtype=torch.float64)
    x = torch.cat([bulk, magnitudes, -magnitudes, special]).clamp(-info.max, info.max)
    return x.to(dtype)


def relative_errors(x, y, function, name, parameters):
    """Errors in units of max(1, steepness * |x|) relative to the exact value, where that is a normal number.

    The gradient of HTAF is the more sensitive to tanh the larger beta is: its unit is at least beta / 8.
    """
    alpha, tiny = mpf(steepness(name, parameters)), torch.finfo(y.dtype).tiny
    least = max(1, parameters[1] / 8) if name.startswith("htaf") and function is DERIVATIVES[name] else 1
    for xi, yi in zip(x.tolist(), y.tolist(), strict=True):
        exact = evaluate(function, xi, parameters)
        if abs(exact) > tiny * (1 + 1e-3):
            yield float(abs(mpf(yi) / exact - 1) / max(least, alpha * abs(mpf(xi)))), xi
        else:
            assert abs(yi) <= tiny * (1 + 1e-2), (xi, yi)


@pytest.mark.parametrize("hardness", HARDNESSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_value_equals_closed_form(name, parameters, dtype, hardness):
    x = sample(name, parameters, dtype)
    y = make(name, parameters, hardness)(x)
    assert y.dtype == dtype
    if hardness == 1:
        assert torch.equal(y, (x > 0).to(dtype))
        return
    largest = torch.finfo(dtype).max
    finite = x.abs() < largest / 2 if name == "straight_through" else torch.ones_like(x, dtype=torch.bool)
    if name == "swish_sign":  # near its zero, at beta * x = -1.2784645, no relative accuracy can be had
        crossing = (parameters[0] * x.double() + 1.2784645).abs() < 0.1
        for xi, yi in zip(x[crossing].tolist(), y[crossing].tolist(), strict=True):
            assert abs(yi - float(evaluate(blended(name, hardness), xi, parameters))) <= BOUND[dtype]
        finite &= ~crossing
    worst = max(relative_errors(x[finite], y[finite], blended(name, hardness), name, parameters))
    assert worst[0] <= BOUND[dtype], worst
    assert y.isfinite().all()


@pytest.mark.parametrize("hardness", HARDNESSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_gradient_equals_closed_form(name, parameters, dtype, hardness):
    x = sample(name, parameters, dtype).requires_grad_()
    y = make(name, parameters, hardness)(x)
    y.backward(torch.ones_like(y))
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()
    worst = max(relative_errors(x.detach(), x.grad, DERIVATIVES[name], name, parameters))
    assert worst[0] <= BOUND[dtype], worst


@pytest.mark.parametrize("hardness", HARDNESSES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_zero_nan_empty_and_strides(name, dtype, hardness):
    step = make(name, hardness=hardness)
    x = torch.tensor([-0.0, 0.0, float("nan"), torch.finfo(dtype).tiny], dtype=dtype, requires_grad=True)
    y = step(x)
    y.backward(torch.ones_like(y))
    if hardness == 1:
        assert y.tolist() == [0, 0, 0, 1]
    else:
        half = torch.tensor((1 - hardness) / 2, dtype=dtype)
        assert torch.equal(y[:2], half.expand(2)) and y[2].isnan()
    assert x.grad[2].isnan() and x.grad[[0, 1, 3]].isfinite().all()
    assert step(torch.empty(0, 3, dtype=dtype)).shape == (0, 3)
    strided = torch.randn(7, 5, 3).to(dtype).transpose(0, 2)[:, ::2]
    assert torch.equal(step(strided), step(strided.contiguous()))


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_derivative_is_finite_difference_of_primitive(name, parameters):
    scale = 1 / steepness(name, parameters)
    x = torch.randn(101, dtype=torch.float64) * scale
    width = 1e-6 * scale
    step = make(name, parameters)
    edge = {"triangle": 1.0, "straight_through": 1.0, "rectangle": 0.5}.get(name)
    if edge is not None:
        x = x[((x / scale).abs() - edge).abs() > 1e-3]
    difference = functional.smooth(x + width, step) - functional.smooth(x - width, step)
    grad = torch.func.grad(lambda z: functional.smooth(z, step).sum())(x)
    torch.testing.assert_close(difference / (2 * width), grad, rtol=1e-6, atol=1e-8 / scale)


@settings(max_examples=examples(ci=40, thorough=400))
@given(
    x=st.floats(-1e6, 1e6, width=32),
    alpha=st.floats(2**-10, 2**10, width=32),
    beta=st.floats(2**-10, 16, width=32),
    normalized=st.booleans(),
)
def test_htaf_for_any_parameters(x, alpha, beta, normalized):
    name = "htaf_normalized" if normalized else "htaf"
    for dtype in (torch.float32, torch.float64):
        at = torch.tensor([x], dtype=dtype)
        value = functional.htaf(at, alpha, beta, normalized)
        slope = functional.htaf_derivative(at, alpha, beta, normalized)
        for y, function in ((value, PRIMITIVES[name]), (slope, DERIVATIVES[name])):
            for error, _ in relative_errors(at, y, function, name, (alpha, beta)):
                assert error <= BOUND[dtype]


@pytest.mark.parametrize("normalized", [False, True])
def test_parameter_gradients_are_finite_differences(normalized):
    x = torch.randn(31, dtype=torch.float64) * 2
    alpha, beta = torch.tensor(0.7, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda *inputs: functional.htaf(*inputs, normalized),
        (x.requires_grad_(), alpha.requires_grad_(), beta.requires_grad_()),
    )
    per_channel = torch.rand(3, 1, dtype=torch.float64) + 0.5
    torch.autograd.gradcheck(
        lambda *inputs: functional.htaf(*inputs, normalized),
        (torch.randn(2, 3, 5, dtype=torch.float64), per_channel.requires_grad_(), beta),
    )


def test_parameters_get_the_smooth_gradient_at_any_hardness():
    x = torch.randn(50, dtype=torch.float64)
    grads = {}
    for hardness in HARDNESSES:
        torch.manual_seed(1)
        step = HTAF(0.5, 8.0, learn=("alpha", "beta"), hardness=hardness).double()
        step(x).mul(torch.randn(50, dtype=torch.float64)).sum().backward()
        grads[hardness] = (step.log_alpha.grad.item(), step.log_beta.grad.item())
    assert grads[0.0] == grads[0.3] == grads[1.0] and all(grads[1.0])


@pytest.mark.thorough
def test_compiles_with_inductor():
    torch._dynamo.reset()
    step = HTAF(learn=("alpha", "beta"))
    x = torch.randn(33, requires_grad=True)
    torch.compile(step, fullgraph=True)(x).sum().backward()
    compiled = (x.grad.clone(), step.log_alpha.grad.clone())
    x.grad = step.log_alpha.grad = None
    step(x).sum().backward()
    torch.testing.assert_close(compiled, (x.grad, step.log_alpha.grad), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_torch_func(name):
    step = make(name)
    x = torch.randn(4, 3)
    per_sample = torch.func.vmap(torch.func.grad(lambda z: functional.spike(z, step).sum()))(x)
    expected = torch.func.grad(lambda z: functional.spike(z, step).sum())(x)
    torch.testing.assert_close(per_sample, expected)


def test_vmap_over_tensor_parameters():
    x, alphas = torch.randn(5), torch.tensor([0.5, 1.0, 2.0])
    slopes = torch.func.vmap(lambda a: torch.func.grad(lambda z: functional.spike(z, "htaf", alpha=a).sum())(x))(alphas)
    expected = torch.stack([functional.htaf_derivative(x, a) for a in alphas.tolist()])
    torch.testing.assert_close(slopes, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_keeps_the_dtype(dtype):
    linear, step = torch.nn.Linear(5, 4), HTAF(learn=("alpha", "beta"))
    with torch.autocast("cpu", dtype=dtype):
        y = step(linear(torch.randn(3, 5)))
        assert y.dtype == dtype
        y.sum().backward()
    assert linear.weight.grad.dtype == torch.float32 and step.log_alpha.grad.isfinite()
