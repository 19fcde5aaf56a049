"""Time reading and framing of events by this package, Tonic and expelliarmus, each in its own process.

* frames-400k: 400 000 events of 128 x 128 pixels into 25 time bins, against ``tonic.transforms.ToFrame``;
* frames-5k: 5000 events of 34 x 34 pixels into 25 time bins, likewise;
* epoch: a pass over cached N-MNIST training recordings in batches of 32, 10 time bins, against Tonic's
  `DiskCachedDataset` in a `DataLoader`, both without worker processes; needs --nmnist;
* evt3: decoding of an EVT 3.0 file, against expelliarmus; needs --evt3.

The results are compared before they are timed.

    python benchmarks/event_data.py
    python benchmarks/event_data.py --nmnist data/nmnist --evt3 data/gen4.raw --json > event-data.json
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
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch

import neuromorphic_datasets as nd

TASKS = {
    "frames-400k": ("tonic", 20),
    "frames-5k": ("tonic", 500),
    "epoch": ("tonic", 5),
    "evt3": ("expelliarmus", 15),
}
"""The peer and the number of repetitions of each task."""


def recording(count: int, pixels: int) -> np.ndarray:
    """Return random events of 0.3 s."""
    rng = np.random.default_rng(0)
    events = np.zeros(count, [(field, np.int64) for field in "xytp"])
    for field, high in (("x", pixels), ("y", pixels), ("t", 300_000), ("p", 2)):
        events[field] = rng.integers(high, size=count)
    events["t"].sort()
    return events


def framing(count: int, pixels: int) -> dict[str, Callable]:
    """Return both functions that make frames, after checking that the frames are equal."""
    from tonic.transforms import ToFrame

    events, size = recording(count, pixels), (pixels, pixels, 2)
    tonic = ToFrame(size, n_time_bins=25)

    def ours() -> np.ndarray:
        return nd.to_frames(events, size, n_time_bins=25, remainder="drop")

    np.testing.assert_array_equal(ours(), tonic(events))
    return {"ours": ours, "tonic": lambda: tonic(events)}


def epochs(folder: str, cache: str) -> dict[str, Callable]:
    """Return both passes over N-MNIST, after checking that frames and labels are equal."""
    import tonic

    Path(cache, "NMNIST").symlink_to(Path(folder).resolve())
    with mock.patch.object(tonic.datasets.NMNIST, "_check_exists", lambda self: True):
        source = tonic.datasets.NMNIST(cache, transform=tonic.transforms.ToFrame((34, 34, 2), n_time_bins=10))
    cached = tonic.DiskCachedDataset(source, cache_path=str(Path(cache, "tonic")))
    peer = torch.utils.data.DataLoader(cached, batch_size=32, shuffle=True)
    options = {"n_time_bins": 10, "remainder": "drop", "val_fraction": 0, "batch_size": 32}
    train, _, _ = nd.loaders("nmnist", root=folder, cache=cache, **options)
    for position in range(len(cached)):
        frames, label = cached[position]
        ours, our_label = train.dataset[position]
        np.testing.assert_array_equal(ours.numpy(), frames)
        assert our_label == label
    return {"ours": lambda: deque(train, maxlen=0), "tonic": lambda: deque(peer, maxlen=0)}


def decoding(path: str) -> dict[str, Callable]:
    """Return both decoders, after checking that coordinates and polarities are equal.

    Times differ, because expelliarmus counts some wrap-arounds twice.
    """
    from expelliarmus import Wizard

    wizard = Wizard(encoding="evt3")
    ours, theirs = nd.read_events(path), wizard.read(path)
    for field in "xyp":
        np.testing.assert_array_equal(ours[field], theirs[field])
    return {"ours": lambda: nd.read_events(path), "expelliarmus": lambda: wizard.read(path)}


def measure(task: str, who: str, repeats: int, arguments: argparse.Namespace) -> dict:
    """Return the times of a task in one of the two libraries, in ms."""
    with tempfile.TemporaryDirectory() as cache:
        functions = {
            "frames-400k": lambda: framing(400_000, 128),
            "frames-5k": lambda: framing(5000, 34),
            "epoch": lambda: epochs(arguments.nmnist, cache),
            "evt3": lambda: decoding(arguments.evt3),
        }[task]()
        function, times = functions[who], []
        function()
        for _ in range(repeats):
            start = time.perf_counter()
            function()
            times.append((time.perf_counter() - start) * 1e3)
    low, *_, high = statistics.quantiles(times, n=5)
    return {"median_ms": statistics.median(times), "p20_ms": low, "p80_ms": high}


def in_own_process(task: str, who: str, arguments: argparse.Namespace) -> dict:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", task, who]
    for option in ("nmnist", "evt3"):
        command += [f"--{option}", value] if (value := getattr(arguments, option)) else []
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{task}, {who}: {run.stderr.strip().splitlines()[-1]}")
    return json.loads(run.stdout)


def compare(arguments: argparse.Namespace) -> dict:
    """Return the times of every task in both libraries."""
    results = []
    for task, (peer, _) in TASKS.items():
        if task in ("epoch", "evt3") and not getattr(arguments, "nmnist" if task == "epoch" else "evt3"):
            results.append({"task": task, "not_measured": "no data given"})
            continue
        ours, theirs = in_own_process(task, "ours", arguments), in_own_process(task, peer, arguments)
        ratio = round(theirs["median_ms"] / ours["median_ms"], 2)
        results.append(
            {"task": task, "peer": f"{peer} {version(peer)}", "ours": ours, "theirs": theirs, "ratio": ratio}
        )
    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    return {"machine": machine, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nmnist", help="folder of N-MNIST, or of a part of it")
    parser.add_argument("--evt3", help="an EVT 3.0 file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        task, who = arguments.measure
        print(json.dumps(measure(task, who, TASKS[task][1], arguments)))
        return
    report = compare(arguments)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    for result in report["results"]:
        if "not_measured" in result:
            print(f"{result['task']:<14}not measured: {result['not_measured']}")
        else:
            ours, theirs = result["ours"]["median_ms"], result["theirs"]["median_ms"]
            print(f"{result['task']:<14}{ours:9.3f} ms, {result['peer']} {theirs:9.3f} ms, ratio {result['ratio']}")


if __name__ == "__main__":
    main()
