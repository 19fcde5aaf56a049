"""A claim's studies are run, or continued, and their results are put together."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from htaf_snn import surrogate, training
from htaf_snn._files import replacing
from htaf_snn.compare import Settings, Study, report, trial
from htaf_snn.compare.selection import ARM, SETTING, TUNED
from htaf_snn.compare.versions import versions

from . import concept_runs, convolutional
from .claims import AnyClaim, Claim
from .convolutional import ConvolutionalClaim

RESULTS = Path(__file__).parents[1] / "results"
OFFLINE = ("digits", "saccade-digits")
_KEPT = ("val_accuracy", "test_accuracy", "hardening_gap", "gradient_layers", "gradient_layers_end", "spike_rate")
_IDENTITY = (*SETTING, *ARM, *TUNED, "seed")


def settings_of(claim: Claim, part: str, quick: bool, data: Path | None) -> Settings:
    """Return the settings of a part of a claim.

    Raises:
        FileNotFoundError: if its data set is neither offline nor in the folder of the data.
    """
    values = {**claim.studies[part], **(claim.quick if quick else {})}
    dataset = values["dataset"]
    if dataset not in OFFLINE and quick:
        values["dataset"] = training.OFFLINE[values["model"]]
    elif dataset not in OFFLINE:
        values["data_root"] = _folder(claim, dataset, data)
    return Settings.of(**values)


def suggested_slope(settings: Settings) -> float:
    """Return the stretch that `surrogate.suggest` gives for the network of the first seed, with two digits."""
    prepared = trial.prepare(settings.trials()[0])
    return float(f"{surrogate.suggest(prepared.model, prepared.batch, settings.reference).stretch:.2g}")


def _folder(claim: AnyClaim, dataset: str, data: Path | None) -> str:
    root = data and data / dataset.replace("-", "_")
    if root is None or not root.is_dir():
        expected = f"the folder {dataset.replace('-', '_')} in --data DIR or HTAF_DATA"
        raise FileNotFoundError(f"{claim.name}: expected {expected}, got {root or 'no folder'}; or add --quick")
    return str(root.resolve())


def command_of(claim: AnyClaim, quick: bool) -> str:
    """Return the command that repeats a claim."""
    return f"python -m benchmarks.evidence run {claim.name}{' --quick' if quick else ' --data DIR'}"


def run(claim: AnyClaim, *, quick: bool, data: Path | None, out: Path, workers: int) -> Path:
    """Run what is missing of a claim's studies; return the file of the results.

    The results of the full studies are in `benchmarks/results/`, those of quick ones beside the studies.
    """
    folder = out / f"{claim.name}{'-quick' if quick else ''}"
    run_parts = _studies if isinstance(claim, Claim) else _recipes
    parts = run_parts(claim, quick, data, folder, workers)
    result = {"claim": claim.name, "question": claim.question, "command": command_of(claim, quick), **circumstances()}
    path = (out if quick else RESULTS) / f"{claim.name}{'-quick' if quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(_readable(result | {"parts": parts}))
    return path


def _readable(result: dict) -> str:
    """Return JSON in which a list of numbers, a row and a trial take one line each."""
    text = json.dumps(result, indent=1)
    for innermost in (r"\[[^][{}]*\]", r"\{[^{}]*\}"):
        text = re.sub(innermost, lambda match: re.sub(r"\n\s*", " ", match[0]), text)
    return text + "\n"


def _recipes(claim: Any, quick: bool, data: Path | None, folder: Path, workers: int) -> dict[str, dict]:
    run_part = convolutional.run_part if isinstance(claim, ConvolutionalClaim) else concept_runs.run_part
    recipes = claim.quick if quick else claim.recipes
    roots = {part: None if quick else _folder(claim, part, data) for part in recipes}
    return {part: run_part(claim, recipe, roots[part], folder / part, workers) for part, recipe in recipes.items()}


def _studies(claim: Claim, quick: bool, data: Path | None, folder: Path, workers: int) -> dict[str, dict]:
    chosen = {part: settings_of(claim, part, quick, data) for part in claim.studies}
    parts = {}
    for part, settings in chosen.items():
        slope = suggested_slope(settings) if claim.suggests else None
        if slope is not None and slope not in settings.slopes:
            settings = Settings.of(**settings.as_dict() | {"slopes": (*settings.slopes, slope)})
        study = Study(folder / part.replace(" ", "-"), **settings.as_dict())
        study.run(workers)
        study.report()
        parts[part] = result_of(study) | {"suggested_slope": slope}
    return parts


def result_of(study: Study) -> dict[str, Any]:
    """Return a study's settings, table and trials, without what the claims do not need."""
    trials = [
        {name: entry["config"][name] for name in _IDENTITY}
        | {name: _rounded(entry["result"][name]) for name in _KEPT}
        | {"seconds": round(entry["result"]["times"]["seconds"], 1)}
        for entry in study.results()
    ]
    settings = study.settings.as_dict()
    train, _, test = training.make_loaders(study.settings.trials()[0].run)
    [dataset] = study.settings.dataset
    data = {"train": len(train.dataset), "test": len(test.dataset), "hash": report.data_hash(study.settings, dataset)}
    return {
        "data": data,
        "settings": settings | {"data_root": None if settings["data_root"] is None else "DIR"},
        "table": study.table(),
        "failures": [
            {name: failure["config"][name] for name in _IDENTITY} | {"error": failure["error"]}
            for failure in study.failures()
        ],
        "trials": trials,
    }


def _rounded(value: Any) -> Any:
    """Return numbers with six significant digits."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def circumstances() -> dict[str, Any]:
    """Return the commit, the versions and the machine."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        call = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
        return call.stdout.strip() if call.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    if git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results"):
        commit += " with changes"
    machine = {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    return {"commit": commit, "versions": versions(), "machine": machine}


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
