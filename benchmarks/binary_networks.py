"""Binary and deep Heaviside networks by several estimators, and their twins in floating point, on Fashion-MNIST.

    python benchmarks/binary_networks.py --data-root DIR --out runs/binary

DIR holds Fashion-MNIST, see `neuromorphic_datasets.images`. An hour and more on two cores; interrupted, the same
command goes on. The figures end in `fashion-mnist.json` in the folder.
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
ESTIMATORS = ["htaf", "htaf(normalized=True, hardness=0.0)", "clipped_ste", "approx_sign", "ede"]
SHARED = {"dataset": "fashion-mnist", "epochs": 10, "batch_size": 128, "schedule": "cosine"}
WIDTH = 512


def twin(depth: int, seed: int, root: str, out: Path) -> float:
    """The test accuracy of a network of ReLU."""
    torch.set_num_threads(1)
    config = training.TrainConfig(model="relu", data_root=root, hidden=(WIDTH,) * depth, seed=seed, **SHARED)
    if (out / "result.json").is_file():
        return json.loads((out / "result.json").read_text())["test_accuracy"]
    return training.train(config, out, resume=(out / "config.json").is_file(), progress=False)["test_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder of Fashion-MNIST")
    parser.add_argument("--out", type=Path, default=Path("runs/binary"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, a thread each")
    arguments = parser.parse_args()
    root, seeds = str(Path(arguments.data_root).resolve()), arguments.seeds
    found = {}
    for model, depth in DEPTHS.items():
        settings = {"model": model, "surrogates": ESTIMATORS, "depths": [depth], "width": WIDTH, "match": "none"}
        study = Study(arguments.out / model, data_root=root, seeds=seeds, **settings, **SHARED)
        study.run(arguments.workers)
        study.report()
        with ProcessPoolExecutor(arguments.workers) as pool:
            jobs = [
                pool.submit(twin, depth, seed, root, arguments.out / f"{model}-twin-{seed}") for seed in range(seeds)
            ]
            twins = [job.result() for job in jobs]
        found[model] = {
            "settings": asdict(study.settings) | {"data_root": "DIR"},
            "twin": twins,
            "table": study.table(),
        }
    result = {"command": "python benchmarks/binary_networks.py --data-root DIR", "versions": versions(), **found}
    path = arguments.out / "fashion-mnist.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
