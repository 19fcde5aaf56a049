"""The fused neurons against stepped snnTorch and Norse neurons, and every backend against the reference."""

import math
import subprocess
import sys

import norse.torch as norse
import pytest
import snntorch as snn
import torch
from closed_forms import DERIVATIVES, PARAMETERS, PRIMITIVES, evaluate, steepness
from devices import DEVICES
from mpmath import mpf
from torch.autograd.graph import saved_tensors_hooks

from htaf_snn import HTAF, functional, surrogate
from htaf_snn.neurons.base import RESETS

BACKENDS = list(DEVICES)
FUSED = ["numba", "triton"]
RESETS_AND_DELAYS = [(reset, delay) for reset in RESETS for delay in (True, False)]
SURROGATES = [name for name in surrogate.names() if name != "superspike"]

# Triton's interpreter computes with numpy, which warns of what a GPU does silently.
pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def leaves(tensors, dtype=None, device="cpu"):
    return {k: v.detach().to(device, dtype).requires_grad_() for k, v in tensors.items()}


def results(run, tensors):
    """Outputs and gradients by name, on the CPU; the outputs are weighted so that no gradient is trivial."""
    outputs = run(**tensors)
    weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).to(y.device) for y in outputs.values()]
    loss = sum((y * w).sum() for y, w in zip(outputs.values(), weights, strict=True))
    grads = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    return (
        {k: v.detach().cpu() for k, v in outputs.items()},
        {
            f"grad {k}": (torch.zeros_like(v) if g is None else g).cpu()
            for (k, v), g in zip(tensors.items(), grads, strict=True)
        },
    )


def assert_close(actual, expected, rtol, label=""):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        worst = (actual[name].double() - value.double()).abs().max().item() if value.numel() else 0.0
        assert worst <= rtol * max(scale, 1e-30), f"{label} {name}: {worst} of {scale}"


def inputs(steps=13, batch=3, features=21, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(steps, batch, features, generator=g),
        "beta": torch.rand(features, generator=g),
        "threshold": 0.5 + torch.rand(batch, features, generator=g),
        "v0": torch.randn(batch, features, generator=g),
    }


def fused(backend, surrogate="htaf", **options):
    def run(x, beta, threshold, v0):
        given = {"beta": beta, "threshold": threshold, "state": v0, "surrogate": surrogate, "backend": backend}
        spikes, v, trace = functional.leaky(x, **given, return_states=True, **options)
        return {"spikes": spikes, "v": v, "trace": trace}

    return run


def stepped(reset, delay, spike_grad):
    """snnTorch's own neuron, one step after the other."""

    def run(x, beta, threshold, v0):
        neuron = snn.Leaky(0.5, spike_grad=spike_grad, reset_mechanism=reset, reset_delay=delay)
        del neuron.beta, neuron.threshold
        neuron.beta, neuron.threshold = beta, threshold
        spikes, trace, v = [], [], v0
        for current in x:
            s, v = neuron(current, v)
            spikes.append(s)
            trace.append(v)
        return {"spikes": torch.stack(spikes), "v": v, "trace": torch.stack(trace)}

    return run


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


def norse_inputs():
    g = torch.Generator().manual_seed(3)
    return {
        "x": 3 * torch.randn(17, 3, 11, generator=g),
        "tau_syn_inv": torch.tensor(200.0),
        "tau_mem_inv": 100 + 20 * torch.rand(11, generator=g),
        "v_leak": 0.1 * torch.randn(3, 11, generator=g),
        "v_th": 0.3 + 0.1 * torch.rand(3, 1, generator=g),
        "v_reset": 0.1 * torch.randn(11, generator=g),
        "v0": torch.randn(3, 11, generator=g),
        "i0": torch.randn(3, 11, generator=g),
    }


def fused_cuba(backend, **options):
    def run(v0=None, i0=None, **tensors):
        state = None if v0 is None else (v0, i0)
        spikes, (v, i) = functional.lif(**tensors, state=state, backend=backend, **options)
        return {"spikes": spikes, "v": v, "i": i}

    return run


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


@pytest.mark.parametrize("backend", FUSED)
def test_checkpointing_changes_nothing(backend):
    tensors = leaves({k: v for k, v in inputs(10).items()}, device=DEVICES[backend])

    def run(every):
        named = {name: value for name, value in tensors.items() if name != "v0"}
        spikes, v = functional.leaky(**named, state=tensors["v0"], backend=backend, checkpoint_every=every)
        return spikes, v, *torch.autograd.grad(spikes.sum() + v.sum(), list(tensors.values()))

    for whole, pieces in zip(run(None), run(3), strict=True):
        torch.testing.assert_close(pieces, whole)


def saved_bytes(run):
    """Bytes kept for the backward pass, without the input itself."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = torch.randn(50, 8, 100, requires_grad=True)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run(x)
    return sum(size for pointer, size in kept.items() if pointer != x.untyped_storage().data_ptr()) / x.numel()


def test_only_the_trace_is_saved():
    def lif(**options):
        return saved_bytes(lambda x: functional.leaky(x, beta=0.9, **options))

    assert lif() <= 4.01
    assert lif(save_dtype=torch.bfloat16) <= 2.01
    assert lif(checkpoint_every=10) <= 0.1 * 4 + 0.01
    # Five parameters of 4 bytes a neuron, a fiftieth of that a step.
    assert saved_bytes(lambda x: functional.lif(x)) <= 4.01 + 5 * 4 / 50


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_rounded_trace_keeps_the_resets(reset):
    tensors = inputs(40)
    tensors["threshold"] = torch.tensor(1.0)
    _, whole = results(fused("numba", "atan(alpha=0.1)", reset=reset), leaves(tensors))
    _, rounded = results(fused("numba", "atan(alpha=0.1)", reset=reset, save_dtype=torch.bfloat16), leaves(tensors))
    assert_close(rounded, whole, rtol=2e-2)
    spikes, _ = results(fused("numba", save_dtype=torch.bfloat16, reset=reset), leaves(tensors))
    assert torch.equal(spikes["spikes"], results(fused("numba", reset=reset), leaves(tensors))[0]["spikes"])


def test_beta_is_clamped_as_in_snntorch():
    tensors = inputs() | {"beta": torch.linspace(-0.5, 1.5, 21)}
    expected, grads = results(stepped("subtract", True, HTAF()), leaves(tensors))
    found, found_grads = results(fused("numba"), leaves(tensors))
    assert torch.equal(found["spikes"], expected["spikes"])
    assert_close(found_grads, grads, rtol=1e-5)
    assert found_grads["grad beta"][0] == 0


@pytest.mark.parametrize(
    ("options", "error", "names"),
    [
        ({"x": torch.zeros(3)}, ValueError, ["x", "(T, B, features, ...)", "(3,)"]),
        ({"x": torch.zeros(3, 2)}, ValueError, ["x", "(T, B, features, ...)", "(3, 2)", "x[None]"]),
        ({"state": torch.zeros(3, 2, 4)}, ValueError, ["state", "v", "(2, 4)", "without its time"]),
        ({"x": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, ["x", "int64"]),
        ({"state": torch.zeros(5)}, ValueError, ["state", "v", "(2, 4)", "(5,)"]),
        ({"state": (torch.zeros(2, 4), torch.zeros(2, 4))}, ValueError, ["state", "(v)", "2 tensors"]),
        ({"state": torch.zeros(2, 4, dtype=torch.int32)}, TypeError, ["v", "int32"]),
        ({"beta": torch.zeros(3)}, ValueError, ["beta", "(2, 4)", "(3,)"]),
        ({"beta": math.nan}, ValueError, ["beta", "nan"]),
        ({"threshold": "high"}, ValueError, ["threshold", "'high'"]),
        ({"reset": "hard"}, ValueError, ["reset", "subtract", "'hard'"]),
        ({"backend": "cuda"}, ValueError, ["backend", "numba", "'cuda'"]),
        ({"surrogate": "hat"}, ValueError, ["hat", "htaf"]),
        ({"surrogate": 3}, TypeError, ["surrogate", "3"]),
        ({"save_dtype": torch.int8}, ValueError, ["save_dtype", "int8"]),
        ({"save_dtype": torch.float16}, ValueError, ["save_dtype", "bfloat16", "float16"]),
        ({"beta": 0.9, "gamma": 1.0}, TypeError, ["leaky", "beta", "threshold", "'gamma'"]),
        ({"checkpoint_every": 0}, ValueError, ["checkpoint_every", "0"]),
        ({"checkpoint_every": 2, "return_states": True}, ValueError, ["checkpoint_every", "return_states"]),
        ({"state": torch.zeros(2, 4, device="meta")}, ValueError, ["state", "v", "cpu", "(2, 4)"]),
    ],
)
def test_bad_input(options, error, names):
    with pytest.raises(error) as caught:
        functional.leaky(**{"x": torch.zeros(3, 2, 4), "beta": 0.9} | options)
    assert all(name in str(caught.value) for name in names), caught.value


def python(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


RUN = "import torch; from htaf_snn import functional; functional.leaky(torch.ones(3, 2, 4), beta=0.9, surrogate='atan')"


def test_the_second_process_finds_the_cache(tmp_path):
    code = """
import torch
from htaf_snn import functional
from htaf_snn.kernels import numba_cpu
compiled, kernels = numba_cpu.compiled, []
remember = lambda *args, **kwargs: kernels.append(compiled(*args, **kwargs)) or kernels[-1]
from htaf_snn.kernels.neuron import numba_cpu as neuron
from htaf_snn.kernels.elementwise import numba_cpu as elementwise
neuron.compiled = elementwise.compiled = remember
for run in (lambda x: functional.leaky(x, beta=0.9)[0], lambda x: functional.lif(x)[0], functional.htaf):
    x = torch.ones(300, 2, 100, requires_grad=True)
    run(x).sum().backward()
print(*(sum(c.values()) for kernel in kernels for c in (kernel.stats.cache_hits, kernel.stats.cache_misses)))
"""
    found = [python(code, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    expected = [["0", "1"] * 6, ["1", "0"] * 6]
    assert [run.stdout.split() for run in found] == expected, [run.stderr for run in found]


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    run = python(RUN, NUMBA_CACHE_DIR=str(tmp_path / "file" / "folder"))
    assert run.returncode == 0, run.stderr


def test_backends_are_told():
    from htaf_snn import backends

    assert backends()["torch"] == backends()["numba"] == "available"
    assert list(backends()) == ["torch", "numba", "triton"]


def test_an_unavailable_backend_raises(monkeypatch):
    from htaf_snn.kernels import _dispatch

    monkeypatch.setitem(_dispatch._INSTALLED, "numba", False)
    with pytest.raises(RuntimeError, match=r"numba.*not installed; pip install numba"):
        functional.leaky(torch.zeros(3, 2, 4), beta=0.9, backend="numba")
    assert functional.leaky(torch.zeros(3, 2, 4), beta=0.9)[0].shape == (3, 2, 4)


@pytest.mark.parametrize("hardness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "neuron", [lambda x, **o: functional.leaky(x, beta=0.9, **o)[0], lambda x, **o: functional.lif(x, **o)[0]]
)
def test_a_rounded_trace_changes_no_output(neuron, hardness):
    x, step = inputs()["x"], HTAF(hardness=hardness, learn=("alpha",))
    assert torch.equal(neuron(x, surrogate=step), neuron(x, surrogate=step, save_dtype=torch.bfloat16))
