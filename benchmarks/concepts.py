"""Compare surrogates for concept bottleneck models on images, over seeds.

    python benchmarks/concepts.py --fashion-mnist DIR --cifar10 DIR --out runs/concepts

For DIR see `neuromorphic_datasets.images`. Takes some 40 minutes on two cores; after an interruption, the same command
continues. The figures are written to `concepts.json` in the output folder.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from htaf_snn import __version__, concepts
from htaf_snn.compare.statistics import compare_to, summarise
from htaf_snn.training.folder import read_settings
from neuromorphic_datasets import images

# Chosen for HTAF, on validation images.
RECIPES = {
    "fashion-mnist": {"epochs": 5, "n_concepts": 256, "lr": 4e-3},
    "cifar10": {"epochs": 15, "n_concepts": 256, "lr": 16e-3},
}
OF_ARM = {
    "htaf": {"anneal": "alpha", "alpha_end": 10.0},
    # The penalties are on the rates of concepts, which real features do not have.
    "relu": {"activity": 0.0, "decorrelation": 0.0},
}
SURROGATES = {
    "htaf": "htaf(normalized=True, hardness=0.0)",
    "relu": "relu",
    "sigmoid_ste": "sigmoid(slope=1)",
    "clipped_ste": "clipped_ste",
    "relaxed_bernoulli": "relaxed_bernoulli",
}


def trained(job: tuple[str, str, int, str, Path]) -> dict:
    """Return the figures of one run, started or continued if it is not finished."""
    torch.set_num_threads(1)
    dataset, name, seed, root, out = job
    recipe = RECIPES[dataset] | OF_ARM.get(name, {})
    config = concepts.Config(
        dataset=dataset, root=root, surrogate=SURROGATES[name], seed=seed, batch_size=128, **recipe
    )
    if (out / "result.json").is_file():
        if read_settings(out, concepts.Config) != config:
            raise ValueError(f"{out}: expected a run of {config}; remove it, or choose another --out")
        return json.loads((out / "result.json").read_text())
    return concepts.run(config, out, resume=(out / "config.json").is_file(), progress=False)


def codes_of(out: Path, dataset: str, root: str) -> concepts.Codes:
    """Return a run's codes of the test images."""
    _, _, test = images.loaders(dataset, root=root, batch_size=500)
    return concepts.codes(concepts.load(out), test)


def row(results: list[dict], stability: dict[str, float]) -> dict:
    """Return means over seeds, and the interval of the accuracy."""
    accuracies = [result["hard_accuracy"] for result in results]
    names = ("hardening_gap", "dead", "always_on", "effective_concepts", "redundancy", "purity", "completeness")
    figures = {name: [result[name] for result in results] for name in names}
    figures |= {"purity_by_chance": [result["chance"]["purity"] for result in results]}
    means = {name: None if None in values else sum(values) / len(values) for name, values in figures.items()}
    return {"accuracies": accuracies, **summarise(accuracies).as_dict(), **means, **stability}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for dataset in RECIPES:
        parser.add_argument(f"--{dataset}", help="folder of the data set; skipped if not given")
    parser.add_argument("--out", type=Path, default=Path("runs/concepts"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    roots = {name: getattr(arguments, name.replace("-", "_")) for name in RECIPES}
    roots = {name: str(Path(root).resolve()) for name, root in roots.items() if root}
    jobs = [
        (dataset, name, seed, root, arguments.out / f"{dataset}-{name}-{seed}")
        for dataset, root in roots.items()
        for seed in range(arguments.seeds)
        for name in SURROGATES
    ]
    with ProcessPoolExecutor(arguments.workers) as pool:
        results = dict(zip(jobs, tqdm(pool.map(trained, jobs), total=len(jobs)), strict=True))
    tables: dict[str, dict] = {}
    for dataset, root in roots.items():
        rows = {}
        for name in SURROGATES:
            runs = {job: result for job, result in results.items() if job[:2] == (dataset, name)}
            agreement = {"stability": None, "chance": None}
            if name != "relu" and len(runs) > 1:
                agreement = concepts.stability([codes_of(job[4], dataset, root) for job in runs])
            agreement["stability_by_chance"] = agreement.pop("chance")
            rows[name] = row(list(runs.values()), agreement)
        against = {name: rows[name]["accuracies"] for name in SURROGATES if name != "htaf"}
        tests = compare_to(rows["htaf"]["accuracies"], against)
        tables[dataset] = {
            name: {**values, **(tests[name].as_dict() if name in tests else {})} for name, values in rows.items()
        }
    command = "python benchmarks/concepts.py " + " ".join(f"--{name} DIR" for name in roots)
    versions = {"htaf-snn": __version__, "torch": torch.__version__}
    path = arguments.out / "concepts.json"
    path.write_text(
        json.dumps({"command": command, "recipes": RECIPES, "versions": versions, **tables}, indent=1) + "\n"
    )
    print(path)


if __name__ == "__main__":
    main()
