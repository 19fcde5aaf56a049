"""Time a training step of the deep spiking networks here and in SpikingJelly, each in a process of its own.

Both take the same random frames, in float32, and parametric LIF neurons with the same surrogate, ATan. A step is the
forward pass, the cross-entropy, the backward pass and Adam's fused update.
SpikingJelly runs its multi-step mode with the torch backend, the one that it has on a CPU.

    pip install spikingjelly
    python benchmarks/event_networks.py
    python benchmarks/event_networks.py --model plif-net --side 128 --batch-size 2 --steps 16 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import nn

MODELS = ("plif-net", "sew-resnet18")


def ours(model: str, side: int) -> nn.Module:
    """Return this project's network."""
    from htaf_snn import nn as hnn
    from htaf_snn.models import PLIFNet, SEWResNet

    def spiking() -> nn.Module:
        return hnn.ParametricLIF(learn=("w",), surrogate="atan")

    return PLIFNet((2, side, side), 10, spiking) if model == "plif-net" else SEWResNet(18, (2, side, side), 10, spiking)


def spikingjelly(model: str, side: int) -> nn.Module:
    """Return SpikingJelly's network, which takes frames (T, B, C, H, W) and starts from rest in each call."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from spikingjelly.activation_based.model import parametric_lif_net, sew_resnet

    options = {"surrogate_function": surrogate.ATan(), "detach_reset": True}
    if model == "plif-net":
        net = parametric_lif_net.DVSGestureNet(128, neuron.ParametricLIFNode, **options)
        # Made for 128 x 128 pixels and 11 classes; with as many poolings as ours.
        net.conv_fc = nn.Sequential(*_plif_layers(layer, neuron.ParametricLIFNode, side, options))
    else:
        net = sew_resnet.sew_resnet18(num_classes=10, cnf="ADD", spiking_neuron=neuron.ParametricLIFNode, **options)
        net.conv1 = layer.Conv2d(2, 64, 7, 2, 3, bias=False)
    functional.set_step_mode(net, "m")

    class FromRest(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            functional.reset_net(self.net)
            return self.net(frames).mean(0)

    return FromRest()


def _plif_layers(layer, spiking: Callable, side: int, options: dict) -> list[nn.Module]:
    layers, width = [], 2
    blocks = min(max(side.bit_length() - 3, 1), 5)
    for _ in range(blocks):
        layers += [layer.Conv2d(width, 128, 3, padding=1, bias=False), layer.BatchNorm2d(128), spiking(**options)]
        layers.append(layer.MaxPool2d(2, 2))
        width = 128
    features = 128 * (side >> blocks) ** 2
    layers += [layer.Flatten(), layer.Dropout(0.5), layer.Linear(features, 512), spiking(**options)]
    return [*layers, layer.Dropout(0.5), layer.Linear(512, 100), spiking(**options), layer.VotingLayer(10)]


def measured(who: str, arguments: argparse.Namespace) -> dict:
    """Return the median of the steps, in ms, and the most memory that the process has had, in MiB."""
    from htaf_snn._memory import keep_freed

    keep_freed()
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    net = {"ours": ours, "spikingjelly": spikingjelly}[who](arguments.model, arguments.side)
    frames = (torch.rand(arguments.steps, arguments.batch_size, 2, arguments.side, arguments.side) > 0.9).float()
    labels = torch.randint(0, 10, (arguments.batch_size,))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    seconds = []
    for _ in range(3 + arguments.repeats):
        start = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(frames), labels).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return {
        "parameters": parameters,
        "median_ms": round(1e3 * statistics.median(seconds[3:]), 1),
        "peak_mib": round(peak),
    }


def in_own_process(who: str, arguments: argparse.Namespace) -> dict:
    given = {name: value for name, value in vars(arguments).items() if name not in ("json", "measure")}
    options = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    run = subprocess.run([sys.executable, __file__, *options, "--measure", who], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{who}: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="plif-net", help="the network")
    parser.add_argument("--side", type=int, default=34, help="pixels a side of a frame")
    parser.add_argument("--batch-size", type=int, default=16, help="samples per step")
    parser.add_argument("--steps", type=int, default=8, help="frames per sample")
    parser.add_argument("--repeats", type=int, default=15, help="steps that are timed, after three that are not")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measure", choices=("ours", "spikingjelly"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure, arguments)))
        return
    results = {who: in_own_process(who, arguments) for who in ("ours", "spikingjelly")}
    if results["ours"]["parameters"] != results["spikingjelly"]["parameters"]:
        raise SystemExit(f"parameters: expected the same number in both networks, got {results}")
    ratio = round(results["spikingjelly"]["median_ms"] / results["ours"]["median_ms"], 2)
    if arguments.json:
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        settings = {name: value for name, value in vars(arguments).items() if name not in ("json", "measure")}
        versions = {name: version(name) for name in ("torch", "spikingjelly")}
        whole = {"machine": machine, "versions": versions, "settings": settings, "results": results, "ratio": ratio}
        print(json.dumps(whole, indent=2))
        return
    for who, result in results.items():
        print(f"{who:<14}{result['median_ms']:8.1f} ms a step, {result['peak_mib']:5} MiB")
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
