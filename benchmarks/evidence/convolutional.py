"""Convolutional networks with binary activations beside their floating-point twins, and what packing makes of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from htaf_snn import deploy, models, training
from htaf_snn.compare.statistics import compare_pairs, summarise

from .concept_runs import Job, run_all


@dataclass(frozen=True)
class ConvolutionalClaim:
    """A question about convolutional networks, and the runs that answer it.

    Attributes:
        name, question: as in `Claim`.
        recipes: settings of `htaf_snn.training.Run`, by the data set.
        arms: settings that differ, by the model.
        twins: the floating-point twin of each binary model; both are among the arms.
        seeds: number of seeds.
        bits: that `deploy.round_weights` tries.
        quick: recipes with `--quick`.
    """

    name: str
    question: str
    recipes: dict[str, dict[str, Any]]
    arms: dict[str, dict[str, Any]]
    twins: dict[str, str]
    seeds: int = 3
    bits: tuple[int, ...] = (8, 16)
    quick: dict[str, dict[str, Any]] = field(default_factory=dict)


def run_part(claim: ConvolutionalClaim, recipe: dict, root: str | None, out: Path, workers: int) -> dict:
    """Return the table of a data set, with what is missing of its runs done first."""

    def job(arm: str, seed: int) -> Job:
        settings = {**claim.arms[arm], **recipe, "model": arm, "data_root": root, "seed": seed}
        return Job(arm, training.Run(**settings), out / f"{arm}-{seed}")

    # By seed, so that what is finished of an interrupted measurement has all arms.
    jobs = [job(arm, seed) for seed in range(claim.seeds) for arm in claim.arms]
    results = run_all(jobs, recipe["dataset"], workers)
    loaders = training.make_loaders(jobs[0].config)
    data = dict(zip(("train", "val", "test"), (len(loader.dataset) for loader in loaders), strict=True))
    return {
        "settings": {
            "recipe": recipe,
            "arms": claim.arms,
            "seeds": claim.seeds,
            "batch_size": jobs[0].config.batch_size,
        },
        "data": data,
        "models": _rows(claim, results),
        "packed": [_packed(next(job for job in jobs if job.arm == arm), claim.bits) for arm in claim.twins],
    }


def _rows(claim: ConvolutionalClaim, results: dict[Job, dict]) -> list[dict]:
    by_arm = {arm: [result for job, result in results.items() if job.arm == arm] for arm in claim.arms}
    scores = {arm: [result["test_accuracy"] for result in own] for arm, own in by_arm.items()}
    tests = compare_pairs({arm: (scores[twin], scores[arm]) for arm, twin in claim.twins.items()})
    configs = {job.arm: job.config for job in results}
    return [
        {"arm": arm, "epochs": configs[arm].epochs, "lr": configs[arm].lr, "accuracies": scores[arm]}
        | summarise(scores[arm]).as_dict()
        | {"val_accuracies": [result["val_accuracy"] for result in own]}
        | {"hardening_gaps": [result["hardening_gap"] for result in own]}
        | {"seconds": [result["seconds"] for result in own]}
        | {"comparison": tests[arm].as_dict() if arm in tests else {}}
        for arm, own in by_arm.items()
    ]


def _packed(job: Job, bits: tuple[int, ...]) -> dict[str, Any]:
    """Return accuracy and size of a run's network packed, and after the rounding of its Heaviside layers, if any."""
    model = training.load(job.out)
    _, val, test = training.make_loaders(replace(job.config, batch_size=500))
    figures = {
        "arm": job.arm,
        "seed": job.config.seed,
        "test_accuracy": training.evaluate(model, test)["accuracy"],
        **_accuracy_and_bytes(model, test),
        "float_bytes": models.summary(model)["float_bits"] // 8,
    }
    if isinstance(model, models.DeepHeavisideNet):
        before = training.evaluate(model, val)["accuracy"]
        chosen = deploy.round_weights(model, lambda net: training.evaluate(net, val)["accuracy"], bits=bits)
        after = {"val_accuracy": training.evaluate(model, val)["accuracy"], **_accuracy_and_bytes(model, test)}
        figures |= {"val_accuracy": before, "rounded": after | {"bits": chosen}}
    return figures


def _accuracy_and_bytes(model, loader) -> dict[str, Any]:
    packed = deploy.pack(model)
    with tempfile.TemporaryDirectory() as folder:
        deploy.save(packed, Path(folder, "net.safetensors"))
        size = Path(folder, "net.safetensors").stat().st_size
    return {"packed_accuracy": training.evaluate(packed, loader)["accuracy"], "packed_bytes": size}
