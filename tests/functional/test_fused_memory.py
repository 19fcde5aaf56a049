"""What fused neurons save and refuse, and the backends and caches of their kernels."""

import math
import subprocess
import sys

import pytest
import torch
from devices import DEVICES
from fused import FUSED, assert_close, fused, inputs, leaves, results
from torch.autograd.graph import saved_tensors_hooks

from htaf_snn import HTAF, functional

# Triton's interpreter computes with numpy, which warns of what a GPU does silently.
pytestmark = [pytest.mark.usefixtures("poisoned"), pytest.mark.filterwarnings("ignore::RuntimeWarning")]


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


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_a_rounded_trace_keeps_the_resets(reset):
    tensors = inputs(40)
    tensors["threshold"] = torch.tensor(1.0)
    _, whole = results(fused("numba", "atan(alpha=0.1)", reset=reset), leaves(tensors))
    _, rounded = results(fused("numba", "atan(alpha=0.1)", reset=reset, save_dtype=torch.bfloat16), leaves(tensors))
    assert_close(rounded, whole, rtol=2e-2)
    spikes, _ = results(fused("numba", save_dtype=torch.bfloat16, reset=reset), leaves(tensors))
    assert torch.equal(spikes["spikes"], results(fused("numba", reset=reset), leaves(tensors))[0]["spikes"])


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


@pytest.mark.thorough
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


@pytest.mark.thorough
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
