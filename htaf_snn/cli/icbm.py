"""`htaf-snn icbm`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from .. import concepts
from ..training.folder import read_settings
from ._app import IS_MAIN, app, given_options, interruptible, one_line_errors, run_folder
from ._options import (
    AlphaEnd,
    Anneal,
    BatchSize,
    Compiled,
    Device,
    Download,
    Epochs,
    Lr,
    Precision,
    ResultAsJson,
    Resume,
    Schedule,
    Seed,
    ValFraction,
)

_CONCEPTS = concepts.Config()


@app.command(
    name="icbm",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn icbm\n\n"
        "htaf-snn icbm --dataset fashion-mnist --root data/fashion --width 32 --out runs/icbm --json\n\n"
        "htaf-snn icbm --dataset my_images/ --max-concepts-per-class 8    (class folders)"
    ),
)
def icbm_command(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Option(help="digits (offline), mnist, fashion-mnist, cifar10, or a folder of class folders.")
    ] = _CONCEPTS.dataset,
    root: Annotated[Optional[Path], typer.Option(help="Folder of a published data set.")] = None,  # noqa: UP045
    download: Download = False,
    n_concepts: Annotated[int, typer.Option(help="Number of concepts.")] = _CONCEPTS.n_concepts,
    discretiser: Annotated[
        str,
        typer.Option(help="htaf, or for comparison relu, sigmoid_ste, clipped_ste, relaxed_bernoulli, or a surrogate."),
    ] = _CONCEPTS.discretiser,
    width: Annotated[int, typer.Option(help="Channels of the backbone's first stage.")] = _CONCEPTS.width,
    max_concepts_per_class: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Give the model a sparse head, with so many weights for a class at most."),
    ] = None,
    epochs: Epochs = _CONCEPTS.epochs,
    batch_size: BatchSize = _CONCEPTS.batch_size,
    lr: Lr = _CONCEPTS.lr,
    schedule: Schedule = _CONCEPTS.schedule,
    alpha_end: AlphaEnd = _CONCEPTS.alpha_end,
    anneal: Anneal = _CONCEPTS.anneal,
    activity: Annotated[float, typer.Option(help="Weight of the penalty on concepts' rates outside 5 to 95 %.")] = (
        _CONCEPTS.activity
    ),
    decorrelation: Annotated[
        float, typer.Option(help="Weight of the penalty on squared correlations of two concepts.")
    ] = _CONCEPTS.decorrelation,
    entropy: Annotated[float, typer.Option(help="Weight of the penalty on concepts' rates away from one half.")] = (
        _CONCEPTS.entropy
    ),
    precision: Precision = _CONCEPTS.precision,
    compiled: Compiled = False,
    seed: Seed = _CONCEPTS.seed,
    val_fraction: ValFraction = _CONCEPTS.val_fraction,
    device: Device = _CONCEPTS.device,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="New folder for the results; by default one in runs/, named icbm- and the time."),
    ] = None,
    resume: Resume = False,
    as_json: ResultAsJson = False,
) -> None:
    """Train a concept bottleneck model on images, measure it, and write a page to look at its concepts.

    The folder given by --out gets atlas.html, codes.npz, result.json and a checkpoint.
    """
    chosen = given_options(context, concepts.Config)
    with one_line_errors():
        out = run_folder(out, resume, "icbm-%Y%m%d-%H%M%S")
        config = replace(read_settings(out, concepts.Config), **chosen) if resume else concepts.Config(**chosen)
        with interruptible(out, "icbm"):
            result = concepts.run(config, out, resume=resume)
    if not IS_MAIN:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    gap = "" if result["smooth_accuracy"] is None else f", {result['smooth_accuracy']:.4f} with smooth concepts"
    typer.echo(f"test accuracy {result['hard_accuracy']:.4f}{gap}, {result['dead']} dead concepts")
    if "dense_accuracy" in result:
        typer.echo(f"that is with the sparse head; {result['dense_accuracy']:.4f} with the dense one")
    if (out / "atlas.html").is_file():
        typer.echo(f"look at: {out / 'atlas.html'}")
