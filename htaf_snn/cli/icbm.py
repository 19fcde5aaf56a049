"""`htaf-snn icbm`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import concepts
from ..training.folder import read_settings
from . import _options as shared
from ._app import IS_MAIN, app, given_options, interruptible, one_line_errors, run_folder

_DEFAULTS = concepts.Config()


@app.command(
    name="icbm",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn icbm\n\n"
        "htaf-snn icbm --anneal hardness\n\n"
        "htaf-snn icbm --dataset fashion-mnist --root data/fashion --width 32 --out runs/icbm --json\n\n"
        "htaf-snn icbm --dataset my_images/ --max-concepts-per-class 8    (class folders)"
    ),
)
def icbm_command(
    context: typer.Context,
    dataset: Annotated[
        str,
        typer.Option(
            help="digits (offline), mnist, fashion-mnist, cifar10, your own folder of class folders, or FILE.py:NAME."
        ),
    ] = _DEFAULTS.dataset,
    root: Annotated[Path | None, typer.Option(help="Folder of a published data set.")] = None,
    download: shared.Download = False,
    resize: shared.Resize = None,
    n_concepts: Annotated[int, typer.Option(help="Number of concepts.")] = _DEFAULTS.n_concepts,
    surrogate: Annotated[
        str, typer.Option(help='Such as "htaf(beta=8)"; for comparison also relu or relaxed_bernoulli.')
    ] = _DEFAULTS.surrogate,
    width: Annotated[int, typer.Option(help="Channels of the backbone's first stage.")] = _DEFAULTS.width,
    max_concepts_per_class: Annotated[
        int | None, typer.Option(help="Fit a sparse head with at most this many weights per class.")
    ] = None,
    epochs: shared.Epochs = _DEFAULTS.epochs,
    batch_size: shared.BatchSize = _DEFAULTS.batch_size,
    lr: shared.Lr = _DEFAULTS.lr,
    schedule: shared.Schedule = _DEFAULTS.schedule,
    anneal: shared.Anneal = _DEFAULTS.anneal,
    alpha_end: shared.AlphaEnd = _DEFAULTS.alpha_end,
    activity: Annotated[float, typer.Option(help="Weight of the penalty on concept rates outside 5 to 95 %.")] = (
        _DEFAULTS.activity
    ),
    decorrelation: Annotated[
        float, typer.Option(help="Weight of the penalty on squared correlations between concepts.")
    ] = _DEFAULTS.decorrelation,
    entropy: Annotated[float, typer.Option(help="Weight of the penalty on concept rates away from one half.")] = (
        _DEFAULTS.entropy
    ),
    precision: shared.Precision = _DEFAULTS.precision,
    compiled: shared.Compiled = False,
    seed: shared.Seed = _DEFAULTS.seed,
    val_fraction: shared.ValFraction = _DEFAULTS.val_fraction,
    train_fraction: shared.TrainFraction = _DEFAULTS.train_fraction,
    device: shared.Device = _DEFAULTS.device,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the results; by default runs/icbm- and the time.")
    ] = None,
    resume: shared.Resume = False,
    as_json: shared.ResultAsJson = False,
) -> None:
    """Train a concept bottleneck model on images, measure it, and write a page for exploring its concepts.

    Writes atlas.html, codes.npz, result.json and a checkpoint to the folder --out.
    """
    with one_line_errors():
        options = given_options(context, concepts.Config)
        out = run_folder(out, resume, "icbm-%Y%m%d-%H%M%S")
        config = replace(read_settings(out, concepts.Config), **options) if resume else concepts.Config(**options)
        with interruptible(out, "icbm"):
            result = concepts.run(config, out, resume=resume)
    if not IS_MAIN:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    accuracy, gap = result["hard_accuracy"], result["hardening_gap"]
    typer.echo(f"test accuracy {accuracy:.4f}, hardening gap {gap:.4f}, {result['dead']} dead concepts")
    if "dense_accuracy" in result:
        typer.echo(f"with the sparse head; {result['dense_accuracy']:.4f} with the dense one")
    if (out / "atlas.html").is_file():
        typer.echo(f"atlas: {out / 'atlas.html'}")
