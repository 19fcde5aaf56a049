"""Layers and networks with packed bits beside floating point; forward passes only.

python -m htaf_snn.bench.packed '"linear"' '"packed"' 1 '"cpu"' 20    # one measurement, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

from .. import deploy, functional, models
from .. import nn as hnn
from . import common

FEATURES, CHANNELS, SMALL, HIDDEN, WIDE = 4096, 256, [512, 512], [1024, 1024], [4096, 4096, 4096]
BATCHES = {"cpu": (1, 256), "cuda": (1, 16, 256)}


@dataclass(frozen=True)
class Peer:
    """A forward pass: `run` is timed, on the result of `prepare` for the float32 input."""

    run: Callable[[Tensor], Tensor]
    weight_bytes: int
    prepare: Callable[[Tensor], Tensor] = lambda x: x


def _signs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).sign()


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _linear(device: str) -> dict[str, Peer]:
    """Return the peers of a layer with 4096 inputs of -1 and 1 and 4096 outputs."""
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
    """Return the peers of a padded 3x3 convolution of 256 channels, 28 x 28."""
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


def _network(device: str, binary: nn.Module, **plain: nn.Module) -> dict[str, Peer]:
    """Return the peers of a whole network, from images to scores."""
    packed = deploy.pack(binary.eval()).to(device)
    peers = {"packed": Peer(packed, _bytes(*packed.buffers(), *packed.parameters()), _image)}
    for name, net in (plain | {"the same signs": binary}).items():
        net = net.eval().to(device)
        peers[f"float32, {name}"] = Peer(net, _bytes(*net.parameters(), *net.buffers()), _image)
    return peers


def _image(x: Tensor) -> Tensor:
    return x * 0.5 + 0.5


def _mlp(device: str, hidden: Sequence[int]) -> dict[str, Peer]:
    torch.manual_seed(0)
    sizes = [784, *hidden]
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    plain = nn.Sequential(*layers, nn.Linear(sizes[-1], 10))
    twin = models.ReLUNet(784, hidden, 10)
    return _network(device, models.BinaryMLP(784, hidden, 10), plain=plain, **{"twin of ReLU": twin})


def _lenet(device: str) -> dict[str, Peer]:
    """Return the peers of a network of LeNet-5's size, for 28 x 28 pixels."""
    torch.manual_seed(0)
    binary: list[nn.Module] = [hnn.QuantizeInput()]
    plain: list[nn.Module] = []
    for a, b, padding in ((1, 6, 2), (6, 16, 0)):
        norm = [nn.BatchNorm2d(b), hnn.BinaryActivation()]
        binary += [hnn.BinaryConv2d(a, b, 5, padding=padding), *norm, nn.MaxPool2d(2)]
        plain += [nn.Conv2d(a, b, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2)]
    binary.append(nn.Flatten())
    plain.append(nn.Flatten())
    for a, b in ((400, 120), (120, 84)):
        binary += [hnn.BinaryLinear(a, b), nn.BatchNorm1d(b), hnn.BinaryActivation()]
        plain += [nn.Linear(a, b), nn.ReLU()]
    return _network(
        device, nn.Sequential(*binary, hnn.HeavisideLinear(84, 10)), plain=nn.Sequential(*plain, nn.Linear(84, 10))
    )


class _PlainBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them."""

    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(a, b, 3, stride, 1), nn.Conv2d(b, b, 3, 1, 1)
        self.shortcut = nn.Identity() if a == b else nn.Conv2d(a, b, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def _resnet(device: str) -> dict[str, Peer]:
    """Return the peers of a residual network of 20 layers for 32 x 32 pixels of three colours."""
    torch.manual_seed(0)
    widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
    blocks = [_PlainBlock(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    stem, head = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()], [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return _network(device, models.BinaryResNet(20), plain=nn.Sequential(*stem, *blocks, *head))


PROBLEMS: dict[str, tuple[Callable[[str], dict[str, Peer]], tuple[int, ...]]] = {
    "linear": (_linear, (FEATURES,)),
    "conv": (_conv, (CHANNELS, 28, 28)),
    "small mlp": (lambda device: _mlp(device, SMALL), (784,)),
    "mlp": (lambda device: _mlp(device, HIDDEN), (784,)),
    "wide mlp": (lambda device: _mlp(device, WIDE), (784,)),
    "lenet": (_lenet, (1, 28, 28)),
    "resnet20": (_resnet, (3, 32, 32)),
}
"""A function that returns the peers on a device, and the shape of a sample."""


def _check(peers: dict[str, Peer], x: Tensor, name: str) -> None:
    packed, exact = peers["packed"], peers.get("float32") or peers["float32, the same signs"]
    ours, expected = packed.run(packed.prepare(x)), exact.run(exact.prepare(x))
    common.require(torch.allclose(ours.float(), expected, rtol=1e-5, atol=1e-5), f"{name}, packed")


@torch.no_grad()
def measure(problem: str, peer: str, batch: int, device: str, repeats: int) -> dict[str, Any]:
    """Time one peer in this process.

    Returns:
        {"problem", "peer", "batch", "ms": {"median", "p20", "p80"}, "weight_bytes"}.

    Raises:
        RuntimeError: if the packed result differs from the float one.
    """
    make, shape = PROBLEMS[problem]
    peers = make(device)
    _check(peers, _signs(3, *shape).to(device), problem)
    entry = peers[peer]
    x = entry.prepare(_signs(batch, *shape).to(device))
    ms = common.percentiles([common.timed(lambda: entry.run(x), device) for _ in range(repeats + 3)][3:])
    return {"problem": problem, "peer": peer, "batch": batch, "ms": ms, "weight_bytes": entry.weight_bytes}


def run(device: str = "cpu", repeats: int = 20, progress: bool = True) -> dict[str, Any]:
    """Time every peer of every problem, each in its own process.

    Returns:
        {"machine", "results": those of `measure`, each with "speedup" over the problem's first peer in floating point}.
    """
    from tqdm import tqdm

    jobs = [
        (problem, peer, batch)
        for problem, (make, _) in PROBLEMS.items()
        for batch in BATCHES[device]
        for peer in make("cpu")
        if device == "cuda" or peer != "bfloat16"  # emulated by a CPU that lacks the instructions
    ]
    results = []
    for problem, peer, batch in tqdm(jobs, desc="peers", disable=not progress):
        result = common.in_own_process("htaf_snn.bench.packed", problem, peer, batch, device, repeats)
        results.append({"problem": problem, "peer": peer, "batch": batch, **result})
    for result in results:
        baseline = next((r for r in results if _same(r, result) and r["peer"].startswith("float32")), {})
        if "ms" in result and "ms" in baseline:
            result["speedup"] = round(baseline["ms"]["median"] / result["ms"]["median"], 2)
    return {"machine": common.machine(device), "results": results}


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return (a["problem"], a["batch"]) == (b["problem"], b["batch"])


def table(report: dict[str, Any]) -> str:
    """Return the report of `run` as text."""
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
