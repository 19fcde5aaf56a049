"""`htaf-snn train` and `htaf-snn icbm`."""

from __future__ import annotations

import json as json_format
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ..configuration import ConceptRun, Run, freed, read_file
from ._app import IS_MAIN, aside, command, interruptible, run_folder
from ._options import Flag, Json, options, settled

if TYPE_CHECKING:
    RunOptions = dict[str, Any]
    ConceptOptions = dict[str, Any]
else:
    RunOptions, ConceptOptions = options(Run), options(ConceptRun)

_FILE = "Settings in a file: TOML, another run's folder or its config.json"
_Out = Annotated[
    Path | None, Parameter(help="New folder for the results; by default one in runs/, named after the time.")
]
_Resume = Annotated[bool, Flag, Parameter(help="Continue the run in --out, exactly as if never interrupted.")]
_Force = Annotated[bool, Flag, Parameter(help="Start over in --out: delete the run that is there.")]


@command(
    "train",
    "train --library norse --surrogate 'htaf(alpha=0.5, beta=8)' --out runs/norse",
    "train --dataset nmnist --data-root data/nmnist --folds 5",
    "train --dataset my_recordings/ --n-time-bins 20",
    "train --model dhn --schedule cosine --anneal hardness",
    "train --recipe runs/norse/config.json --lr 2e-3",
    "train --resume --out runs/norse --epochs 40",
    name="train",
)
def train_command(
    *,
    recipe: Annotated[
        Path | None,
        Parameter(
            help=f"{_FILE}; or a recipe of the literature: dvsgesture, cifar10dvs, ncaltech101, shd. Options override "
            "it."
        ),
    ] = None,
    out: _Out = None,
    resume: _Resume = False,
    force: _Force = False,
    json: Json = False,
    chosen: RunOptions = {},  # noqa: B006
) -> None:
    """Train a spiking network on event-camera recordings, or a binary one on images, and test it.

    Writes config.json, data.json, metrics.jsonl, checkpoint.safetensors, result.json and two pictures to the folder
    --out. Under torchrun all processes train one network: `torchrun --nproc-per-node 4 --no-python htaf-snn train`.
    """
    config = _configured(Run, recipe, out, resume, chosen)

    def trained(config: Run, out: Path, resume: bool) -> dict:
        from .. import training

        run = training.train_folds if config.folds and config.fold is None else training.train
        return run(config, out, resume=resume)

    with run_folder(out, "%Y%m%d-%H%M%S") as folder:
        result = _run("train", trained, config, folder, resume, force)
    if not IS_MAIN:
        return
    if json:
        print(json_format.dumps(result))
        return
    if "fold_accuracy" in result:
        print("folds: " + ", ".join(f"{accuracy:.4f}" for accuracy in result["fold_accuracy"]))
    gap = f", hardening gap {result['hardening_gap']:.4f}" if "hardening_gap" in result else ""
    print(f"test accuracy {result['test_accuracy']:.4f}{gap}, results in {result['out']}")


@command(
    "icbm",
    "icbm --anneal hardness",
    "icbm --dataset fashion-mnist --data-root data/fashion --width 32 --out runs/icbm --json",
    "icbm --dataset my_images/ --max-concepts-per-class 8",
    name="icbm",
)
def icbm_command(
    *,
    recipe: Annotated[Path | None, Parameter(help=f"{_FILE}. Options override it.")] = None,
    out: _Out = None,
    resume: _Resume = False,
    force: _Force = False,
    json: Json = False,
    chosen: ConceptOptions = {},  # noqa: B006
) -> None:
    """Train a concept bottleneck model on images, measure it, and write a page for exploring its concepts.

    Writes atlas.html, codes.npz, result.json and a checkpoint to the folder --out.
    """
    config = _configured(ConceptRun, recipe, out, resume, chosen)

    def trained(config: ConceptRun, out: Path, resume: bool) -> dict:
        from .. import concepts

        return concepts.train(config, out, resume=resume)

    with run_folder(out, "icbm-%Y%m%d-%H%M%S") as folder:
        result = _run("icbm", trained, config, folder, resume, force)
    if not IS_MAIN:
        return
    if json:
        print(json_format.dumps(result))
        return
    gap, dead = result["hardening_gap"], result["dead"]
    print(f"test accuracy {result['test_accuracy']:.4f}, hardening gap {gap:.4f}, {dead} dead concepts")
    if "dense_accuracy" in result:
        print(f"with the sparse head; {result['dense_accuracy']:.4f} with the dense one")
    if (folder / "atlas.html").is_file():
        print(f"atlas: {folder / 'atlas.html'}")


def _configured(kind: type, recipe: Path | None, out: Path | None, resume: bool, chosen: dict[str, Any]) -> Any:
    """Return the configuration: that of the run to resume, or a file's, or the defaults, with the options given."""
    base: dict[str, Any] = {}
    if resume:
        from ..training import read_config

        if out is None:
            raise ValueError("out: expected the folder of the run to resume, got none; add --out DIR")
        if recipe is not None:
            raise ValueError("recipe: expected none with --resume, which takes the run's own configuration")
        base = asdict(read_config(out, kind))
    elif recipe is not None:
        base = settled(read_file(recipe, kind))
    return kind(**(freed(base, chosen) | settled(chosen)))


def _run(name: str, train: Callable, config: Any, out: Path, resume: bool, force: bool) -> dict:
    if resume and force:
        raise ValueError("force: expected either --resume or --force, got both")
    with aside(out) if force and IS_MAIN else nullcontext(), interruptible(out, f"{name} --resume --out"):
        return train(config, out, resume)
