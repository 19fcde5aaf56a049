"""Threads that share a sample of a packed network's program: each operation, in any order, and where there are none."""

import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from packed_images import IMAGES, drawn
from torch import nn

from htaf_snn import deploy
from htaf_snn import nn as hnn
from htaf_snn.deploy.values import Bits

pytest.importorskip("numba", reason="numba is not installed")

from htaf_snn.kernels import numba_cpu
from htaf_snn.kernels.bit_program import numba_cpu as programs
from htaf_snn.kernels.bit_program import program as kinds

pytestmark = pytest.mark.usefixtures("by_programs", "little_is_shared")
HAS_OPENMP = pytest.mark.skipif(numba_cpu._openmp is None, reason="torch has no OpenMP of GNU's interface")


class Residual(nn.Module):
    """Additions of floats and of bits, some of whose memory is used again."""

    def __init__(self):
        super().__init__()
        self.sign, self.real = hnn.BinaryActivation(), nn.Conv2d(3, 20, 1)
        self.first, self.second = (hnn.BinaryConv2d(20, 20, 3, padding=1) for _ in range(2))
        self.shrink, self.prelu = hnn.BinaryConv2d(20, 40, 3, stride=2), nn.PReLU(20)

    def forward(self, x):
        x = self.real(x)
        x = self.prelu(self.first(self.sign(x)) + x)
        signs = self.sign(x)
        x = self.prelu(self.second(signs) + signs) + x
        return self.shrink(self.sign(x))


NETWORKS = {
    **{name: lambda make=make: nn.Sequential(*make()) for name, make in IMAGES.items()},
    "residual": Residual,
    "planes": lambda: nn.Sequential(
        hnn.QuantizeInput(), hnn.BinaryConv2d(3, 70, 5, stride=2, padding=1), hnn.BinaryActivation(), nn.Flatten(),
        hnn.BinaryLinear(630, 200), hnn.BinaryActivation(), hnn.HeavisideLinear(200, 130),
    ),
    "levels in a row": lambda: nn.Sequential(
        nn.Flatten(), hnn.QuantizeInput(), hnn.BinaryLinear(168, 150), hnn.BinaryActivation(), hnn.BinaryLinear(150, 3)
    ),
    "one pixel": lambda: nn.Sequential(
        hnn.BinaryActivation(), hnn.BinaryConv2d(3, 130, (8, 7)), hnn.BinaryActivation(),
        hnn.BinaryConv2d(130, 260, 1, groups=2), hnn.BinaryActivation(), hnn.HeavisideConv2d(260, 70, 1),
    ),
    "branches": lambda: Branches(),
}  # fmt: skip


class Branches(nn.Module):
    """Bits that a program is given, and that it gives."""

    def __init__(self):
        super().__init__()
        self.sign, self.first, self.gelu = hnn.BinaryActivation(), hnn.BinaryConv2d(3, 70, 3, padding=1), nn.GELU()
        self.second, self.third = (hnn.BinaryConv2d(70, 70, 3, padding=1) for _ in range(2))

    def forward(self, x):
        bits = self.sign(self.first(self.sign(x)))
        return self.gelu(self.second(bits)) + self.third(self.sign(self.gelu(self.second(bits)))) + bits


@pytest.fixture
def little_is_shared(monkeypatch):
    monkeypatch.setattr(programs, "_WORK_TO_SHARE", 1)


@pytest.fixture
def set_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def packed_and_values(name, batch, seed=0):
    torch.manual_seed(seed)
    packed = deploy.pack(drawn([NETWORKS[name]()])[0])
    x = torch.rand(batch, 3, 8, 7) - (0.0 if isinstance(packed.steps[0], deploy.steps.Quantize) else 0.5)
    return packed, packed.values(x.abs() if name == "levels in a row" else x)


def assert_equal_to_steps(packed, values):
    """Assert that each program computes what the steps do, to the bit; return the operations."""
    operations = []
    for program in packed._programs.values():
        results = program(dict(enumerate(values)), None)
        for number, result in results.items():
            if isinstance(result, Bits):
                assert torch.equal(result.words, values[number].words.view(result.words.shape))
            else:
                expected = deploy.steps.as_float(values[number])
                assert torch.equal(result.view(torch.int32), expected.view(torch.int32))
        operations += [made.operations for _, made in program._made.values()]
    return np.concatenate(operations)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_compute_what_the_steps_do(name, threads, set_threads):
    set_threads(threads)
    for batch in (1, 2, 5, 33):
        packed, values = packed_and_values(name, batch)
        for _ in range(5):
            assert_equal_to_steps(packed, values)


def test_the_networks_have_every_operation():
    operations = np.concatenate([assert_equal_to_steps(*packed_and_values(name, 1)) for name in NETWORKS])
    assert {*operations["kind"]} == {*range(12)}
    products = operations[operations["kind"] == kinds.PRODUCT]
    assert ({*products["product"]}, {*products["result"]}) == ({*range(4)}, {*range(3)})
    assert {*products["is_by_blocks"]} == {*operations["waits"]} == {0, 1}


class Turns:
    """A team in which one thread runs at a time, until it waits for the others, in a given order."""

    def __init__(self, order):
        self.order, self.sizes, self._numbers = order, [], {}
        self._go, self._stopped = [threading.Semaphore(0) for _ in order], threading.Semaphore(0)
        integer = ctypes.CFUNCTYPE(ctypes.c_int)
        start = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
        self._functions = (
            start(self._start), ctypes.CFUNCTYPE(None)(self._wait), integer(self._number), integer(lambda: len(order)),
        )  # fmt: skip
        self.team = tuple(ctypes.cast(function, ctypes.c_void_p).value for function in self._functions)

    def _number(self):
        return self._numbers[threading.get_ident()]

    def _start(self, function, data, size, _):
        self.sizes.append(size)
        ended = set()

        def member(number):
            self._numbers[threading.get_ident()] = number
            self._go[number].acquire()
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(data)
            ended.add(number)
            self._stopped.release()

        threads = [threading.Thread(target=member, args=(number,)) for number in self.order]
        for thread in threads:
            thread.start()
        while len(ended) < len(self.order):
            for number in self.order:
                self._go[number].release()
                self._stopped.acquire()

    def _wait(self):
        self._stopped.release()
        self._go[self._number()].acquire()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1), (4, 3, 2, 1, 0)])
def test_threads_need_no_more_waiting(name, order, set_threads, monkeypatch):
    turns = Turns(order)
    set_threads(len(order))
    monkeypatch.setattr(programs, "team_functions", lambda: turns.team)
    # Other numbers each time: memory that an earlier run has left may hold what a thread should have waited for.
    for seed, batch in enumerate((1, len(order) + 1), start=100 * len(order) + 10 * order[0]):
        assert_equal_to_steps(*packed_and_values(name, batch, seed))
    assert {*turns.sizes} == {len(order)}


@HAS_OPENMP
def test_programs_within_a_team_compute_the_same(set_threads):
    set_threads(2)
    packed, values = packed_and_values("residual", 3)
    numba_cpu._team(lambda: assert_equal_to_steps(packed, values), 2)


@pytest.mark.parametrize("at", [0, 80, 167])
def test_an_image_out_of_range_ends_all_threads(at, set_threads):
    set_threads(3)
    packed, values = packed_and_values("planes", 1)
    x = values[0].clone()
    x.view(-1)[at] = 1.5
    for _ in range(5):
        with pytest.raises(ValueError, match=r"^x: expected values within \[0, 1\]"):
            packed(x)
        assert_equal_to_steps(packed, values)


def compute_and_send(pipe, packed, values):
    assert_equal_to_steps(packed, values)
    pipe.send("equal")


def test_a_forked_process_computes_alone(set_threads):
    set_threads(2)
    packed, values = packed_and_values("residual", 1)
    assert_equal_to_steps(packed, values)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=compute_and_send, args=(theirs, packed, values))
    process.start()
    try:
        assert ours.poll(60), "the forked process hangs"
        assert ours.recv() == "equal"
    finally:
        process.kill()
        process.join()


def test_little_work_stays_in_one_thread(set_threads, monkeypatch):
    monkeypatch.setattr(programs, "_WORK_TO_SHARE", 100)
    monkeypatch.setattr(programs, "team_functions", lambda: (1, 2, 3, 4))
    set_threads(4)
    expected = {(1, 99): (1, 1), (1, 250): (2, 0), (1, 4000): (4, 0), (3, 60): (1, 3), (3, 99): (2, 3), (7, 99): (4, 7)}
    expected |= {(7, 400): (4, 4), (64, 4000): (1, 64)}
    assert {key: programs._sharing(*key)[:2] for key in expected} == expected


CODE = """
import json, torch
from htaf_snn import deploy, models
from htaf_snn.kernels import numba_cpu
from htaf_snn.kernels.bit_program import numba_cpu as programs
programs._WORK_TO_SHARE = 1
torch.set_num_threads(2)
if {alone}:
    numba_cpu._openmp = None
torch.manual_seed(0)
packed = deploy.pack(models.BinaryMLP(20, [70], 3).eval())
scores = packed._by_bits(torch.rand(1, 20)).tolist()
function = numba_cpu.native(programs._program_samples, programs._TYPES)
kernel = numba_cpu.compiled(programs._program_kernel)
print(json.dumps([scores, function.cache_hits, sum(kernel.stats.cache_misses.values())]))
"""


@pytest.mark.thorough
@HAS_OPENMP
def test_a_second_process_compiles_nothing(tmp_path):
    printed = []
    for alone in (True, False):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        command = [sys.executable, "-c", CODE.format(alone=alone)]
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        printed.append(json.loads(run.stdout))
    (scores, *first), (again, *second) = printed
    assert scores == again
    assert (first, second) == ([0, 1], [1, 0])


@pytest.mark.thorough
def test_a_native_function_is_compiled_for_the_types_it_is_passed():
    # Its signature, a pointer, does not tell Numba's cache of them.
    one, other = (np.empty(1, [(name, np.int64) for name in names]) for names in ("ab", "ba"))
    kinds = [numba_cpu.passing(example)[2] for example in (one, other)]
    names = {numba_cpu.native(programs._program_samples, kind)._pyfunc.__qualname__ for kind in kinds}
    assert len(names) == 2
