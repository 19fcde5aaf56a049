"""The CPU kernels' threads and reused memory, and what is saved in sixteen bits."""

import multiprocessing

import numpy as np
import pytest
import torch
from devices import DEVICES

from htaf_snn.kernels import numba_cpu
from htaf_snn.kernels.neuron.kernel import Kernel, chosen
from htaf_snn.neurons import NEURONS


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def count(start, stop, counts):
    counts[start:stop] += 1


@pytest.mark.parametrize("has_openmp", [True, False])
@pytest.mark.parametrize("size", [0, 1, 15, 16, 4097, 100_003])
def test_every_element_is_computed_once(size, has_openmp, three_threads, monkeypatch):
    if not has_openmp:
        monkeypatch.setattr(numba_cpu, "_openmp", None)
    counts = np.zeros(size)
    numba_cpu.run(count, size, 10_000, counts)
    assert (counts == 1).all()


@pytest.mark.parametrize("has_openmp", [True, False])
def test_an_error_in_a_thread_is_raised(has_openmp, three_threads, monkeypatch):
    if not has_openmp:
        monkeypatch.setattr(numba_cpu, "_openmp", None)

    def fail(start, stop):
        if start > 0:
            raise ValueError("this range fails")

    with pytest.raises(ValueError, match="this range fails"):
        numba_cpu.run(fail, 100_000, 10_000)


def count_and_send(pipe):
    counts = np.zeros(100_003)
    numba_cpu.run(count, counts.size, 10_000, counts)
    pipe.send(counts.min() == counts.max() == 1)


def test_a_forked_process_computes(three_threads):
    """It lacks its parent's OpenMP threads, and waiting for them would hang."""
    numba_cpu.run(count, 100_003, 10_000, np.zeros(100_003))
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=count_and_send, args=(theirs,))
    process.start()
    try:
        assert ours.poll(60), "the forked process hangs"
        assert ours.recv()
    finally:
        process.kill()
        process.join()


def test_memory_is_reused_but_never_shared():
    shape = (3, 700_001)
    first = numba_cpu.empty(shape, torch.float32)
    assert first.untyped_storage().nbytes() == first.nbytes
    view, pointer = first[1:], first.data_ptr()
    del first
    assert numba_cpu.empty(shape, torch.float32).data_ptr() != pointer
    del view
    assert numba_cpu.empty(shape, torch.float32).data_ptr() == pointer


def test_little_memory_is_kept(monkeypatch):
    monkeypatch.setattr(numba_cpu, "_KEPT_BYTES", 5 << 20)
    numba_cpu._free.clear()
    tensors = [numba_cpu.empty((1 << 20,), torch.float32) for _ in range(3)]
    del tensors
    assert sum(size * len(blocks) for size, blocks in numba_cpu._free.items()) <= 5 << 20


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy in Triton's interpreter
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_the_kernel_saves_bfloat16_as_torch_does(backend):
    device = DEVICES[backend]
    special = [0.0, -0.0, 1e-45, -1e-45, 1e-40, 3.4e38, -3.4e38, torch.inf, -torch.inf, torch.nan, 1.0, 1.0001, 0.9999]
    x = torch.cat([torch.randn(5000), 1 + 1e-3 * torch.randn(5000), torch.tensor(special)])[None].to(device)
    neuron = NEURONS["leaky"]
    options = chosen(neuron, {"reset": "none", "reset_delay": True})
    kernel = str(Kernel(neuron.name, options, (), "htaf", ("is_rounded",)))
    for threshold in (1.0, 0.0, -1.0, 1e-40):
        # One step with no decay: what is saved is the distance of the input to the threshold.
        parameters = [torch.tensor(value, device=device) for value in (0.0, threshold)]
        values = torch.tensor([1.0, 1.0, 4.0, 0.0], dtype=torch.float64)
        spikes, saved, _, _ = torch.ops.htaf_snn.neuron(
            x, [torch.zeros_like(x[0])], parameters, kernel, values, backend
        )  # fmt: skip
        exact = x - parameters[1]
        expected = exact.to(torch.bfloat16)
        # Rounding moves none from above the threshold onto it, as spikes are computed from this again.
        smallest = torch.tensor(1, dtype=torch.int16, device=device).view(torch.bfloat16)
        expected = torch.where((expected == 0) & (exact > 0), smallest, expected)
        torch.testing.assert_close(saved[0], expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(saved[0] > 0, exact > 0) and torch.equal(spikes > 0, exact > 0)
