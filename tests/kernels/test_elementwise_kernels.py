"""The elementwise kernels against the reference."""

import pytest
import torch
from closed_forms import DERIVATIVES
from devices import DEVICES
from mpmath import mpf, workdps

from htaf_snn import HTAF, functional, surrogate
from htaf_snn.kernels import _dispatch, elementwise
from htaf_snn.surrogate import elementwise as reference

TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 2e-6, torch.float64: 1e-13}
CASES = [("numba", dtype) for dtype in TOLERANCE] + [("triton", d) for d in TOLERANCE if d != torch.float64]


def points(size, dtype):
    x = torch.randn(size, generator=torch.Generator().manual_seed(0)).mul(3)
    special = torch.tensor([0.0, -0.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan, 1e-30])
    return torch.cat([x, special]).to(dtype)


# numpy, which Triton's interpreter computes with, warns of overflows in branches that are not taken.
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("name", surrogate.names())
@pytest.mark.parametrize("backend, dtype", CASES)
def test_kernels_equal_the_reference(name, backend, dtype):
    made, kernels = surrogate.resolve(name), _dispatch.load(backend, elementwise.__name__)
    formula, values = made.formula, [float(value) for value in made.values().values()]
    x, grad = points(1021, dtype), torch.randn(1029, generator=torch.Generator().manual_seed(1)).to(dtype)
    there = x.to(DEVICES[backend])
    y = kernels.primitive(there, formula, values).cpu()
    z = kernels.gradient(grad.to(DEVICES[backend]), there, formula, values).cpu()
    assert y.dtype == z.dtype == dtype
    tolerance = {"rtol": 10 * TOLERANCE[dtype], "atol": TOLERANCE[dtype], "equal_nan": True}
    torch.testing.assert_close(y, reference.primitive(x, formula, values), **tolerance)
    torch.testing.assert_close(z, (grad * reference.derivative(x, formula, values)).to(dtype), **tolerance)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("beta", [1.0, 4.0, 8.0, 16.0])
@pytest.mark.parametrize("backend", DEVICES)
def test_float32_gradient_of_htaf_is_accurate(backend, beta, normalized):
    # A power of two: the rounding of alpha * x, which no formula can undo, has a share of its own.
    alpha, info = 0.5, torch.finfo(torch.float32)
    generator = torch.Generator().manual_seed(0)
    bulk = torch.randn(3000, generator=generator) * 2
    spread = 10 ** (torch.rand(500, generator=generator) * 41 - 38)
    tail = torch.rand(500, generator=generator) * 92 - 46
    special = torch.tensor([0.0, info.tiny, info.max, -info.max])
    x = torch.cat([bulk, spread, -spread, tail, special]) / alpha
    x = x.clamp(-info.max, info.max)
    with workdps(60):
        form = DERIVATIVES["htaf_normalized" if normalized else "htaf"]
        exact = [form(mpf(at), mpf(alpha), mpf(beta)) if abs(at) < 1e3 else mpf(0) for at in x.tolist()]
    there = x.to(DEVICES[backend])
    kernels = reference if backend == "torch" else _dispatch.load(backend, elementwise.__name__)
    slopes = kernels.gradient(torch.ones_like(there), there, HTAF.formula, (alpha, beta, float(normalized))).tolist()
    for at, slope, expected in zip(x.tolist(), slopes, exact, strict=True):
        if expected > 1.001 * info.tiny:
            assert abs(slope / expected - 1) <= 1e-6 * max(1, alpha * abs(at), beta / 8), (at, slope)
        else:
            assert 0 <= slope <= 1.01 * info.tiny, (at, slope)


@pytest.mark.parametrize("backend", ["numba", "triton"])
@pytest.mark.parametrize("shape", [(0,), (1,), (63,), (3, 0, 5), (1023, 7)])
def test_shapes(backend, shape, poisoned):
    x = torch.randn(*shape, 2, device=DEVICES[backend])[..., 0]  # not contiguous
    grad = torch.randn(1, device=DEVICES[backend]).expand(shape)
    formula, kernels = HTAF.formula, _dispatch.load(backend, elementwise.__name__)
    for values in ((1.0, 4.0, 0.0), (1.0, 4.0, 1.0)):
        torch.testing.assert_close(kernels.primitive(x, formula, values), reference.primitive(x, formula, values))
        torch.testing.assert_close(
            kernels.gradient(grad, x, formula, values), grad * reference.derivative(x, formula, values)
        )


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels called."""
    names, kernels = [], _dispatch.load("numba", elementwise.__name__)
    for name in ("primitive", "gradient"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *args, n=name, k=kernel: (names.append(n), k(*args))[1])
    return names


LARGE = (50, 1009)


@pytest.mark.parametrize(
    "run, expected",
    [
        (functional.smooth, ["primitive", "gradient"]),
        (functional.spike, ["gradient"]),
        (HTAF(hardness=0.3), ["primitive", "gradient"]),
    ],
)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_large_tensors_go_to_the_kernels(run, expected, dtype, calls):
    x = torch.randn(LARGE, dtype=dtype, requires_grad=True)
    y = run(x)
    y.sum().backward()
    assert calls == expected
    small = x.detach()[:3].requires_grad_()
    z = run(small)
    z.sum().backward()
    assert calls == expected
    for large, other in ((y[:3], z), (x.grad[:3], small.grad)):
        assert large.dtype == dtype
        torch.testing.assert_close(large, other, rtol=5 * TOLERANCE[dtype], atol=0.1 * TOLERANCE[dtype])


def test_one_tensor_is_saved():
    x = torch.randn(LARGE, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        functional.htaf(x)
    assert saved == [x.data_ptr()]


def test_second_derivatives_learnable_parameters_and_compiled_code_take_the_reference(calls):
    x = torch.randn(LARGE, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(functional.smooth(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    step = 1e-6
    difference = functional.htaf_derivative(x + step) - functional.htaf_derivative(x - step)
    torch.testing.assert_close(second, difference / (2 * step), rtol=1e-6, atol=1e-8)
    calls.clear()
    functional.htaf(x, alpha=torch.tensor(1.0, requires_grad=True)).sum().backward()
    torch.compile(functional.htaf, fullgraph=True, backend="eager")(x)
    assert calls == []


def test_vmap_and_fake_tensors():
    x = torch.randn(*LARGE, 3)
    mapped = torch.vmap(torch.func.grad(lambda x: functional.smooth(x).sum()), in_dims=-1, out_dims=-1)(x)
    torch.testing.assert_close(mapped, functional.htaf_derivative(x))
    for op, args in ((torch.ops.htaf_snn.primitive, (x,)), (torch.ops.htaf_snn.gradient, (x, x))):
        torch.library.opcheck(op, (*args, "htaf", [1.0, 4.0, 0.0]))
