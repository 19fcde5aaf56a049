"""Test and time everything that needs a GPU, in seven minutes: kernels beside their peers, networks, whole commands.

    python -m benchmarks.gpu out/               # all parts, each in its own process with its own time limit
    python -m benchmarks.gpu out/ --device cpu  # a dry run on small sizes

Each part writes its own file, so that one failure does not lose the others; out/gpu.json joins them.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import json
import os
import platform
import pstats
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

Report = dict[str, Any]
Save = Callable[[Report], None]
"""Writes what a part has found so far."""

TILES = [(16, 2, 32), (16, 4, 16), (16, 4, 32), (16, 8, 8), (256, 8, 8), (256, 16, 4), (256, 32, 2)]
LIMITS = {"card": 30, "tests": 220, "neurons": 80, "bits": 30, "networks": 40, "tiles": 40, "runs": 130}
"""Seconds that each part may take on a GPU; on a CPU, which rehearses, ten times as many."""


class Clock:
    """Times calls on a device: by its own events on a GPU."""

    def __init__(self, device: str):
        self.device = device

    def mark(self) -> Any:
        if self.device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def ms(self, start: Any, end: Any) -> float:
        if self.device == "cpu":
            return (end - start) * 1e3
        end.synchronize()
        return start.elapsed_time(end)

    def of(self, call: Callable[[], object], repeats: int = 20, warm: int = 3) -> float:
        """Return the median time of a call in ms."""
        for _ in range(warm):
            call()
        marks = []
        for _ in range(repeats):
            start = self.mark()
            call()
            marks.append((start, self.mark()))
        return round(statistics.median(self.ms(*pair) for pair in marks), 5)

    def replayed(self, call: Callable[[], object], calls: int = 20) -> float:
        """Return the time of a call in ms without the launching of its kernels, from a graph of several calls."""
        if self.device == "cpu":
            return self.of(call, repeats=3)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        return round(self.of(graph.replay, repeats=10) / calls, 5)


def attempt(call: Callable[[], Report]) -> Report:
    """Return what a call returns, or why it failed, so that one failure costs one entry."""
    try:
        return call()
    except Exception as error:
        torch.cuda.empty_cache()
        return {"not_measured": f"{type(error).__name__}: {str(error).strip()[:300]}"}


def normal(*shape: int, device: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=device, dtype=torch.float32).mul_(0.5).to(dtype)


# The card


def card(device: str, save: Save) -> Report:
    """The card, versions, the copy bandwidth (bytes read plus written) and the largest matrix product."""
    packages = {}
    for name in ("torch", "triton", "snntorch", "norse", "spikingjelly"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    report: Report = {"python": platform.python_version(), "packages": packages, "cuda": torch.version.cuda}
    clock, large = Clock(device), 2**30 if device == "cuda" else 2**20
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
        report["card"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
        report["name"] = torch.cuda.get_device_name()
    source, target = torch.randn(large, device=device), torch.empty(large, device=device)
    report["copy_gb_s"] = round(2 * source.nbytes / clock.of(lambda: target.copy_(source)) / 1e6, 1)
    size = 8192 if device == "cuda" else 64
    a, b = (normal(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    report["matmul_tflop_s"] = round(2 * size**3 / clock.of(lambda: a @ b) / 1e9, 1)
    return report


# Neurons


def _neurons(compiled: bool = False) -> dict[str, Callable[[], nn.Module]]:
    """Return the implementations of LIF neurons over a sequence, ours first."""
    from htaf_snn import nn as hnn
    from htaf_snn.bench.peers import PEERS, OutputOf
    from htaf_snn.surrogate import ATan

    made = {
        "hnn.Leaky, ATan": PEERS["hnn.Leaky, ATan"].make,
        "hnn.Leaky": PEERS["hnn.Leaky"].make,
        "hnn.Leaky, bfloat16": PEERS["hnn.Leaky, bfloat16"].make,
        "SpikingJelly": PEERS["SpikingJelly"].make,
        "snn.Leaky, stepped": PEERS["snn.Leaky, stepped, unbound"].make,
        "norse.LIF": PEERS["norse.LIF"].make,
    }
    if compiled:
        made["torch.compile of the update"] = lambda: torch.compile(
            OutputOf(hnn.Leaky(0.9, surrogate=ATan(), backend="torch")), dynamic=False
        )
    return made


def _passes(clock: Clock, module: nn.Module, x: Tensor, grad: Tensor) -> tuple:
    x.grad = None
    start = clock.mark()
    y = module(x)
    middle = clock.mark()
    y.backward(grad)
    return start, middle, clock.mark()


def _sizes(device: str) -> Iterator[tuple[int, int, torch.dtype]]:
    if device == "cpu":
        yield from ((4, 512, dtype) for dtype in (torch.float32, torch.bfloat16))
        return
    for dtype in (torch.float32, torch.bfloat16):
        for steps in (128, 4, 32):
            for size in (131_072, 4_194_304):
                yield steps, size, dtype


def neurons(device: str, save: Save) -> Report:
    """Forward and backward pass of LIF neurons beside other libraries', interleaved, over lengths, sizes and dtypes."""
    results: list[Report] = []
    for size in _sizes(device):
        results.append(_interleaved(device, *size))
        save({"results": results})
    # After all else, as a capture that fails leaves the device's random numbers unusable.
    return {"results": results, "replayed": [_replayed_passes(device, steps) for steps in (4, 32, 128)]}


def _replayed_passes(device: str, steps: int) -> Report:
    """Both passes from a CUDA graph, which leaves out what Python takes for them."""
    made, times = _neurons(), {}
    x = normal(steps, 1, 131_072 if device == "cuda" else 64, device=device).requires_grad_()
    grad = torch.ones_like(x)
    for name in ("hnn.Leaky, ATan", "hnn.Leaky, bfloat16", "SpikingJelly"):
        times[name] = attempt(partial(_replayed_pass, device, made[name], x, grad))
    return {"steps": steps, "neurons": x.shape[-1], "peers": times}


def _replayed_pass(device: str, make: Callable, x: Tensor, grad: Tensor) -> Report:
    module = make().to(device)
    return _replayed(device, lambda: torch.autograd.grad(module(x), x, grad))


def _interleaved(device: str, steps: int, size: int, dtype: torch.dtype) -> Report:
    from htaf_snn.bench.peers import moved_bytes

    clock, peers = Clock(device), _neurons(compiled=steps == 4)
    x = normal(steps, 1, size, device=device, dtype=dtype).requires_grad_()
    grad, results, modules = torch.ones_like(x), {}, {}
    for name, make in peers.items():

        def first(name: str = name, make: Callable = make) -> Report:
            modules[name] = make().to(device)
            for _ in range(2):
                marks = _passes(clock, modules[name], x, grad)
            x.grad, before = None, torch.cuda.memory_allocated() if device == "cuda" else 0
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                marks = _passes(clock, modules[name], x, grad)
            clock.ms(*marks[1:])
            peak = torch.cuda.max_memory_allocated() - before if device == "cuda" else 0
            moved = moved_bytes(modules[name])
            return {"times": [], "peak_bytes_per_element": round(peak / x.numel(), 2), "moved_bytes": moved}

        results[name] = attempt(first)
        if "not_measured" in results[name]:
            modules.pop(name, None)
    rounds = 10 if device == "cuda" else 2
    for turn in range(rounds):
        for name, module in modules.items():
            if turn < 3 or ("stepped" not in name and "norse" not in name):
                results[name]["times"].append(_passes(clock, module, x, grad))
    for result in results.values():
        marks = result.pop("times", [])
        if marks:
            pairs = {"forward_ms": (0, 1), "backward_ms": (1, 2), "both_ms": (0, 2)}
            for key, (a, b) in pairs.items():
                result[key] = round(statistics.median(clock.ms(one[a], one[b]) for one in marks), 4)
    for name in ("hnn.Leaky, ATan", "hnn.Leaky, bfloat16", "SpikingJelly"):
        if name in modules and device == "cuda":
            results[name]["kernels_us"] = _kernel_times(modules[name], x, grad)
            if steps == 4 and size < 2**20:
                results[name]["host_us"] = _host_times(modules[name], x, grad)
    torch.cuda.empty_cache()
    return {"steps": steps, "neurons": size, "dtype": str(dtype).removeprefix("torch."), "peers": results}


def _host_times(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, float]:
    """Return the functions that take the CPU longest in one forward and backward pass, in microseconds."""
    profiler = cProfile.Profile()
    with profiler:
        for _ in range(50):
            _passes(Clock("cuda"), module, x, grad)
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    taken = {
        f"{Path(file).name}:{line} {name}"[:80]: round(own / 50 * 1e6, 1)
        for (file, line, name), (_, _, own, *_) in stats.items()
    }
    return dict(sorted(taken.items(), key=lambda item: -item[1])[:30])


def _kernel_times(module: nn.Module, x: Tensor, grad: Tensor) -> dict[str, float]:
    """Return the device time of each kernel in one forward and backward pass, in microseconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            _passes(Clock("cuda"), module, x, grad)
        torch.cuda.synchronize()
    found = {event.key[:60]: round(event.device_time_total / 3, 2) for event in profiler.key_averages()}
    return {name: us for name, us in found.items() if us}


def tiles(device: str, save: Save) -> Report:
    """The product of packed bits by other tiles than `binary_linear.triton_gpu` chooses."""
    from htaf_snn.bench import packed
    from htaf_snn.kernels.binary_linear import triton_gpu

    peer, results = packed.PROBLEMS["linear"][0](device)["packed"], []
    for batch, rows, depth in TILES if device == "cuda" else TILES[:1]:
        x = peer.prepare(packed._signs(batch, packed.FEATURES).to(device))
        tile = {"ROWS": rows, "DEPTH": depth}
        with patch.object(triton_gpu, "_tile", lambda rows, tile=tile: tile):
            times = attempt(partial(_replayed, device, partial(peer.run, x)))
        results.append({"batch": batch, **tile, **times})
        save({"results": results})
    return {"results": results}


def _replayed(device: str, call: Callable[[], object]) -> Report:
    clock = Clock(device)
    return {"replayed_ms": clock.replayed(call), "called_ms": clock.of(call)}


# The smooth step, and products of packed bits


def bits(device: str, save: Save) -> Report:
    """The smooth step beside the copy bandwidth; packed linear and convolution beside cuBLAS and cuDNN in bfloat16."""

    size = 2**28 if device == "cuda" else 2**12
    smooth = [_smooth(device, size, dtype) for dtype in (torch.float32, torch.bfloat16)]
    return {"smooth": smooth, "packed": _packed(device)}


def _smooth(device: str, size: int, dtype: torch.dtype) -> Report:
    from htaf_snn import HTAF

    clock, x = Clock(device), normal(size, device=device, dtype=dtype).requires_grad_()
    y, grad, module = torch.empty_like(x), torch.ones_like(x), HTAF(hardness=0.0)
    marks = [_passes(clock, module, x, grad) for _ in range(8)][3:]
    forward, backward = (statistics.median(clock.ms(one[i], one[i + 1]) for one in marks) for i in (0, 1))
    with torch.no_grad():
        copy = clock.of(lambda: y.copy_(x), repeats=10)
        eager = clock.of(lambda: torch.sigmoid(4.0 * torch.tanh(x)), repeats=10)
    moved = x.element_size() * size / 1e6
    return {
        "dtype": str(dtype).removeprefix("torch."), "forward_ms": round(forward, 4), "backward_ms": round(backward, 4),
        "eager_forward_ms": eager, "copy_gb_s": round(2 * moved / copy, 1),
        "forward_gb_s": round(2 * moved / forward, 1), "backward_gb_s": round(3 * moved / backward, 1),
    }  # fmt: skip


@torch.no_grad()
def _packed(device: str) -> list[Report]:
    from htaf_snn.bench import packed

    results = []
    for problem, (make, shape) in packed.PROBLEMS.items():
        if device == "cpu" and problem not in ("linear", "mlp"):
            continue
        peers = make(device)
        packed._check(peers, packed._signs(3, *shape).to(device), problem)
        for batch in (1, 16, 256) if device == "cuda" else (2,):
            for name, peer in peers.items():
                x = peer.prepare(packed._signs(batch, *shape).to(device))
                times = attempt(partial(_replayed, device, partial(peer.run, x)))
                results.append({"problem": problem, "batch": batch, "peer": name, **times})
    return results


# Networks


def _convolutional(make_neuron: Callable[[], nn.Module], channels: int) -> nn.ModuleList:
    """Return the layers of a network for DVS Gesture's frames, of 128 x 128 pixels with two polarities."""
    sizes = [2, *[channels] * 4]
    blocks = [
        nn.ModuleList([
            nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), make_neuron(), nn.MaxPool2d(2)
        ])
        for a, b in pairwise(sizes)
    ]  # fmt: skip
    return nn.ModuleList([*blocks, nn.Linear(channels * 8 * 8, 11)])


class Network(nn.Module):
    """Convolution, BatchNorm, neurons and pooling four times; frames (T, B, 2, 128, 128) to scores (B, 11)."""

    def __init__(self, make_neuron: Callable[[], nn.Module], channels: int = 32):
        super().__init__()
        self.layers = _convolutional(make_neuron, channels)

    def forward(self, x: Tensor) -> Tensor:
        steps, *blocks = len(x), *self.layers[:-1]
        for convolution, norm, neurons, pool in blocks:
            x = norm(convolution(x.flatten(0, 1)))
            x = pool(neurons(x.unflatten(0, (steps, -1))).flatten(0, 1)).unflatten(0, (steps, -1))
        return self.layers[-1](x.flatten(2)).mean(0)


def networks(device: str, save: Save) -> Report:
    """Training of a convolutional spiking network on random frames of DVS Gesture's size, in images per second."""
    made, results = _neurons(), []
    steps, batch, channels = (16, 16, 32) if device == "cuda" else (2, 2, 4)
    frames = torch.rand(steps, batch, 2, 128, 128, device=device)
    labels = torch.randint(11, (batch,), device=device)
    for precision in (torch.float32, torch.bfloat16):
        for name in ("hnn.Leaky, ATan", "hnn.Leaky, bfloat16", "SpikingJelly", "snn.Leaky, stepped"):

            def run(name: str = name, precision: torch.dtype = precision) -> Report:
                torch.manual_seed(0)
                clock, net = Clock(device), Network(made[name], channels).to(device)
                optimizer = torch.optim.Adam(net.parameters(), fused=device == "cuda")

                def update() -> None:
                    optimizer.zero_grad()
                    with torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16):
                        scores = net(frames)
                    torch.nn.functional.cross_entropy(scores.float(), labels).backward()
                    optimizer.step()

                if device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                ms = clock.of(update, repeats=10 if device == "cuda" else 1)
                peak = torch.cuda.max_memory_allocated() // 2**20 if device == "cuda" else 0
                return {"ms": ms, "images_per_s": round(batch / ms * 1e3, 1), "peak_mb": peak}

            entry = {"neurons": name, "precision": str(precision).removeprefix("torch.")}
            results.append(entry | attempt(run))
            save({"results": results})
            if device == "cuda":
                torch.cuda.empty_cache()
    return {"steps": steps, "batch": batch, "channels": channels, "results": results}


# Runs


def _command(*arguments: str) -> Report:
    """Return the wall time of a command of htaf-snn and the end of its output."""
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "htaf_snn", *arguments], capture_output=True, text=True
    )
    seconds = round(time.perf_counter() - start, 2)
    if process.returncode:
        return {"not_measured": process.stderr.strip()[-600:], "seconds": seconds}
    try:
        lines = [json.loads(line) for line in process.stdout.strip().splitlines()]
        return {"seconds": seconds, "result": lines[0] if len(lines) == 1 else lines}
    except json.JSONDecodeError:
        return {"seconds": seconds, "output": process.stdout[-600:]}


def commands(device: str) -> dict[str, tuple[str, ...]]:
    """Return the arguments of the commands that `runs` times, by their names."""
    common = ("--epochs", "2", "--device", device, "--json")
    compare = ("compare", "--model", "mlp", "--surrogates", "htaf,atan", "--seeds", "5", "--workers", "1", *common)
    return {
        "compare, stacked": (*compare, "--stack-seeds"),
        "compare": compare,
        "icbm": ("icbm", "--n-concepts", "16", *common),
        "train bnn": ("train", "--model", "bnn", *common),
        "train mlp": ("train", "--library", "fused", *common),
    }


def runs(device: str, save: Save) -> Report:
    """Whole commands: training of every kind of network, a concept model, and a comparison with stacked seeds."""
    results: Report = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, arguments) in enumerate(commands(device).items()):
            if device == "cuda" or name == "train bnn":
                results[name] = _command(*arguments, "--out", f"{folder}/{i}")
                save(results)
    return results


# All parts


def tests(device: str, save: Save) -> Report:
    """The tests that run on a GPU: every Triton kernel against its reference."""
    which = ["-m", "gpu"] if device == "cuda" else ["-m", "gpu", "-k", "test_elementwise_kernels_take_the_tensors"]
    workers = str(min(14, os.cpu_count() or 1)) if device == "cuda" else "0"
    # Other versions of the libraries warn of other things, and one that is missing ends the collection.
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, "--dist", "load", "--tb=short", "-W", "default"]
    command += ["tests/test_gpu.py", "tests", "--ignore=tests/test_tutorials.py"]  # those that take longest first
    process = subprocess.Popen(
        [*command, "-rfE", "--continue-on-collection-errors", "--durations=15", *which],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if len(lines) % 20 == 0:
            save({"output": lines})
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"returncode": process.wait(), "summary": lines[-1], "failed": failed, "output": lines if failed else []}


def _part(name: str, device: str, folder: Path) -> None:
    def save(report: Report) -> None:
        (folder / f"{name}.json").write_text(json.dumps(report, indent=1))

    save(globals()[name](device, save))


def _all(device: str, folder: Path, parts: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in parts:
        for file in (folder / f"{name}.json", folder / f"{name}.problem.txt"):  # of an earlier run
            file.unlink(missing_ok=True)
        start = time.perf_counter()
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", str(folder), "--device", device]
        limit = LIMITS[name] * (10 if device == "cpu" else 1)
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [*command, "--part", name], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                process.wait(limit)
                log.seek(0)
                problem = log.read().strip()[-1500:] if process.returncode else ""
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                problem = f"stopped after {limit} s"
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.0f} s {problem}", flush=True)
        if problem:
            (folder / f"{name}.problem.txt").write_text(problem)
        join(folder, parts)
    print(page(json.loads((folder / "gpu.json").read_text())))


def join(folder: Path, parts: list[str]) -> None:
    """Join what the parts have left so far."""
    report = {}
    for name in parts:
        file, problem = folder / f"{name}.json", folder / f"{name}.problem.txt"
        report[name] = json.loads(file.read_text()) if file.exists() else {"not_measured": "not run"}
        if problem.exists():
            report[name]["problem"] = problem.read_text()
    (folder / "gpu.json").write_text(json.dumps(report, indent=1))


def page(report: Report) -> str:
    """Return the report as a page of text."""
    lines = [json.dumps(report.get("card", {})), str(report.get("tests", {}).get("summary", "no tests"))]
    copy = report.get("card", {}).get("copy_gb_s", 0.0)
    for result in report.get("neurons", {}).get("results", []):
        lines.append(f"T {result['steps']}, N {result['neurons']}, {result['dtype']}:")
        elements = result["steps"] * result["neurons"]
        for name, peer in result["peers"].items():
            if "both_ms" not in peer:
                lines.append(f"  {name:28} {peer.get('not_measured', '')[:90]}")
                continue
            moved, kernels = peer.get("moved_bytes"), peer.get("kernels_us", {})
            used = sum(kernels.values())
            share = f"{moved * elements / used / 1e3 / copy:4.0%} of copy" if moved and used and copy else ""
            times = f"{peer['forward_ms']:8.3f} {peer['backward_ms']:8.3f} {peer['both_ms']:8.3f}"
            lines.append(f"  {name:28} {times}  kernels {used / 1e3:8.3f}  {share} {peer['peak_bytes_per_element']} B")
    for part, key in (("neurons", "replayed"), ("bits", "smooth")):
        lines += [json.dumps(one) for one in report.get(part, {}).get(key, [])]
    for one in report.get("bits", {}).get("packed", []):
        times = f"{one['replayed_ms']:.4f} {one['called_ms']:.4f}" if "called_ms" in one else one["not_measured"][:90]
        lines.append(f"{one['problem']} {one['batch']} {one['peer']}: {times}")
    lines += [json.dumps(one) for one in report.get("networks", {}).get("results", [])]
    lines += [f"{name}: {json.dumps(one)[:220]}" for name, one in report.get("runs", {}).items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for the results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cuda by default")
    parser.add_argument("--parts", default=",".join(LIMITS), help=f"comma-separated, of {', '.join(LIMITS)}")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if not set(parts) <= set(LIMITS):
        parser.error(f"--parts: expected some of {', '.join(LIMITS)}, got {arguments.parts}")
    if arguments.part:
        _part(arguments.part, arguments.device, arguments.folder)
    else:
        _all(arguments.device, arguments.folder, parts)


if __name__ == "__main__":
    main()
