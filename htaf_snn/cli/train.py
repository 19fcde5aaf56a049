"""`htaf-snn train`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from .. import training
from . import _options as shared
from ._app import IS_MAIN, app, given_options, interruptible, one_line_errors, run_folder

_DEFAULTS = training.TrainConfig()


@app.command(
    name="train",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn train\n\n"
        'htaf-snn train --library norse --surrogate "htaf(alpha=0.5, beta=8)" --out runs/norse\n\n'
        "htaf-snn train --dataset nmnist --root data/nmnist --folds 5\n\n"
        "htaf-snn train --dataset my_recordings/ --n-time-bins 20\n\n"
        "htaf-snn train --model dhn --schedule cosine --anneal hardness\n\n"
        "htaf-snn train --resume --out runs/norse --epochs 20\n\n"
        "torchrun --nproc-per-node 4 --no-python htaf-snn train    (four processes train one network)"
    ),
)
def train_command(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Option(
            help=(
                "One of `htaf-snn datasets list`; for models of images digits, mnist, fashion-mnist or cifar10; or a "
                "folder of your own with class folders; or FILE.py:NAME of your own data set."
            ),
            show_default="saccade-digits or, for images, digits",
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    download: shared.Download = False,
    resize: shared.Resize = None,
    library: Annotated[
        str, typer.Option(help="Neuron implementation: snntorch, norse or fused (same results as snntorch, faster).")
    ] = _DEFAULTS.library,
    surrogate: Annotated[str, typer.Option(help='For example "htaf(beta=8)" or snntorch.atan.')] = _DEFAULTS.surrogate,
    model: Annotated[
        str,
        typer.Option(
            help="Spiking: mlp, cnn; of images: bnn (binary), dhn (deep Heaviside), relu (their floating-point twin)."
        ),
    ] = _DEFAULTS.model,
    weight_surrogate: shared.WeightSurrogate = _DEFAULTS.weight_surrogate,
    norm: shared.Norm = _DEFAULTS.norm,
    identity: shared.Identity = _DEFAULTS.identity,
    hidden: Annotated[
        str, typer.Option(help="Neurons, or channels of the cnn, per hidden layer, comma-separated.")
    ] = ",".join(map(str, _DEFAULTS.hidden)),
    epochs: shared.Epochs = _DEFAULTS.epochs,
    batch_size: shared.BatchSize = _DEFAULTS.batch_size,
    n_time_bins: shared.NTimeBins = _DEFAULTS.n_time_bins,
    lr: shared.Lr = _DEFAULTS.lr,
    schedule: shared.Schedule = _DEFAULTS.schedule,
    anneal: shared.Anneal = _DEFAULTS.anneal,
    alpha_end: shared.AlphaEnd = _DEFAULTS.alpha_end,
    precision: shared.Precision = _DEFAULTS.precision,
    compiled: shared.Compiled = False,
    seed: shared.Seed = _DEFAULTS.seed,
    val_fraction: shared.ValFraction = _DEFAULTS.val_fraction,
    train_fraction: shared.TrainFraction = _DEFAULTS.train_fraction,
    folds: Annotated[
        int | None, typer.Option(help="Pool all recordings; train and test on each of this many stratified folds.")
    ] = None,
    device: shared.Device = _DEFAULTS.device,
    out: Annotated[
        Path | None, typer.Option(help="New folder for the results; by default one in runs/, named after the time.")
    ] = None,
    resume: shared.Resume = False,
    as_json: shared.ResultAsJson = False,
) -> None:
    """Train a spiking network on event-camera recordings, or a binary one on images, and test it.

    Writes config.json, metrics.jsonl, checkpoint.safetensors and result.json to the folder --out.
    """
    with one_line_errors():
        chosen = given_options(context, training.TrainConfig)
        if "hidden" in chosen:
            chosen["hidden"] = _sizes(chosen["hidden"])
        out = run_folder(out, resume, "%Y%m%d-%H%M%S")
        config = replace(training.read_config(out), **chosen) if resume else training.TrainConfig(**chosen)
        run = training.train_folds if config.folds and config.fold is None else training.train
        with interruptible(out, "train"):
            result = run(config, out, resume=resume)
    if not IS_MAIN:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    if "fold_accuracy" in result:
        typer.echo("folds: " + ", ".join(f"{accuracy:.4f}" for accuracy in result["fold_accuracy"]))
    gap = f", hardening gap {result['hardening_gap']:.4f}" if "hardening_gap" in result else ""
    typer.echo(f"test accuracy {result['test_accuracy']:.4f}{gap}, results in {result['out']}")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"hidden: expected integers separated by commas, such as 256,256, got {text!r}") from None
