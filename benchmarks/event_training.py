"""Time an epoch of training on N-MNIST here, and in a script of snnTorch and Tonic, each in its own process.

Both train the same network on the same recordings, from frames of the same number of bins: two layers of `snn.Leaky`
with HTAF, and a linear readout of their mean spikes, with Adam. The script is what one writes from the libraries'
tutorials: `ToFrame`, `DiskCachedDataset`, a `DataLoader`, and a loop over time; the first epoch, which fills the cache,
is not counted. With --other, the package of another folder is measured, too, such as that of an earlier commit.

    python benchmarks/event_training.py --nmnist data/nmnist
    python benchmarks/event_training.py --nmnist data/nmnist --seeds 5 --epochs 14 --other ../earlier --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import torch

HIDDEN, BATCH, LR = 256, 32, 1e-3


def _listed(options: dict[str, object]) -> list[str]:
    return [str(part) for option in options.items() for part in option]


def ours(arguments: argparse.Namespace, folder: str) -> dict:
    """Train by `htaf-snn train`."""
    run = Path(folder, "run")
    options = {"--dataset": "nmnist", "--data-root": Path(arguments.nmnist).resolve(), "--out": run}
    options |= {"--hidden": f"{HIDDEN},{HIDDEN}", "--batch-size": BATCH, "--lr": LR, "--val-fraction": 0}
    options |= {"--epochs": arguments.epochs + 1, "--n-time-bins": arguments.n_time_bins, "--seed": arguments.seed}
    command = [sys.executable, "-m", "htaf_snn", "train", *_listed(options)]
    # Not in this folder, whose package would come before that of PYTHONPATH.
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"XDG_CACHE_HOME": folder}, cwd=folder)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    accuracy = json.loads((run / "result.json").read_text())["test_accuracy"]
    return {"seconds": [json.loads(line)["seconds"] for line in lines][1:], "accuracy": accuracy}


def script(arguments: argparse.Namespace, folder: str) -> dict:
    """Train as a script of snnTorch and Tonic does."""
    import snntorch as snn
    import tonic

    from htaf_snn import HTAF

    torch.manual_seed(arguments.seed)
    Path(folder, "NMNIST").symlink_to(Path(arguments.nmnist).resolve())
    to_frames = tonic.transforms.ToFrame((34, 34, 2), n_time_bins=arguments.n_time_bins)
    with mock.patch.object(tonic.datasets.NMNIST, "_check_exists", lambda self: True):
        parts = [tonic.datasets.NMNIST(folder, train=train, transform=to_frames) for train in (True, False)]
    cached = [
        tonic.DiskCachedDataset(part, cache_path=str(Path(folder, name)))
        for part, name in zip(parts, "ab", strict=True)
    ]
    train, test = (
        torch.utils.data.DataLoader(
            part, batch_size=BATCH, shuffle=shuffle, collate_fn=tonic.collation.PadTensors(batch_first=False)
        )
        for part, shuffle in zip(cached, (True, False), strict=True)
    )
    sizes = [(2 * 34 * 34, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 10)]
    layers = torch.nn.ModuleList(torch.nn.Linear(a, b) for a, b in sizes)
    neurons = [snn.Leaky(beta=0.9, spike_grad=HTAF()) for _ in range(2)]
    optimizer = torch.optim.Adam(layers.parameters(), lr=LR)

    def scores(frames: torch.Tensor) -> torch.Tensor:
        membranes, total = [neuron.init_leaky() for neuron in neurons], 0
        for frame in frames.flatten(2).float():
            x = frame
            for number, neuron in enumerate(neurons):
                x, membranes[number] = neuron(layers[number](x), membranes[number])
            total = total + x
        return layers[2](total / len(frames))

    seconds = []
    for _ in range(arguments.epochs + 1):
        start = time.perf_counter()
        for frames, labels in train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(scores(frames), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    with torch.no_grad():
        right = sum((scores(frames).argmax(1) == labels).sum().item() for frames, labels in test)
    return {"seconds": seconds[1:], "accuracy": right / len(cached[1])}


def in_own_processes(who: str, arguments: argparse.Namespace, package: Path | None = None) -> dict:
    """Return the median epoch, in s, and the test accuracies of one way over the seeds, with a folder's package."""
    environment = os.environ | {"PYTHONPATH": str((package or Path(__file__).parents[1]).resolve())}
    seconds, accuracies = [], []
    for seed in range(arguments.seeds):
        options = {"--nmnist": arguments.nmnist, "--epochs": arguments.epochs, "--n-time-bins": arguments.n_time_bins}
        options |= {"--measure": who, "--seed": seed}
        command = [sys.executable, __file__, *_listed(options)]
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        if run.returncode:
            raise SystemExit(f"{who}: {run.stderr}")
        result = json.loads(run.stdout.splitlines()[-1])
        seconds += result["seconds"]
        accuracies.append(result["accuracy"])
    return {"median_s": round(statistics.median(seconds), 4), "test_accuracies": accuracies}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nmnist", required=True, help="folder of N-MNIST, or of a part of it")
    parser.add_argument("--n-time-bins", type=int, default=25, help="frames per recording")
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are timed")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each, each in a process of its own")
    parser.add_argument("--other", type=Path, help="folder of another version of this project")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=("ours", "script"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"ours": ours, "script": script}[arguments.measure](arguments, folder)))
        return
    results = {"ours": in_own_processes("ours", arguments), "script": in_own_processes("script", arguments)}
    if arguments.other:
        results["other"] = in_own_processes("ours", arguments, arguments.other)
    for result in results.values():
        result["ratio"] = round(result["median_s"] / results["ours"]["median_s"], 2)
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("torch", "snntorch", "tonic")}
    settings = {name: getattr(arguments, name) for name in ("n_time_bins", "epochs", "seeds")}
    settings["threads"] = torch.get_num_threads()
    if arguments.json:
        print(
            json.dumps({"machine": machine, "versions": versions, "settings": settings, "results": results}, indent=2)
        )
        return
    for who, result in results.items():
        accuracy = statistics.fmean(result["test_accuracies"])
        print(f"{who:<8}{result['median_s']:8.3f} s, ratio {result['ratio']:5.2f}, accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
