"""Concept bottleneck models: ways to make concepts discrete beside real ones, each at its own learning rate."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from htaf_snn import concepts, training
from htaf_snn.compare.statistics import compare_to, summarise

from . import sparse_heads

_FIGURES = ("hardening_gap", "dead", "leakage", "effective_concepts", "purity", "completeness", "intervention_auc")


@dataclass(frozen=True)
class ConceptClaim:
    """A question about concept models, and the runs that answer it.

    Attributes:
        name, question: as in `Claim`.
        recipes: settings of `htaf_snn.concepts.ConceptRun`, by the data set.
        arms: settings that differ, by the name of the arm; the first is the baseline.
        lrs: learning rates, of which each arm gets that of its best validation accuracy with the first seed.
        seeds: number of seeds that are compared, besides the first, which selects.
        most: features per class of the sparse heads.
        quick: recipes with `--quick`.
    """

    name: str
    question: str
    recipes: dict[str, dict[str, Any]]
    arms: dict[str, dict[str, Any]]
    lrs: tuple[float, ...]
    seeds: int = 5
    most: int = 8
    quick: dict[str, dict[str, Any]] = field(default_factory=dict)


class Job(NamedTuple):
    """One run: its arm, settings and folder."""

    arm: str
    config: concepts.ConceptRun | training.Run
    out: Path


def trained(job: Job) -> dict:
    """Return the figures of a run, started or continued if it is not finished, and its validation accuracy."""
    torch.set_num_threads(1)
    if (job.out / "result.json").is_file():
        if training.read_config(job.out) != job.config:
            raise ValueError(f"{job.out}: expected a run of {job.config}; remove it, or choose another --out")
        result = json.loads((job.out / "result.json").read_text())
    else:
        resume = (job.out / "config.json").is_file()
        if isinstance(job.config, training.Run):
            result = training.train(job.config, job.out, resume=resume, progress=False)
        else:
            result = concepts.train(job.config, job.out, resume=resume, progress=False)
    last = json.loads((job.out / training.loop.METRICS).read_text().splitlines()[-1])
    return {**result, "val_accuracy": last["val_accuracy"]}


def run_part(claim: ConceptClaim, recipe: dict, root: str | None, out: Path, workers: int) -> dict:
    """Return the table of a data set, with what is missing of its runs done first."""

    def job(arm: str, lr: float, seed: int) -> Job:
        settings = {"data_root": root, "batch_size": 128, **recipe, **claim.arms[arm]}
        folder = out / f"{arm}-{lr:g}-{seed}".replace(" ", "-")
        return Job(arm, concepts.ConceptRun(**settings, lr=lr, seed=seed), folder)

    dataset = recipe["dataset"]
    first = run_all([job(arm, lr, 0) for arm in claim.arms for lr in claim.lrs], dataset, workers)
    best = {
        arm: max((job for job in first if job.arm == arm), key=lambda job: first[job]["val_accuracy"]).config.lr
        for arm in claim.arms
    }
    seeds = range(1, claim.seeds + 1)
    every = run_all([job(arm, lr, seed) for arm, lr in best.items() for seed in seeds], dataset, workers)
    return {
        "settings": {**recipe, "arms": claim.arms, "lrs": claim.lrs, "seeds": claim.seeds, "most": claim.most},
        "rows": _rows(claim, best, every),
        "heads": _heads(every, claim.most),
        "selection": [{"arm": j.arm, "lr": j.config.lr, "val_accuracy": r["val_accuracy"]} for j, r in first.items()],
    }


def run_all(jobs: list[Job], name: str, workers: int) -> dict[Job, dict]:
    """Return the figures of every run."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:  # a fork of torch's threads may hang
        results = list(tqdm(pool.map(trained, jobs), total=len(jobs), desc=name, unit="run"))
    return dict(zip(jobs, results, strict=True))


def _rows(claim: ConceptClaim, lrs: dict[str, float], results: dict[Job, dict]) -> list[dict]:
    by_arm = {arm: [result for job, result in results.items() if job.arm == arm] for arm in claim.arms}
    accuracies = {arm: [result["test_accuracy"] for result in own] for arm, own in by_arm.items()}
    baseline = next(iter(claim.arms))
    tests = compare_to(accuracies[baseline], {arm: own for arm, own in accuracies.items() if arm != baseline})
    rows = []
    for arm, own in by_arm.items():
        figures = {name: [result[name] for result in own] for name in _FIGURES}
        means = {name: None if None in values else sum(values) / len(values) for name, values in figures.items()}
        compared = tests[arm].as_dict() if arm in tests else {}
        rows.append(
            {"arm": arm, "lr": lrs[arm], "accuracies": accuracies[arm], **summarise(accuracies[arm]).as_dict(), **means}
            | {"comparison": compared, **_stability([job for job in results if job.arm == arm])}
        )
    return rows


def _stability(jobs: list[Job]) -> dict[str, float]:
    """Return how far the concepts of the seeds agree on the test images."""
    found = []
    for job in jobs:
        model, loader = training.load(job.out), _loaders(job)[1]
        found.append(
            concepts.codes(model, loader) if model.is_binary else sparse_heads.features_of(model, loader).concepts
        )
    agreement = concepts.stability(found)
    return {"stability": agreement["stability"], "stability_by_chance": agreement["chance"]}


def _loaders(job: Job) -> tuple:
    train, _, test = training.make_loaders(replace(job.config, batch_size=500))
    return train, test


def _heads(results: dict[Job, dict], most: int) -> list[dict]:
    """Return the figures of sparse heads over each kind of features; without SAELens those of its latents are None."""
    rows = []
    for name, (arm, head) in sparse_heads.HEADS.items():
        try:
            found = [head(training.load(job.out), *_loaders(job), most) for job in results if job.arm == arm]
        except ImportError as error:
            rows.append({"features": name, "not_measured": str(error)})
            continue
        accuracies = [figures["test_accuracy"] for figures in found]
        rows.append({"features": name, "accuracies": accuracies, **summarise(accuracies).as_dict(), "runs": found})
    return rows
