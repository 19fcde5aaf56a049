"""Layers and networks in bits beside the same in floating point; forward passes alone.

python -m htaf_snn.bench.packed '"linear"' '"packed"' 1 '"cpu"' 20    # one measurement, as JSON
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from .. import deploy, functional, models
from . import common

__all__ = ["PROBLEMS", "measure", "run", "table"]

FEATURES, CHANNELS, HIDDEN, WIDE = 4096, 256, [1024, 1024], [4096, 4096, 4096]
BATCHES = {"cpu": (1, 256), "cuda": (1, 16, 256)}


@dataclass(frozen=True)
class Peer:
    """A forward pass: `run` of what `prepare` makes of the float32 input, which is not timed."""

    run: Callable[[Tensor], Tensor]
    weight_bytes: int
    prepare: Callable[[Tensor], Tensor] = lambda x: x


def _signs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).sign()


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _linear(device: str) -> dict[str, Peer]:
    """A layer of 4096 inputs and outputs between activations -1 and 1."""
    weight = _signs(FEATURES, FEATURES).to(device)
    packed = functional.pack_weight(weight)
    half = weight.bfloat16()
    return {
        "packed": Peer(lambda x: functional.binary_linear(x, packed), packed.words.nbytes, functional.pack_bits),
        "packed, from float32": Peer(
            lambda x: functional.binary_linear(functional.pack_bits(x), packed), packed.words.nbytes
        ),
        "float32": Peer(lambda x: linear(x, weight), weight.nbytes),
        "bfloat16": Peer(lambda x: linear(x, half), half.nbytes, Tensor.bfloat16),
    }


def _conv(device: str) -> dict[str, Peer]:
    """A 3x3 convolution of 256 channels, 28 x 28, padded."""
    weight = _signs(CHANNELS, CHANNELS, 3, 3).to(device)
    packed, half = functional.pack_weight(weight), weight.bfloat16()

    def product(words: Tensor) -> Tensor:
        return functional.binary_conv2d(words, packed, padding=(1, 1)).movedim(-1, 1)

    return {
        "packed": Peer(product, packed.words.nbytes, _channels_last_bits),
        "packed, from float32": Peer(lambda x: product(_channels_last_bits(x)), packed.words.nbytes),
        "float32": Peer(lambda x: conv2d(x, weight, padding=1), weight.nbytes),
        "bfloat16": Peer(lambda x: conv2d(x, half, padding=1), half.nbytes, Tensor.bfloat16),
    }


def _channels_last_bits(x: Tensor) -> Tensor:
    return functional.pack_bits(x.movedim(1, -1))


def _mlp(device: str, hidden: Sequence[int]) -> dict[str, Peer]:
    """A whole network, from images to scores."""
    torch.manual_seed(0)
    binary = models.BinaryMLP(784, hidden, 10).eval()
    packed, twin = deploy.pack(binary).to(device), models.ReLUNet(784, hidden, 10).eval().to(device)
    binary = binary.to(device)

    def image(x: Tensor) -> Tensor:
        return x * 0.5 + 0.5

    return {
        "packed": Peer(packed, _bytes(*packed.buffers()), image),
        "float32 twin of ReLU": Peer(twin, _bytes(*twin.parameters(), *twin.buffers()), image),
        "float32, the same signs": Peer(binary, _bytes(*binary.parameters(), *binary.buffers()), image),
    }


PROBLEMS: dict[str, tuple[Callable[[str], dict[str, Peer]], tuple[int, ...]]] = {
    "linear": (_linear, (FEATURES,)),
    "conv": (_conv, (CHANNELS, 28, 28)),
    "mlp": (lambda device: _mlp(device, HIDDEN), (784,)),
    "wide mlp": (lambda device: _mlp(device, WIDE), (784,)),
}
"""What makes the peers on a device, and the shape of a sample."""


def _check(peers: dict[str, Peer], x: Tensor, name: str) -> None:
    exact = next(peer for other, peer in peers.items() if other in ("float32", "float32, the same signs"))
    ours, expected = peers["packed"].run(peers["packed"].prepare(x)), exact.run(exact.prepare(x))
    common.require(torch.allclose(ours.float(), expected, rtol=1e-5, atol=1e-5), f"{name}, packed")


@torch.no_grad()
def measure(problem: str, peer: str, batch: int, device: str, repeats: int) -> dict:
    """Time one peer in this process.

    Returns:
        {"problem", "peer", "batch", "ms": {"median", "p20", "p80"}, "weight_bytes"}.

    Raises:
        RuntimeError: if the packed result differs from the float one.
    """
    make, shape = PROBLEMS[problem]
    peers = make(device)
    _check(peers, _signs(3, *shape).to(device), problem)
    one = peers[peer]
    x = one.prepare(_signs(batch, *shape).to(device))
    seconds = []
    for _ in range(repeats + 3):
        common.synchronize(device)
        start = time.perf_counter()
        one.run(x)
        common.synchronize(device)
        seconds.append(time.perf_counter() - start)
    found = {"problem": problem, "peer": peer, "batch": batch}
    return {**found, "ms": common.percentiles(seconds[3:]), "weight_bytes": one.weight_bytes}


def run(device: str = "cpu", repeats: int = 20, progress: bool = True) -> dict:
    """Time every peer of every problem, each in its own process.

    Returns:
        {"machine", "results": of `measure`, each with "speedup": how many times as fast as the problem's first peer in
        floating point}.
    """
    from tqdm import tqdm

    jobs = [
        (problem, peer, batch)
        for problem, (make, _) in PROBLEMS.items()
        for batch in BATCHES[device]
        for peer in make("cpu")
        if device == "cuda" or peer != "bfloat16"  # which a CPU without its instructions would emulate
    ]
    results = []
    for problem, peer, batch in tqdm(jobs, desc="peers", disable=not progress):
        found = common.in_own_process("htaf_snn.bench.packed", problem, peer, batch, device, repeats)
        results.append({"problem": problem, "peer": peer, "batch": batch, **found})
    for result in results:
        against = next((r for r in results if _same(r, result) and r["peer"].startswith("float32")), {})
        if "ms" in result and "ms" in against:
            result["speedup"] = round(against["ms"]["median"] / result["ms"]["median"], 2)
    return {"machine": common.machine(device), "results": results}


def _same(one: dict, other: dict) -> bool:
    return (one["problem"], one["batch"]) == (other["problem"], other["batch"])


def table(report: dict) -> str:
    """The report of `run` as text."""
    rows = [["problem", "batch", "peer", "ms", "20-80 %", "times float32", "weights, MB"]]
    for result in report["results"]:
        row = [result["problem"], str(result["batch"]), result["peer"]]
        if "ms" in result:
            ms, speedup = result["ms"], result.get("speedup")
            row += [f"{ms['median']:.3f}", f"{ms['p20']:.3f}-{ms['p80']:.3f}", f"{speedup:.1f}" if speedup else ""]
            row.append(f"{result['weight_bytes'] / 1e6:.2f}")
        else:
            row += ["not measured:", result["not_measured"]]
        rows.append(row)
    return common.text_table(rows)


if __name__ == "__main__":
    print(json.dumps(measure(*map(json.loads, sys.argv[1:]))))
