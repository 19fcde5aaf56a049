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
from importlib.metadata import PackageNotFoundError
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .. import nn as hnn
from .._checks import check_choice
from .._packages import OWN, version_of
from . import common
from .peers import BENCHMARKS, PEERS, OutputOf, Peer, moved_bytes


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
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: expected cpu, as no CUDA GPU is available, got cuda")


def _check_ours(peer: Peer, device: str) -> None:
    """Raise RuntimeError if a kernel's output differs from its reference's."""
    module = peer.make().to(device)
    x = torch.randn(9, 3, _features(module) or 65, generator=torch.Generator().manual_seed(0)).mul(2).to(device)
    output, grad = _output_and_grad(module, x)
    if not isinstance(module, OutputOf):
        expected, expected_grad = (one.float() for one in _output_and_grad(module, x.double()))
        common.require(_close(output, expected) and _close(grad, expected_grad), "htaf")
        return
    layer, rounded = module.layer, module.layer.save_dtype is not None
    layer.backend = "torch"
    expected, expected_grad = _output_and_grad(module, x)
    is_equal = torch.equal(output, expected) if layer.definition.spikes else _close(output, expected)
    common.require(is_equal and _close(grad, expected_grad, 2e-2 if rounded else 1e-4), layer.definition.name)


def _features(module: nn.Module) -> int | None:
    """Return the number of features for which recurrent weights are made."""
    if not (isinstance(module, OutputOf) and isinstance(module.layer, hnn.RecurrentLayer)):
        return None
    return next(p.shape[-1] for p in module.layer.parameters() if p.ndim == 2)


def _close(ours: Tensor, expected: Tensor, rtol: float = 1e-4) -> bool:
    return torch.allclose(ours, expected, rtol=rtol, atol=rtol * expected.abs().max().item() + 1e-6)


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
        ValueError: if the peer is unknown.
        ImportError: if its package is not installed.
        RuntimeError: if a kernel of this package differs from its reference.
    """
    check_choice("peer", peer, PEERS)
    entry = PEERS[peer]
    if entry.package == OWN:
        _check_ours(entry, problem.device)
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
        "version": version_of(entry.package),
        **times,
        "moved_bytes": moved_bytes(module),
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
        package = PEERS[peer].package if peer in PEERS else OWN
        try:
            version_of(package)
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
    _check_ours(PEERS["hnn.Leaky"], problem.device)
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


def pairs(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return from a report on "neurons", for each neuron, how many times as long its library's loop takes.

    Returns:
        [{"neuron", "peer", "ms", "peer_ms", "ratio"}], without those that were not measured.
    """
    found = []
    for ours, theirs in zip(report["results"][::2], report["results"][1::2], strict=False):
        if "both_ms" in ours and "both_ms" in theirs:
            ms, peer_ms = ours["both_ms"]["median"], theirs["both_ms"]["median"]
            found.append({"neuron": ours["peer"], "peer": theirs["peer"], "ms": ms, "peer_ms": peer_ms,
                          "ratio": round(peer_ms / ms, 2)})  # fmt: skip
    return found


def pairs_table(report: dict[str, Any]) -> str:
    """Return a report on "neurons" as a text table; times of forward and backward pass in ms."""
    rows = [["neuron", "ms", "saved B", "of copy", "peer", "ms", "ratio"]]
    results = {result["peer"]: result for result in report["results"]}
    for pair in pairs(report):
        ours = results[pair["neuron"]]
        rows.append([
            pair["neuron"], f"{pair['ms']:.1f}", f"{ours['saved_bytes']:.1f}", f"{ours['of_copy_bandwidth']:.0%}",
            pair["peer"], f"{pair['peer_ms']:.1f}", f"{pair['ratio']:.1f}",
        ])  # fmt: skip
    missing = [[r["peer"], "not measured:", r["not_measured"]] for r in report["results"] if "not_measured" in r]
    return common.text_table(rows + missing)


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
