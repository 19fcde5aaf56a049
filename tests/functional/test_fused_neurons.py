"""The fused neurons against stepped snnTorch and Norse neurons, and every backend against the reference."""

import math

import norse.torch as norse
import pytest
import torch
from closed_forms import DERIVATIVES, PARAMETERS, PRIMITIVES, evaluate, steepness
from devices import DEVICES
from fused import BACKENDS, FUSED, assert_close, fused, fused_cuba, inputs, leaves, norse_inputs, results, stepped
from mpmath import mpf

from htaf_snn import HTAF, functional, surrogate
from htaf_snn.neurons.base import RESETS

RESETS_AND_DELAYS = [(reset, delay) for reset in RESETS for delay in (True, False)]
SURROGATES = [name for name in surrogate.names() if name != "superspike"]
# Triton's interpreter computes with numpy, which warns of what a GPU does silently.
pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


@pytest.mark.parametrize(("reset", "delay"), RESETS_AND_DELAYS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_snntorch(backend, reset, delay):
    tensors = inputs()
    step = HTAF(alpha=0.7, beta=5.0)
    expected, _ = results(stepped(reset, delay, step), leaves(tensors))
    exact, grads = results(stepped(reset, delay, step), leaves(tensors, torch.float64))
    assert torch.equal(expected["spikes"].double(), exact["spikes"]), "choose another seed"
    found, found_grads = results(
        fused(backend, step, reset=reset, reset_delay=delay), leaves(tensors, device=DEVICES[backend])
    )
    assert found["spikes"].any() and not found["spikes"].all()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    assert_close(found_grads, grads, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scalar_parameters_equal_snntorch(backend):
    tensors = inputs() | {"beta": torch.tensor(0.8), "threshold": torch.tensor(0.9)}
    expected, grads = results(stepped("subtract", True, HTAF()), leaves(tensors))
    found, found_grads = results(fused(backend), leaves(tensors, device=DEVICES[backend]))
    assert torch.equal(found["spikes"], expected["spikes"])
    assert_close(found_grads, grads, rtol=1e-5)


def norse_stepped(detach):
    """Norse's step functions: the feed-forward one, or the recurrent one with no recurrent weights."""
    from norse.torch.functional.lif import (
        LIFFeedForwardState,
        LIFParameters,
        LIFState,
        lif_feed_forward_step,
        lif_step,
    )

    def run(x, tau_syn_inv, tau_mem_inv, v_leak, v_th, v_reset, v0, i0):
        p = LIFParameters(tau_syn_inv, tau_mem_inv, v_leak, v_th, v_reset, "htaf", 1.0)
        size = x.shape[-1]
        eye, zero = torch.eye(size, dtype=x.dtype), torch.zeros(size, size, dtype=x.dtype)
        state = LIFState(torch.zeros_like(v0), v0, i0) if detach else LIFFeedForwardState(v0, i0)
        spikes = []
        for current in x:
            if detach:
                z, state = lif_step(current, state, eye, zero, p)
            else:
                z, state = lif_feed_forward_step(current, state, p)
            spikes.append(z)
        return {"spikes": torch.stack(spikes), "v": state.v, "i": state.i}

    return run


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_norse(backend, detach):
    import htaf_snn

    tensors = norse_inputs()
    with htaf_snn.register():
        expected, _ = results(norse_stepped(detach), leaves(tensors))
        exact, grads = results(norse_stepped(detach), leaves(tensors, torch.float64))
    assert torch.equal(expected["spikes"].double(), exact["spikes"]), "choose another seed"
    found, found_grads = results(fused_cuba(backend, detach_reset=detach), leaves(tensors, device=DEVICES[backend]))
    assert found["spikes"].any() and not found["spikes"].all()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    assert_close(found_grads, grads, rtol=1e-5)


def test_equals_the_norse_module():
    x = torch.randn(12, 4, 6, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    p = norse.LIFParameters(v_th=torch.as_tensor(0.3))
    expected, state = norse.LIF(p)(x)
    (expected_grad,) = torch.autograd.grad(expected.sum() + state.v.sum(), x)
    found, (v, i) = functional.lif(x, v_th=0.3, surrogate="norse.super")
    (grad,) = torch.autograd.grad(found.sum() + v.sum(), x)
    assert torch.equal(found, expected) and torch.equal(v, state.v) and torch.equal(i, state.i)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("backend", FUSED)
def test_every_surrogate_in_the_kernel(backend, name, hardness):
    step = surrogate.resolve(name)
    step.hardness = hardness
    tensors = inputs(steps=7)
    expected, grads = results(fused("torch", step), leaves(tensors, torch.float64))
    found, found_grads = results(fused(backend, step), leaves(tensors, device=DEVICES[backend]))
    assert_close(found, expected, rtol=2e-6)
    assert_close(found_grads, grads, rtol=1e-5)


def test_every_formula_is_portable():
    assert all(surrogate.resolve(name).formula.portable for name in surrogate.names())


@pytest.mark.thorough
@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        (backend, dtype)
        for backend in BACKENDS
        for dtype in (torch.bfloat16, torch.float32, torch.float64)
        if (backend, dtype) != ("triton", torch.float64)
    ],
)
def test_every_backend_equals_the_closed_forms(backend, dtype, name, hardness):
    parameters = PARAMETERS[name][-1]
    cls, options = (HTAF, {"normalized": True}) if name == "htaf_normalized" else (type(surrogate.resolve(name)), {})
    step = cls(*parameters, **options, hardness=hardness)
    x = torch.randn(1, 1, 67, generator=torch.Generator().manual_seed(0)) * 2 / steepness(name, parameters)
    x = x.to(DEVICES[backend], dtype).requires_grad_()
    # With nothing kept of what was before and a threshold of 0 the current is the potential minus the threshold.
    for neuron in (
        lambda x: functional.leaky(x, beta=0.0, threshold=0.0, surrogate=step, backend=backend)[0],
        lambda x: functional.lif(x, tau_mem_inv=1000.0, v_th=0.0, surrogate=step, backend=backend)[0],
    ):
        y = neuron(x)
        (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
        at = [mpf(v) for v in x.flatten().tolist()]
        value = [evaluate(PRIMITIVES[name], v, parameters) * (1 - mpf(hardness)) + mpf(hardness) * (v > 0) for v in at]
        slope = [evaluate(DERIVATIVES[name], v, parameters) for v in at]
        rtol = {torch.float32: 1e-5, torch.float64: 1e-11, torch.bfloat16: 2**-8}[dtype]
        for actual, exact in ((y, value), (grad, slope)):
            exact = torch.tensor([float(v) for v in exact], dtype=torch.float64)
            scale = exact.abs().max().item()
            torch.testing.assert_close(actual.flatten().double().cpu(), exact, rtol=rtol, atol=rtol * scale)


@pytest.mark.thorough
@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize(("reset", "delay"), RESETS_AND_DELAYS)
def test_any_callable(backend, reset, delay):
    step = HTAF(learn=("alpha", "beta"), alpha=0.8)
    tensors = inputs(steps=7)

    def run(backend, step, device):
        step.zero_grad()
        outputs, grads = results(fused(backend, step, reset=reset, reset_delay=delay), leaves(tensors, device=device))
        x = tensors["x"].to(device)
        functional.leaky(x, beta=0.9, surrogate=step, reset=reset, reset_delay=delay, backend=backend)[
            0
        ].sum().backward()
        return outputs, grads, {k: p.grad.cpu() for k, p in step.named_parameters()}

    expected = run("torch", step, "cpu")
    assert all(grad.abs() > 0 for grad in expected[2].values())
    for callable_ in (step, torch.nn.Sequential(step)):
        callable_.to(DEVICES[backend])
        found = run(backend, callable_, DEVICES[backend])
        assert torch.equal(found[0]["spikes"], expected[0]["spikes"])
        assert_close(found[1], expected[1], rtol=1e-5)
        learned = {k.removeprefix("0."): v for k, v in found[2].items()}
        assert_close(learned, expected[2], rtol=1e-5)
        callable_.cpu()


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("size", [0, 1, 63, 1023, 5000])
@pytest.mark.parametrize("backend", FUSED)
def test_sizes(backend, size, steps):
    tensors = inputs(steps, 1, size)
    expected, grads = results(fused("torch", reset_delay=False), leaves(tensors))
    found, found_grads = results(fused(backend, reset_delay=False), leaves(tensors, device=DEVICES[backend]))
    assert torch.equal(found["spikes"], expected["spikes"]) and torch.equal(found["v"], expected["v"])
    assert_close(found_grads, grads, rtol=1e-5)
    found, _ = results(fused_cuba(backend), leaves({"x": tensors["x"]}, device=DEVICES[backend]))
    assert found["spikes"].shape == tensors["x"].shape


@pytest.mark.parametrize("backend", FUSED)
def test_non_contiguous(backend):
    wide = torch.randn(6, 5, 8, 4, generator=torch.Generator().manual_seed(1)).to(DEVICES[backend])
    x = wide.transpose(1, 3)[:, :, ::2].requires_grad_()
    spikes, v = functional.leaky(x, beta=0.9, backend=backend)
    (grad,) = torch.autograd.grad(spikes.sum() + v.sum(), x)
    y = x.detach().contiguous().requires_grad_()
    expected, expected_v = functional.leaky(y, beta=0.9, backend="torch")
    (expected_grad,) = torch.autograd.grad(expected.sum() + expected_v.sum(), y)
    assert torch.equal(spikes, expected) and torch.equal(v, expected_v)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_spreads_in_its_neuron_and_gradient_only(backend):
    x = torch.zeros(4, 1, 2, device=DEVICES[backend])
    x[1, 0, 0] = math.nan
    x.requires_grad_()
    spikes, v = functional.leaky(x, beta=0.9, backend=backend)
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert not spikes.any() and v[0, 0].isnan() and v[0, 1] == 0
    assert grad[:, 0, 0].isnan().all() and grad[:, 0, 1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes(backend, dtype):
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("the Triton kernels keep a float32 state; float64 is for the CPU")
    x = inputs()["x"].to(DEVICES[backend], dtype).requires_grad_()
    spikes, v = functional.leaky(x, beta=0.9, backend=backend)
    state = torch.float64 if dtype == torch.float64 else torch.float32
    assert spikes.dtype == dtype and v.dtype == state
    (grad,) = torch.autograd.grad(spikes.sum(), x)
    assert grad.dtype == dtype
    wide = x.detach().to(state).requires_grad_()
    expected, expected_v = functional.leaky(wide, beta=0.9, backend="torch")
    (expected_grad,) = torch.autograd.grad(expected.sum(), wide)
    assert torch.equal(spikes, expected.to(dtype)) and torch.equal(v, expected_v)
    torch.testing.assert_close(grad, expected_grad.to(dtype))


@pytest.mark.parametrize("reset", RESETS)
def test_gradcheck_of_the_smooth_step(reset):
    tensors = leaves(inputs(4, 2, 3), torch.float64)
    step = HTAF(hardness=0.0)

    def run(*values):
        named = dict(zip(tensors, values, strict=True))
        return tuple(fused("numba", step, reset=reset)(**named).values())

    assert torch.autograd.gradcheck(run, tuple(tensors.values()))


@pytest.mark.thorough
def test_gradcheck_of_the_current_based_neuron():
    tensors = leaves(norse_inputs(), torch.float64)

    def run(*values):
        outputs = fused_cuba("numba", surrogate=HTAF(hardness=0.0), detach_reset=True)(
            **dict(zip(tensors, values, strict=True))
        )
        return outputs["spikes"]

    frozen = {k: v for k, v in tensors.items()}
    frozen["x"] = frozen["x"][:3].detach().requires_grad_()
    assert torch.autograd.gradcheck(run, tuple(frozen.values()))


def test_beta_is_clamped_as_in_snntorch():
    tensors = inputs() | {"beta": torch.linspace(-0.5, 1.5, 21)}
    expected, grads = results(stepped("subtract", True, HTAF()), leaves(tensors))
    found, found_grads = results(fused("numba"), leaves(tensors))
    assert torch.equal(found["spikes"], expected["spikes"])
    assert_close(found_grads, grads, rtol=1e-5)
    assert found_grads["grad beta"][0] == 0
