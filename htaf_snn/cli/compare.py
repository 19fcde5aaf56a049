"""`htaf-snn compare` and `htaf-snn report`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from ..compare import Settings, Study
from ..compare.selection import ARM, label, pick
from ..compare.study import SETTINGS
from . import _options as shared
from ._app import IS_MAIN, app, given_options, one_line_errors

_STUDY = Settings()
_SPLIT = {
    "dataset": str,
    "surrogates": str,
    "anneal": str,
    "identity": float,
    "slopes": float,
    "depths": int,
    "lrs": float,
}


@app.command(
    name="compare",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn compare\n\n"
        "htaf-snn compare --surrogates htaf,snntorch.atan,norse.super --slopes 0.5,1,2 --seeds 5 --out runs/first\n\n"
        "htaf-snn compare --model dhn --surrogates htaf,relu --anneal none,hardness --depths 2,8 --lrs 5e-4,2e-3 "
        "--select val --out runs/deep    (deep Heaviside networks, each arm at its own learning rate)\n\n"
        "htaf-snn compare --out runs/first    (continues the study)\n\n"
        "htaf-snn compare --out runs/first --storage postgresql+psycopg://host/name    (on several machines)\n\n"
        "torchrun --nproc-per-node 4 --no-python htaf-snn compare --out runs/large    (all GPUs for each trial)"
    ),
)
def compare_command(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Spiking: mlp; for images: bnn (binary) or dhn (deep Heaviside).")
    ] = _STUDY.model,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated data sets, as in `htaf-snn train`.",
            show_default="saccade-digits or, for images, digits",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the data set; with several, a folder with one subfolder per data set, by name."),
    ] = None,
    resize: shared.Resize = None,
    surrogates: Annotated[
        str | None,
        typer.Option(
            help='Comma-separated, such as "htaf(beta=8),snntorch.atan"; the first is the baseline. For images also '
            "relu, the floating-point twin.",
            show_default=f"{','.join(_STUDY.surrogates)}; others for images",
        ),
    ] = None,
    slopes: Annotated[
        str, typer.Option(help="Comma-separated factors of the surrogates' argument; a larger one makes them narrower.")
    ] = "1",
    depths: Annotated[str, typer.Option(help="Comma-separated numbers of hidden layers.")] = "2",
    lrs: Annotated[str, typer.Option(help="Comma-separated learning rates of Adam.")] = "1e-3",
    seeds: Annotated[int, typer.Option(help="Number of seeds; at least 3 for a claim.")] = _STUDY.seeds,
    select: Annotated[
        str,
        typer.Option(help="val: compare each arm at the slope and learning rate that validation chose; or none."),
    ] = _STUDY.select,
    select_seeds: Annotated[
        int | None,
        typer.Option(
            help="Seeds that select; the others are trained at the chosen slope and lr only.", show_default="all"
        ),
    ] = None,
    match: Annotated[
        str, typer.Option(help="Quantity made equal for all surrogates: none, peak, half_width or area.")
    ] = _STUDY.match,
    reference: Annotated[
        str, typer.Option(help="Surrogate that the others are matched to and whose gradients theirs are compared with.")
    ] = _STUDY.reference,
    width: Annotated[int, typer.Option(help="Neurons per hidden layer.")] = _STUDY.width,
    epochs: shared.Epochs = _STUDY.epochs,
    batch_size: shared.BatchSize = _STUDY.batch_size,
    n_time_bins: shared.NTimeBins = _STUDY.n_time_bins,
    weight_surrogate: shared.WeightSurrogate = _STUDY.weight_surrogate,
    norm: shared.Norm = _STUDY.norm,
    identity: Annotated[
        str, typer.Option(help="Comma-separated multiples of the identity in the weights at the start.")
    ] = "0",
    schedule: shared.Schedule = _STUDY.schedule,
    anneal: Annotated[
        str,
        typer.Option(
            help="Comma-separated: none, hardness (from smooth to hard), alpha (smooth, and steeper up to --alpha-end)."
        ),
    ] = "none",
    alpha_end: shared.AlphaEnd = _STUDY.alpha_end,
    train_fraction: shared.TrainFraction = _STUDY.train_fraction,
    folds: Annotated[
        int | None, typer.Option(help="Pool all recordings; seed s tests on fold s of this many stratified folds.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; workers share a GPU.")] = _STUDY.device,
    workers: Annotated[int, typer.Option(help="Worker processes on this machine, with one thread each.")] = 2,
    stack_seeds: Annotated[
        bool, typer.Option("--stack-seeds", help="Train the seeds of a configuration as one network; for GPUs.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database shared by several machines; by default a file in the folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study; an existing study is continued.")] = Path(
        "runs/compare"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, one object per row.")] = False,
) -> None:
    """Compare surrogates over seeds, with statistics and a report (report.html in --out).

    Finished trials are never repeated: after an interruption the same command, or --out alone, continues the study. The
    same command with more --seeds extends it.
    """
    with one_line_errors():
        chosen = given_options(context, Settings)
        for name, kind in _SPLIT.items():
            if name in chosen:
                chosen[name] = _values(name, chosen[name], kind)
        study = Study(out, storage=storage, **chosen)
        counts = study.counts()
        if IS_MAIN and (counts["finished"] or counts["failed"]):
            progress = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
            typer.secho(f"continuing the study in {out}: {progress}; --out DIR starts another", err=True)
        try:
            study.run(workers=workers, stack_seeds=stack_seeds)
        except KeyboardInterrupt:
            typer.secho(f"interrupted; continue with: htaf-snn compare --out {out}", err=True)
            raise typer.Exit(130) from None
        if IS_MAIN:
            _report(study, as_json)


def _values(name: str, text: str, kind: type) -> tuple:
    """Split a comma-separated option; commas in parentheses belong to a surrogate's parameters."""
    try:
        return tuple(kind(part.strip()) for part in re.split(r",(?![^(]*\))", text))
    except ValueError:
        raise ValueError(f"{name}: expected numbers separated by commas, got {text!r}") from None


@app.command(
    name="report",
    epilog="[bold]Examples[/bold]\n\nhtaf-snn report runs/first\n\nhtaf-snn report runs/first --json > table.json",
)
def report_command(
    out: Annotated[Path, typer.Argument(help="Folder of a study of `htaf-snn compare`.")],
    storage: Annotated[
        str | None, typer.Option(help="URL of the study's database, if it is not in the folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, one object per row.")] = False,
) -> None:
    """Write the report of a study's finished trials: report.html, table.csv, .md and .tex, results.json."""
    with one_line_errors():
        if not (out / SETTINGS).is_file():
            raise FileNotFoundError(f"{out}: expected the folder of a study, with {SETTINGS}")
        _report(Study(out, storage=storage), as_json)


def _report(study: Study, as_json: bool) -> None:
    page, rows = study.report(), study.table()
    if as_json:
        typer.echo(json.dumps(rows, allow_nan=False))
        return
    for row in rows:
        setting = f"{row['dataset']}, slope {row['slope']:g}, depth {row['depth']}, lr {row['lr']:g}"
        interval = "" if row["t_low"] is None else f" [{row['t_low']:.3f}, {row['t_high']:.3f}]"
        typer.echo(f"{label(pick(row, ARM)):<34} {setting:<46}{row['mean']:.4f}{interval}  {row['claim']}")
    for failure in study.failures():
        failed = f"{failure['config']['surrogate']}, seed {failure['config']['seed']}: {failure['error']}"
        typer.secho(f"failed: {failed}", err=True)
    typer.echo(f"report: {page}")
