"""Compare surrogates in binary and deep Heaviside networks, and with floating-point twins, on Fashion-MNIST.

    python benchmarks/binary_networks.py --root DIR --out runs/binary

For DIR see `neuromorphic_datasets.images`. Takes more than an hour on two cores; after an
interruption the same command continues. The figures are written to `fashion-mnist.json` in the output folder.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch

from htaf_snn import training
from htaf_snn.compare import Study
from htaf_snn.compare.study import versions

DEPTHS = {"bnn": 2, "dhn": 8}
SURROGATES = ["htaf", "htaf(normalized=True)", "clipped_ste", "approx_sign", "ede"]
SHARED = {"dataset": "fashion-mnist", "epochs": 10, "batch_size": 128, "schedule": "cosine"}
WIDTH = 512


def twin(depth: int, seed: int, root: str, out: Path) -> float:
    """Return the test accuracy of the ReLU network."""
    torch.set_num_threads(1)
    config = training.TrainConfig(model="relu", root=root, hidden=(WIDTH,) * depth, seed=seed, **SHARED)
    if (out / "result.json").is_file():
        return json.loads((out / "result.json").read_text())["test_accuracy"]
    return training.train(config, out, resume=(out / "config.json").is_file(), progress=False)["test_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs/binary"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, each with one thread")
    arguments = parser.parse_args()
    root, seeds = str(Path(arguments.root).resolve()), arguments.seeds
    figures = {}
    for model, depth in DEPTHS.items():
        settings = {"model": model, "surrogates": SURROGATES, "depths": [depth], "width": WIDTH, "match": "none"}
        settings["anneal"] = ["none", "alpha"]
        study = Study(arguments.out / model, root=root, seeds=seeds, **settings, **SHARED)
        study.run(arguments.workers)
        study.report()
        with ProcessPoolExecutor(arguments.workers) as pool:
            jobs = [
                pool.submit(twin, depth, seed, root, arguments.out / f"{model}-twin-{seed}") for seed in range(seeds)
            ]
            twins = [job.result() for job in jobs]
        figures[model] = {
            "settings": asdict(study.settings) | {"root": "DIR"},
            "twin": twins,
            "table": study.table(),
        }
    result = {"command": "python benchmarks/binary_networks.py --root DIR", "versions": versions(), **figures}
    path = arguments.out / "fashion-mnist.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
