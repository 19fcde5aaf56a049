"""Benchmarks of neurons over a sequence: this package's kernels beside other libraries', each in its own process.

htaf-snn bench lif
python -m htaf_snn.bench spikingjelly '{"steps": 50, "batch": 128, "features": 1000}'   # one peer, as JSON
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from . import functional
from . import nn as hnn
from .integrations import norse_adapter, sinabs_adapter, snntorch_adapter, spikingjelly_adapter
from .surrogate import HTAF, ATan

__all__ = ["PEERS", "Problem", "measure", "run", "table"]


@dataclass(frozen=True)
class Problem:
    """What is computed: float32 currents (steps, batch, features), forward and backward.

    Attributes:
        steps, batch, features: at least 1.
        device: "cpu" or "cuda".
        repeats: timed repetitions, after three that are not.
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
    """A neuron to be timed: makes a module from currents to spikes."""

    make: Callable[[], nn.Module]
    package: str = "htaf-snn"
    devices: tuple[str, ...] = ("cpu", "cuda")
    is_ours: bool = False


class _SpikesOf(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, currents: Tensor) -> Tensor:
        return self.layer(currents)[0]


PEERS = {
    "hnn.Leaky": Peer(lambda: _SpikesOf(hnn.Leaky(0.9, surrogate=HTAF())), is_ours=True),
    "hnn.Leaky, ATan": Peer(lambda: _SpikesOf(hnn.Leaky(0.9, surrogate=ATan())), is_ours=True),
    "hnn.Leaky, bfloat16 trace": Peer(lambda: _SpikesOf(hnn.Leaky(0.9, save_dtype=torch.bfloat16)), is_ours=True),
    "hnn.LIF": Peer(lambda: _SpikesOf(hnn.LIF(surrogate=HTAF())), is_ours=True),
    "snn.Leaky, stepped": Peer(
        lambda: snntorch_adapter.LeakyOverTime(snntorch_adapter.library_surrogate("atan")), "snntorch"
    ),
    "norse.LIF": Peer(lambda: norse_adapter.LIFOverTime("super", 100.0, v_th=1.0), "norse"),
    "sinabs.LIF": Peer(lambda: sinabs_adapter.LIFOverTime(), "sinabs"),
    "SpikingJelly, torch": Peer(lambda: spikingjelly_adapter.LIFOverTime("torch"), "spikingjelly"),
    "SpikingJelly, Triton": Peer(lambda: spikingjelly_adapter.LIFOverTime("triton"), "spikingjelly", ("cuda",)),
    "SpikingJelly, CuPy": Peer(lambda: spikingjelly_adapter.LIFOverTime("cupy"), "spikingjelly", ("cuda",)),
}


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _check_ours(device: str) -> None:
    """Refuse to time a kernel that differs from the reference."""
    x = torch.randn(9, 3, 65, generator=torch.Generator().manual_seed(0)).mul(2).to(device)
    for function, options in ((functional.lif, {"beta": 0.9}), (functional.cuba_lif, {})):
        (spikes, grad), (expected, expected_grad) = (
            _spikes_and_grad(partial(function, backend=backend, **options), x) for backend in ("auto", "torch")
        )
        if not torch.equal(spikes, expected) or not torch.allclose(grad, expected_grad, rtol=1e-4, atol=1e-6):
            raise RuntimeError(f"{function.__name__} differs from its reference; no speed is told of a wrong kernel")


def _spikes_and_grad(run: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    spikes = run(x)[0]
    spikes.sum().backward()
    return spikes.detach(), x.grad


def _saved_bytes(module: nn.Module, x: Tensor) -> float:
    """Bytes a neuron and step that the forward pass keeps, the input left out."""
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        spikes = module(x)
    own = x.untyped_storage().data_ptr()
    total = sum(size for pointer, (size, _) in kept.items() if pointer != own)
    del spikes
    return total / x.numel()


def _percentiles(seconds: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(np.array(seconds) * 1e3, [20, 50, 80]).round(3).tolist()
    return {"median": median, "p20": low, "p80": high}


def measure(peer: str, problem: Problem) -> dict:
    """Time one peer in this process.

    Returns:
        {"peer", "package", "version", "forward_ms", "backward_ms", "both_ms" (each median, p20 and p80),
        "saved_bytes" a neuron and step, "peak_mb" of the process}.

    Raises:
        ValueError: if the peer is unknown or cannot compute on the device.
        ImportError: if its package is not installed.
        RuntimeError: if a kernel of this package differs from its reference.
    """
    if peer not in PEERS:
        raise ValueError(f"peer: expected one of {', '.join(PEERS)}, got {peer!r}")
    entry = PEERS[peer]
    if problem.device not in entry.devices:
        raise ValueError(f"{peer} does not compute on {problem.device}")
    if entry.is_ours:
        _check_ours(problem.device)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(problem.steps, problem.batch, problem.features, generator=generator).mul(0.5).to(problem.device)
    x.requires_grad_()
    grad = torch.ones_like(x)
    module = entry.make().to(problem.device)
    times = {"forward_ms": [], "backward_ms": [], "both_ms": []}
    for _ in range(problem.repeats + 3):
        x.grad = None
        _synchronize(problem.device)
        start = time.perf_counter()
        spikes = module(x)
        _synchronize(problem.device)
        middle = time.perf_counter()
        spikes.backward(grad)
        _synchronize(problem.device)
        end = time.perf_counter()
        for name, seconds in zip(times, (middle - start, end - middle, end - start), strict=True):
            times[name].append(seconds)
        del spikes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if problem.device == "cuda":
        peak = torch.cuda.max_memory_allocated() // 2**20
    return {
        "peer": peer,
        "package": entry.package,
        "version": version(entry.package),
        **{name: _percentiles(values[3:]) for name, values in times.items()},
        "saved_bytes": round(_saved_bytes(module, x), 2),
        "peak_mb": peak,
    }


def _in_own_process(peer: str, problem: Problem) -> dict:
    command = [sys.executable, "-W", "ignore", "-m", "htaf_snn.bench", peer, json.dumps(asdict(problem))]
    run = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    if run.returncode:
        return {"peer": peer, "not_measured": run.stderr.strip().splitlines()[-1]}
    return json.loads(run.stdout)


def copy_bandwidth(device: str = "cpu") -> float:
    """Bytes a second, read and written, of a copy of 256 MiB; the best of ten."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        _synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def run(problem: Problem, peers: list[str] | None = None, progress: bool = True) -> dict:
    """Time peers, one after the other, each in its own process.

    Args:
        problem: what to compute.
        peers: names of `PEERS`; all for None.
        progress: show a progress bar on standard error.

    Returns:
        {"problem", "machine", "copy_gb_s", "results": one of `measure` a peer, or {"peer", "not_measured": reason}}.
    """
    from tqdm import tqdm

    results = []
    for peer in tqdm(peers or list(PEERS), desc="peers", disable=not progress):
        package = PEERS[peer].package if peer in PEERS else "htaf-snn"
        try:
            version(package)
        except PackageNotFoundError:
            results.append({"peer": peer, "not_measured": f"not installed; pip install {package}"})
            continue
        results.append(_in_own_process(peer, problem))
    gpu = torch.cuda.get_device_name() if problem.device == "cuda" else None
    machine = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "gpu": gpu,
    }
    return {
        "problem": asdict(problem),
        "machine": machine,
        "copy_gb_s": round(copy_bandwidth(problem.device) / 1e9, 1),
        "results": results,
    }


def table(report: dict) -> str:
    """The report of `run` as a text table; times in ms, ratios to the first peer measured."""
    rows = [["neuron", "forward", "backward", "both", "20-80 %", "ratio", "saved B", "peak MB"]]
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
                f"{result['peak_mb']}",
            ]
        )
    widths = [max(len(row[i]) for row in rows if len(row) == len(rows[0])) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)).rstrip() for row in rows)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Problem(**json.loads(sys.argv[2])))))
