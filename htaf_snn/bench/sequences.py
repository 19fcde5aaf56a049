"""Neurons over sequences, and the smooth HTAF function, beside other libraries'; forward and backward.

python -m htaf_snn.bench.sequences '"sinabs.LIF"' '{"steps": 50, "batch": 128, "features": 1000}'    # one peer
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .. import functional
from .. import nn as hnn
from .._checks import check_choice
from ..interop import sinabs, spikingjelly
from ..models.neurons import LeakyOverTime, LIFOverTime
from ..surrogate import HTAF, ATan, FastSigmoid
from . import common


@dataclass(frozen=True)
class Problem:
    """The computation to time: float32 currents (steps, batch, features), forward and backward.

    Attributes:
        steps, batch, features: at least 1.
        device: "cpu" or "cuda".
        repeats: timed repetitions, after three untimed ones.
    """

    steps: int = 50
    batch: int = 128
    features: int = 1000
    device: str = "cpu"
    repeats: int = 20

    def __post_init__(self):
        for name in ("steps", "batch", "features", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Peer:
    """An implementation to time: `make` returns a module from a float32 tensor (T, B, features) to another.

    `moved_bytes`, for our own kernels, are the bytes that forward and backward at least read and write per element.
    """

    make: Callable[[], nn.Module]
    package: str = "htaf-snn"
    devices: tuple[str, ...] = ("cpu", "cuda")
    moved_bytes: int | None = None


class _SpikesOf(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, currents: Tensor) -> Tensor:
        return self.layer(currents)[0]


class _SteppedByIndex(nn.Module):
    """snnTorch's Leaky stepped as in its tutorials; autograd then allocates a tensor of the input's size per step."""

    def __init__(self):
        super().__init__()
        self.leaky = LeakyOverTime("snntorch.atan").leaky

    def forward(self, currents: Tensor) -> Tensor:
        mem = torch.zeros_like(currents[0])
        spikes = []
        for step in range(len(currents)):
            spike, mem = self.leaky(currents[step], mem)
            spikes.append(spike)
        return torch.stack(spikes)


class _Composite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(4.0 * torch.tanh(1.0 * x))


# Forward: a current, a spike and a potential; backward: two gradients and a potential; four bytes each.
_LIF_BYTES = 24
_NEURONS = {
    "hnn.Leaky": Peer(lambda: _SpikesOf(hnn.Leaky(0.9, surrogate=HTAF())), moved_bytes=_LIF_BYTES),
    "hnn.Leaky, ATan": Peer(lambda: _SpikesOf(hnn.Leaky(0.9, surrogate=ATan())), moved_bytes=_LIF_BYTES),
    "hnn.Leaky, bfloat16 trace": Peer(
        lambda: _SpikesOf(hnn.Leaky(0.9, save_dtype=torch.bfloat16)), moved_bytes=_LIF_BYTES - 4
    ),
    "hnn.LIF": Peer(lambda: _SpikesOf(hnn.LIF(surrogate=HTAF())), moved_bytes=_LIF_BYTES),
    "hnn.LIF, FastSigmoid": Peer(lambda: _SpikesOf(hnn.LIF(surrogate=FastSigmoid(100.0))), moved_bytes=_LIF_BYTES),
    "snn.Leaky, stepped": Peer(_SteppedByIndex, "snntorch"),
    "snn.Leaky, stepped, unbound": Peer(lambda: LeakyOverTime("snntorch.atan"), "snntorch"),
    "norse.LIF": Peer(lambda: LIFOverTime("norse.super(alpha=100.0)", v_th=1.0), "norse"),
    "sinabs.LIF": Peer(lambda: sinabs.LIFOverTime(), "sinabs"),
    "SpikingJelly, torch": Peer(lambda: spikingjelly.LIFOverTime("torch"), "spikingjelly"),
    "SpikingJelly, Triton": Peer(lambda: spikingjelly.LIFOverTime("triton"), "spikingjelly", ("cuda",)),
    "SpikingJelly, CuPy": Peer(lambda: spikingjelly.LIFOverTime("cupy"), "spikingjelly", ("cuda",)),
}
_SMOOTH_STEPS = {
    "HTAF, smooth": Peer(lambda: HTAF(hardness=0.0), moved_bytes=20),
    "sigmoid(4 * tanh(x)), eager": Peer(_Composite, "torch"),
}
BENCHMARKS = {"lif": _NEURONS, "htaf": _SMOOTH_STEPS}
PEERS = {name: peer for peers in BENCHMARKS.values() for name, peer in peers.items()}


def _check_ours(device: str) -> None:
    """Raise RuntimeError if a kernel's output differs from its reference's."""
    x = torch.randn(9, 3, 65, generator=torch.Generator().manual_seed(0)).mul(2).to(device)
    neurons: dict[str, Callable[..., tuple[Tensor, ...]]] = {
        "leaky": partial(functional.leaky, beta=0.9),
        "lif": functional.lif,
    }
    for name, neuron in neurons.items():
        spikes, grad = _output_and_grad(lambda x: neuron(x)[0], x)  # noqa: B023
        expected, expected_grad = _output_and_grad(lambda x: neuron(x, backend="torch")[0], x)  # noqa: B023
        common.require(torch.equal(spikes, expected) and _close(grad, expected_grad), name)
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).mul(2).to(device)
    for ours, expected in zip(
        _output_and_grad(functional.htaf, x), _output_and_grad(functional.htaf, x.double()), strict=True
    ):
        common.require(_close(ours, expected.float()), "htaf")


def _close(ours: Tensor, expected: Tensor) -> bool:
    return torch.allclose(ours, expected, rtol=1e-4, atol=1e-6)


def _output_and_grad(run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = run(x)
    return y.detach(), torch.autograd.grad(y.sum(), x)[0]


class _Saved:
    """A tensor saved for the backward pass, freed with the graph that it belongs to."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


def _saved_bytes(module: nn.Module, x: Tensor) -> float:
    """Return the bytes saved for backward per element, excluding the input."""
    alive: WeakSet[_Saved] = WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        alive.add(saved)
        return saved

    with saved_tensors_hooks(pack, lambda saved: saved.tensor):
        spikes = module(x)
    storages = [saved.tensor.untyped_storage() for saved in alive]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    sizes.pop(x.untyped_storage().data_ptr(), None)
    del spikes
    return sum(sizes.values()) / x.numel()


def _times(module: nn.Module, x: Tensor, problem: Problem) -> dict[str, dict[str, float]]:
    grad = torch.ones_like(x)
    times: dict[str, list[float]] = {"forward_ms": [], "backward_ms": [], "both_ms": []}
    for _ in range(problem.repeats + 3):
        x.grad = None
        common.synchronize(problem.device)
        start = time.perf_counter()
        output = module(x)
        common.synchronize(problem.device)
        middle = time.perf_counter()
        output.backward(grad)
        common.synchronize(problem.device)
        end = time.perf_counter()
        for name, seconds in zip(times, (middle - start, end - middle, end - start), strict=True):
            times[name].append(seconds)
        del output
    return {name: common.percentiles(values[3:]) for name, values in times.items()}


def measure(peer: str, problem: Problem) -> dict[str, Any]:
    """Time one peer in this process.

    Returns:
        {"peer", "package", "version", "forward_ms", "backward_ms", "both_ms" (each median, p20 and p80),
        "moved_bytes" per element at least, for this package's kernels, "saved_bytes" per element, "peak_mb" of the
        process}.

    Raises:
        ValueError: if the peer is unknown or does not support the device.
        ImportError: if its package is not installed.
        RuntimeError: if a kernel of this package differs from its reference.
    """
    check_choice("peer", peer, PEERS)
    entry = PEERS[peer]
    if problem.device not in entry.devices:
        raise ValueError(f"{peer}: expected a device of {', '.join(entry.devices)}, got {problem.device}")
    if entry.moved_bytes:
        _check_ours(problem.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(problem.steps, problem.batch, problem.features, generator=generator).mul(0.5).to(problem.device)
    x.requires_grad_()
    module = entry.make().to(problem.device)
    times = _times(module, x, problem)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if problem.device == "cuda":
        peak = torch.cuda.max_memory_allocated() // 2**20
    return {
        "peer": peer,
        "package": entry.package,
        "version": version(entry.package),
        **times,
        "moved_bytes": entry.moved_bytes,
        "saved_bytes": round(_saved_bytes(module, x), 2),
        "peak_mb": peak,
    }


def copy_bandwidth(device: str = "cpu") -> float:
    """Return the bytes per second read and written by a copy of 256 MiB; the best of ten."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(common.timed(lambda: target.copy_(source), device) for _ in range(10))


def run(problem: Problem, peers: list[str] | None = None, progress: bool = True) -> dict[str, Any]:
    """Time peers, one after the other, each in its own process.

    Args:
        problem: the computation to time.
        peers: names of `PEERS`; None for all neurons.
        progress: show a progress bar on standard error.

    Returns:
        {"problem", "machine", "copy_gb_s", "results": per peer that of `measure`, or {"peer", "not_measured": reason}}.
        This package's results also have "of_copy_bandwidth": the rate at which "moved_bytes" were moved, as a fraction
        of a large copy's.
    """
    from tqdm import tqdm

    results: list[dict[str, Any]] = []
    for peer in tqdm(peers or list(BENCHMARKS["lif"]), desc="peers", disable=not progress):
        package = PEERS[peer].package if peer in PEERS else "htaf-snn"
        try:
            version(package)
        except PackageNotFoundError:
            results.append({"peer": peer, "not_measured": f"not installed; pip install {package}"})
            continue
        results.append({"peer": peer, **common.in_own_process("htaf_snn.bench.sequences", peer, asdict(problem))})
    bandwidth = copy_bandwidth(problem.device)
    elements = problem.steps * problem.batch * problem.features
    for result in results:
        if result.get("moved_bytes"):
            rate = result["moved_bytes"] * elements / (result["both_ms"]["median"] / 1e3)
            result["of_copy_bandwidth"] = round(rate / bandwidth, 2)
    return {
        "problem": asdict(problem),
        "machine": common.machine(problem.device),
        "copy_gb_s": round(bandwidth / 1e9, 1),
        "results": results,
    }


def _line(sizes: list[int], times: list[float]) -> dict[str, Any]:
    slope, start = np.polyfit(sizes, times, 1)
    ms = np.array(times)
    unexplained = np.square(ms - start - slope * np.array(sizes)).sum() / np.square(ms - ms.mean()).sum()
    return {"sizes": sizes, "ms": times, "ms_each": slope, "ms_start": start, "r_squared": 1 - unexplained}


def scaling(problem: Problem) -> dict[str, Any]:
    """Time `hnn.Leaky` over a decade of time steps and of neurons, each up to the problem's, and fit straight lines.

    Returns:
        {"machine", "steps", "features"}, the latter two each {"sizes", "ms" forward and backward, the line's slope
        "ms_each" and intercept "ms_start", "r_squared"}.

    Raises:
        ValueError: if the problem has fewer than ten steps or features.
    """
    _check_ours(problem.device)
    report = {"machine": common.machine(problem.device)}
    module = PEERS["hnn.Leaky"].make().to(problem.device)
    for dimension in ("steps", "features"):
        largest = getattr(problem, dimension)
        if largest < 10:
            raise ValueError(f"{dimension}: expected at least 10 for a decade, got {largest}")
        sizes = [round(largest * fraction) for fraction in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)]
        times = []
        for size in sizes:
            smaller = replace(problem, **{dimension: size})
            x = torch.randn(smaller.steps, smaller.batch, smaller.features).mul(0.5).to(problem.device)
            times.append(_times(module, x.requires_grad_(), smaller)["both_ms"]["median"])
        report[dimension] = _line(sizes, times)
    return report


def scaling_table(report: dict[str, Any]) -> str:
    """Return the report of `scaling` as text."""
    return "\n".join(
        f"{name}: {', '.join(f'{size}: {ms:.2f} ms' for size, ms in zip(fit['sizes'], fit['ms'], strict=True))}; "
        f"line {fit['ms_start']:.2f} + {fit['ms_each']:.4f} x {name}, R2 {fit['r_squared']:.4f}"
        for name, fit in ((name, report[name]) for name in ("steps", "features"))
    )


def table(report: dict[str, Any]) -> str:
    """Return the report of `run` as a text table; times in ms, ratios to the first peer measured."""
    rows = [["peer", "forward", "backward", "both", "20-80 %", "ratio", "saved B", "of copy", "peak MB"]]
    first = next((r["both_ms"]["median"] for r in report["results"] if "both_ms" in r), None)
    for result in report["results"]:
        if "not_measured" in result:
            rows.append([result["peer"], "not measured:", result["not_measured"]])
            continue
        both = result["both_ms"]
        rows.append(
            [
                result["peer"],
                f"{result['forward_ms']['median']:.1f}",
                f"{result['backward_ms']['median']:.1f}",
                f"{both['median']:.1f}",
                f"{both['p20']:.1f}-{both['p80']:.1f}",
                f"{both['median'] / first:.1f}",
                f"{result['saved_bytes']:.1f}",
                f"{result['of_copy_bandwidth']:.0%}" if "of_copy_bandwidth" in result else "",
                f"{result['peak_mb']}",
            ]
        )
    return common.text_table(rows)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]), Problem(**json.loads(sys.argv[2])))))
