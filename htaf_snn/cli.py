"""The command `htaf-snn`."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Optional

import typer

from . import __version__, concepts, integrations, profile, training
from .bench import packed, sequences
from .compare import Settings, Study
from .compare.study import SETTINGS
from .training.folder import read_settings

app = typer.Typer(
    help="HTAF surrogate gradients: train spiking, binary and concept networks, measure and compare surrogates, care "
    "for event-camera data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn profile htaf snntorch.atan\n\n"
        "htaf-snn train --surrogate htaf\n\n"
        "htaf-snn train --help    (every command tells its options and shows examples)"
    ),
)

_DEFAULTS = training.TrainConfig()
# Of the processes that torchrun started, one tells what was found.
_IS_FIRST = os.environ.get("RANK", "0") == "0"


def main() -> None:
    """Entry point of the command."""
    # Norse 1.1 compiles a function with TorchScript when it is imported; the user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit")
    app()


# Arguments of Python functions that messages begin with, and what sets them here.
_OPTIONS = {"name": "--dataset", "root": "--data-root", "deltas": "--delta", "plot": "--plot"}


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad input, a missing file or a missing library is told in one line, with exit code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.secho(f"error: {_as_options(' '.join(str(error).split()))}", err=True, fg="red")
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        typer.secho(f"error: out of memory, take a smaller model or fewer time bins: {error}", err=True, fg="red")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(1) from None


def _as_options(message: str, options: dict[str, str] = _OPTIONS) -> str:
    """The message with an argument of a Python function in front replaced by the option that sets it."""
    name, colon, rest = message.partition(":")
    return f"{options.get(name, name)}{colon}{rest}"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"htaf-snn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _given(context: typer.Context, settings: type) -> dict:
    """The fields of a dataclass of settings that the command line gives."""
    given = {
        field.name: context.params[field.name]
        for field in fields(settings)
        if field.name in context.params and context.get_parameter_source(field.name).name == "COMMANDLINE"
    }
    if "data_root" in given:
        given["data_root"] = str(given["data_root"].expanduser().resolve())
    return given


@contextmanager
def _interruptible(out: Path, command: str) -> Iterator[None]:
    """Ctrl-C within the block tells how to go on, with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        started = (out / "config.json").is_file()
        hint = f"continue with: htaf-snn {command} --resume --out {out}" if started else "nothing was written"
        typer.secho(f"interrupted; {hint}", err=True)
        raise typer.Exit(130) from None


@app.command(
    name="train",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn train\n\n"
        'htaf-snn train --library norse --surrogate "htaf(alpha=0.5, beta=8)" --out runs/norse\n\n'
        "htaf-snn train --dataset nmnist --data-root data/nmnist --folds 5\n\n"
        "htaf-snn train --model dhn --dataset digits --schedule cosine\n\n"
        "htaf-snn train --resume --out runs/norse --epochs 20\n\n"
        "torchrun --nproc-per-node 4 --no-python htaf-snn train    (four processes train one network)"
    ),
)
def train_command(
    context: typer.Context,
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="One of `htaf-snn datasets list`, for models of images digits, mnist, fashion-mnist or cifar10.",
            show_default="saccade-digits or, for images, digits",
        ),
    ] = None,
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of the data set.")] = None,  # noqa: UP045
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")] = False,
    library: Annotated[
        str, typer.Option(help="Whose neurons: snntorch, norse, or fused, which equals snntorch and is faster.")
    ] = _DEFAULTS.library,
    surrogate: Annotated[
        str, typer.Option(help="""Such as "htaf(beta=8)", snntorch.atan, or "htaf(normalized=True, mode='smooth')".""")
    ] = _DEFAULTS.surrogate,
    model: Annotated[
        str,
        typer.Option(help="Spiking: mlp, cnn; of images: bnn (binary), dhn (deep Heaviside), relu (their float twin)."),
    ] = _DEFAULTS.model,
    estimator: Annotated[str, typer.Option(help="Gradient of the bnn's weights: a surrogate or magnitude_aware.")] = (
        _DEFAULTS.estimator
    ),
    hidden: Annotated[
        str, typer.Option(help="Neurons, or channels of the cnn, of each hidden layer, comma-separated.")
    ] = ",".join(map(str, _DEFAULTS.hidden)),
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = _DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = _DEFAULTS.batch_size,
    time_bins: Annotated[int, typer.Option(help="Frames, that is time steps, in a recording.")] = _DEFAULTS.time_bins,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = _DEFAULTS.lr,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant or cosine.")] = _DEFAULTS.schedule,
    alpha_end: Annotated[
        float, typer.Option(help="What the alpha of smooth activations (bnn, dhn) is raised to.")
    ] = _DEFAULTS.alpha_end,
    anneal: Annotated[str, typer.Option(help="How alpha is raised: exponential, cosine or stepwise.")] = (
        _DEFAULTS.anneal
    ),
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for mixed precision.")] = _DEFAULTS.precision,
    compiled: Annotated[bool, typer.Option("--compiled", help="Train through torch.compile.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights, order and data division.")] = _DEFAULTS.seed,
    val_fraction: Annotated[
        float, typer.Option(help="Part of the training data kept for validation.")
    ] = _DEFAULTS.val_fraction,
    folds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Pool all recordings, train and test on each of so many stratified folds."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = _DEFAULTS.device,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="New folder for the results; by default one in runs/, named by the time."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, exactly as if never interrupted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what result.json holds, as a line of JSON.")] = False,
) -> None:
    """Train a spiking network on event-camera recordings, or a binary one on images, and test it.

    The folder given by --out gets config.json, metrics.jsonl, checkpoint.safetensors and result.json.
    """
    given = _given(context, training.TrainConfig)
    with _one_line_errors():
        if "hidden" in given:
            given["hidden"] = _sizes(given["hidden"])
        if resume and out is None:
            raise ValueError("out: expected the folder of the run to resume, got none; add --out DIR")
        out = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
        config = replace(training.read_config(out), **given) if resume else training.TrainConfig(**given)
        run = training.train_folds if config.folds and config.fold is None else training.train
        with _interruptible(out, "train"):
            result = run(config, out, resume=resume)
    if not _IS_FIRST:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    if "fold_accuracy" in result:
        typer.echo("folds: " + ", ".join(f"{accuracy:.4f}" for accuracy in result["fold_accuracy"]))
    gap = f", {result['smooth_test_accuracy']:.4f} with smooth steps" if "hardening_gap" in result else ""
    typer.echo(f"test accuracy {result['test_accuracy']:.4f}{gap}, results in {result['out']}")


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"hidden: expected integers separated by commas, such as 256,256, got {text!r}") from None


@app.command(
    name="profile",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn profile htaf snntorch.atan norse.super --plot surrogates.png\n\n"
        'htaf-snn profile "htaf(alpha=0.5, beta=8)" --delta 0.5 --json'
    ),
)
def profile_command(
    surrogates: Annotated[list[str], typer.Argument(help='Such as htaf, "htaf(beta=8)", snntorch.atan, norse.super.')],
    plot: Annotated[Optional[Path], typer.Option(help="Draw the gradients into a .png, .svg or .pdf file.")] = None,  # noqa: UP045
    delta: Annotated[list[float], typer.Option(help="Half width of an interval for the mass; repeatable.")] = list(  # noqa: B006
        profile.DELTAS
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a surrogate.")] = False,
) -> None:
    """Measure surrogates: peak, width at half maximum, gradient mass within ±delta and in all, tail."""
    with _one_line_errors():
        found = {spec: integrations.parse(spec) for spec in surrogates}
        profiles = [profile.measure(step, spec, delta) for spec, step in found.items()]
        if plot is not None:
            profile.plot(found, plot)
    if as_json:
        typer.echo(json.dumps([p.as_dict() for p in profiles], allow_nan=False))
    else:
        typer.echo(profile.table(profiles))


_CONCEPTS = concepts.Config()


@app.command(
    name="icbm",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn icbm\n\n"
        "htaf-snn icbm --dataset fashion-mnist --data-root data/fashion --width 32 --out runs/icbm --json\n\n"
        "htaf-snn icbm --dataset my_images/ --max-concepts-per-class 8    (class folders)"
    ),
)
def icbm_command(
    context: typer.Context,
    dataset: Annotated[
        str, typer.Option(help="digits (offline), mnist, fashion-mnist, cifar10, or a folder of class folders.")
    ] = _CONCEPTS.dataset,
    data_root: Annotated[Optional[Path], typer.Option(help="Folder of a published data set.")] = None,  # noqa: UP045
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")] = False,
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
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = _CONCEPTS.epochs,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = _CONCEPTS.batch_size,
    lr: Annotated[float, typer.Option(help="Learning rate of Adam.")] = _CONCEPTS.lr,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant or cosine.")] = _CONCEPTS.schedule,
    alpha_end: Annotated[
        float, typer.Option(help="What the alpha of smooth concepts is raised to while training.")
    ] = _CONCEPTS.alpha_end,
    anneal: Annotated[str, typer.Option(help="How alpha is raised: exponential, cosine or stepwise.")] = (
        _CONCEPTS.anneal
    ),
    activity: Annotated[float, typer.Option(help="Weight of the penalty on concepts' rates outside 5 to 95 %.")] = (
        _CONCEPTS.activity
    ),
    decorrelation: Annotated[
        float, typer.Option(help="Weight of the penalty on squared correlations of two concepts.")
    ] = _CONCEPTS.decorrelation,
    entropy: Annotated[float, typer.Option(help="Weight of the penalty on concepts' rates away from one half.")] = (
        _CONCEPTS.entropy
    ),
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for mixed precision.")] = _CONCEPTS.precision,
    compiled: Annotated[bool, typer.Option("--compiled", help="Train through torch.compile.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights, order and data division.")] = _CONCEPTS.seed,
    val_fraction: Annotated[float, typer.Option(help="Part of the training images kept for validation.")] = (
        _CONCEPTS.val_fraction
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = _CONCEPTS.device,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="New folder for the results; by default one in runs/, named icbm- and the time."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out, exactly as if never interrupted.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what result.json holds, as a line of JSON.")] = False,
) -> None:
    """Train a concept bottleneck model on images, measure it, and write a page to look at its concepts.

    The folder given by --out gets atlas.html, codes.npz, result.json and a checkpoint.
    """
    given = _given(context, concepts.Config)
    with _one_line_errors():
        if resume and out is None:
            raise ValueError("out: expected the folder of the run to resume, got none; add --out DIR")
        out = out or Path("runs") / datetime.now().strftime("icbm-%Y%m%d-%H%M%S")
        config = replace(read_settings(out, concepts.Config), **given) if resume else concepts.Config(**given)
        with _interruptible(out, "icbm"):
            result = concepts.run(config, out, resume=resume)
    if not _IS_FIRST:
        return
    if as_json:
        typer.echo(json.dumps(result))
        return
    gap = "" if result["smooth_accuracy"] is None else f", {result['smooth_accuracy']:.4f} with smooth concepts"
    typer.echo(f"test accuracy {result['hard_accuracy']:.4f}{gap}, {result['dead']} dead concepts")
    if "sparse_accuracy" in result:
        typer.echo(f"with the sparse head {result['sparse_accuracy']:.4f}")
    typer.echo(f"look at: {out / 'atlas.html'}")


_STUDY = Settings()
_SPLIT = {"dataset": str, "surrogates": str, "slopes": float, "depths": int, "lrs": float}


@app.command(
    name="compare",
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn compare\n\n"
        "htaf-snn compare --surrogates htaf,snntorch.atan,norse.super --slopes 0.5,1,2 --seeds 5 --out runs/first\n\n"
        "htaf-snn compare --model dhn --depths 2,8 --out runs/deep    (estimators of deep Heaviside networks)\n\n"
        "htaf-snn compare --out runs/first    (continues it)\n\n"
        "htaf-snn compare --out runs/first --storage postgresql+psycopg://host/name    (on several machines)\n\n"
        "torchrun --nproc-per-node 4 --no-python htaf-snn compare --out runs/large    (all GPUs for each trial)"
    ),
)
def compare_command(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Spiking: mlp; of images: bnn (binary), dhn (deep Heaviside).")
    ] = _STUDY.model,
    dataset: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help="One data set of `htaf-snn train` or several, comma-separated.",
            show_default="saccade-digits or, for images, digits",
        ),
    ] = None,
    data_root: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder of the data set; of several, a folder that has one for each, by name."),
    ] = None,
    surrogates: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help='Comma-separated, as "htaf(beta=8),snntorch.atan"; the first is the baseline.',
            show_default=f"{','.join(_STUDY.surrogates)}; for images other ones",
        ),
    ] = None,
    slopes: Annotated[
        str, typer.Option(help="Comma-separated factors of the surrogates' argument; a larger one makes them narrower.")
    ] = "1",
    depths: Annotated[str, typer.Option(help="Comma-separated numbers of hidden layers.")] = "2",
    lrs: Annotated[str, typer.Option(help="Comma-separated learning rates of Adam.")] = "1e-3",
    seeds: Annotated[
        int, typer.Option(help="How many, from 0 on; from fewer than three no claim is made.")
    ] = _STUDY.seeds,
    match: Annotated[
        str, typer.Option(help="What of all surrogates is made equal: none, peak, half_width or area.")
    ] = _STUDY.match,
    reference: Annotated[str, typer.Option(help="The surrogate that the others are matched to.")] = _STUDY.reference,
    width: Annotated[int, typer.Option(help="Neurons of a hidden layer.")] = _STUDY.width,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = _STUDY.epochs,
    batch_size: Annotated[int, typer.Option(help="Samples in a batch.")] = _STUDY.batch_size,
    time_bins: Annotated[int, typer.Option(help="Frames, that is time steps, in a recording.")] = _STUDY.time_bins,
    estimator: Annotated[str, typer.Option(help="Gradient of the bnn's weights: a surrogate or magnitude_aware.")] = (
        _STUDY.estimator
    ),
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant or cosine.")] = _STUDY.schedule,
    alpha_end: Annotated[
        float, typer.Option(help="What the alpha of smooth activations (bnn, dhn) is raised to.")
    ] = _STUDY.alpha_end,
    anneal: Annotated[str, typer.Option(help="How alpha is raised: exponential, cosine or stepwise.")] = _STUDY.anneal,
    folds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Pool all recordings; seed s tests on fold s of so many stratified folds."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; workers share a GPU.")] = _STUDY.device,
    workers: Annotated[int, typer.Option(help="Processes on this machine, a thread each.")] = 2,
    stack_seeds: Annotated[
        bool, typer.Option("--stack-seeds", help="Train the seeds of a configuration as one network; for GPUs.")
    ] = False,
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="URL of a database that machines share; by default a file in the folder."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the study; one that is there is continued.")] = Path(
        "runs/compare"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, an object a row.")] = False,
) -> None:
    """Compare surrogates over seeds, with statistics and a report (report.html in --out).

    Finished trials are never repeated: after an interruption the same command, or --out alone, goes on.
    """
    given = _given(context, Settings)
    with _one_line_errors():
        for name, kind in _SPLIT.items():
            if name in given:
                given[name] = _values(name, given[name], kind)
        study = Study(out, storage=storage, **given)
        counts = study.counts()
        if counts["finished"] or counts["failed"]:
            told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
            typer.secho(f"continuing the study in {out}: {told}; --out DIR begins another", err=True)
        try:
            study.run(workers=workers, stack_seeds=stack_seeds)
        except KeyboardInterrupt:
            typer.secho(f"interrupted; continue with: htaf-snn compare --out {out}", err=True)
            raise typer.Exit(130) from None
        if _IS_FIRST:
            _tell(study, as_json)


def _values(name: str, text: str, kind: type) -> tuple:
    """The parts of a comma-separated option; commas in parentheses belong to a surrogate's parameters."""
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
        Optional[str],  # noqa: UP045
        typer.Option(help="URL of the study's database, if it is not in the folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON, an object a row.")] = False,
) -> None:
    """Write a study's report from the trials that are finished: report.html, table.csv, .md and .tex, results.json."""
    with _one_line_errors():
        if not (out / SETTINGS).is_file():
            raise FileNotFoundError(f"{out}: expected the folder of a study, with {SETTINGS}")
        _tell(Study(out, storage=storage), as_json)


def _tell(study: Study, as_json: bool) -> None:
    page, rows = study.report(), study.table()
    if as_json:
        typer.echo(json.dumps(rows, allow_nan=False))
        return
    for row in rows:
        setting = f"{row['dataset']}, slope {row['slope']:g}, depth {row['depth']}, lr {row['lr']:g}"
        interval = "" if row["t_low"] is None else f" [{row['t_low']:.3f}, {row['t_high']:.3f}]"
        typer.echo(f"{row['surrogate']:<34} {setting:<46}{row['mean']:.4f}{interval}  {row['claim']}")
    for failure in study.failures():
        failed = f"{failure['config']['surrogate']}, seed {failure['config']['seed']}: {failure['error']}"
        typer.secho(f"failed: {failed}", err=True)
    typer.echo(f"report: {page}")


_datasets = typer.Typer(
    help="Event-camera data sets: what there is, downloads, packed caches, checks.",
    no_args_is_help=True,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn datasets info dvsgesture\n\n"
        "htaf-snn datasets download nmnist --data-root data\n\n"
        "htaf-snn datasets cache saccade-digits --time-bins 25"
    ),
)
app.add_typer(_datasets, name="datasets")
_Name = Annotated[str, typer.Argument(help="A name that `htaf-snn datasets list` shows.")]
_Root = Annotated[Optional[Path], typer.Option("--data-root", help="Folder of the data; default: the user's cache.")]  # noqa: UP045
_Json = Annotated[bool, typer.Option("--json", help="Print the same as JSON.")]


@contextmanager
def _datasets_errors() -> Iterator[None]:
    """Like `_one_line_errors`, but the name is an argument, and where to place files by hand is told line by line."""
    with _one_line_errors():
        try:
            yield
        except (OSError, ValueError) as error:
            typer.secho(f"error: {_as_options(str(error), _OPTIONS | {'name': 'NAME'})}", err=True, fg="red")
            raise typer.Exit(2) from None


def _examples(*lines: str) -> str:
    return "\n\n".join(["[bold]Examples[/bold]", *(f"htaf-snn datasets {line}" for line in lines)])


@_datasets.command("list", epilog=_examples("list", "list --json"))
def datasets_list(as_json: _Json = False) -> None:
    """List the data sets: name, title, sensor, classes and licence."""
    import neuromorphic_datasets as nd

    infos = [nd.info(name) for name in nd.names()]
    if as_json:
        typer.echo(json.dumps([_info_dict(info) for info in infos]))
        return
    for info in infos:
        sensor = " x ".join(map(str, info.sensor_size))
        typer.echo(f"{info.name:<16}{info.title:<32}{sensor:<16}{info.n_classes:>4} classes   {info.licence}")


@_datasets.command("info", epilog=_examples("info dvsgesture", "info nmnist --json"))
def datasets_info(name: _Name, as_json: _Json = False) -> None:
    """Tell what a data set is: sensor, classes, splits, files and hosts, licence, citation."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        values = _info_dict(nd.info(name))
    if as_json:
        typer.echo(json.dumps(values))
        return
    for field, value in values.items():
        if field == "files":
            value = "\n".join(f"{file['name']}  MD5 {file['md5'] or 'not fixed'}" for file in value)
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        lines = str("unknown" if value is None else value).splitlines() or ["-"]
        typer.echo(f"{field:<12}" + f"\n{'':<12}".join(lines))


def _info_dict(info) -> dict:
    kept = (
        "name",
        "title",
        "sensor_size",
        "n_classes",
        "classes",
        "splits",
        "bytes",
        "licence",
        "citation",
        "homepage",
        "hosts",
    )
    return {field: getattr(info, field) for field in kept} | {
        "files": [asdict(file) for file in info.files],
        "note": info.note,
    }


@_datasets.command("download", epilog=_examples("download nmnist", "download nmnist --data-root data"))
def datasets_download(name: _Name, data_root: _Root = None, as_json: _Json = False) -> None:
    """Fetch and unpack a data set; what is there already is not fetched again."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        fetched = str(nd.download(name, root=data_root)) if nd.info(name).files else None
    told = fetched or f"{name} is simulated on first use, there is nothing to fetch"
    typer.echo(json.dumps(fetched) if as_json else told)


@_datasets.command(
    "cache", epilog=_examples("cache saccade-digits --time-bins 25", "cache nmnist --data-root data --skip-damaged")
)
def datasets_cache(
    name: _Name,
    data_root: _Root = None,
    time_bins: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Frames of a recording that will be asked for; by default events are packed."),
    ] = None,
    skip: Annotated[bool, typer.Option("--skip-damaged", help="Leave out recordings that cannot be read.")] = False,
    as_json: _Json = False,
) -> None:
    """Read all recordings of a data set into packed files, as the first training would."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        paths = nd.cache(name, root=data_root, time_bins=time_bins, on_error="skip" if skip else "raise")
    sizes = {str(path): path.stat().st_size for path in paths}
    lines = [f"{path}  {size / 1e6:.1f} MB" for path, size in sizes.items()]
    typer.echo(json.dumps(sizes) if as_json else "\n".join(lines))


@_datasets.command("verify", epilog=_examples("verify nmnist", "verify nmnist --data-root data --json"))
def datasets_verify(name: _Name, data_root: _Root = None, as_json: _Json = False) -> None:
    """Check a data set's files against their checksums, or read every recording; exit code 1 if something is wrong."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        wrong = nd.verify(name, root=data_root)
    typer.echo(json.dumps(wrong) if as_json else "\n".join(wrong) or f"{name}: nothing wrong")
    raise typer.Exit(1 if wrong else 0)


@_datasets.command("clear", epilog=_examples("clear nmnist", "clear nmnist --data-root data"))
def datasets_clear(name: _Name, data_root: _Root = None, as_json: _Json = False) -> None:
    """Delete a data set's packed files, and what was downloaded of it; a copy made by hand stays."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        deleted = [str(path) for path in nd.clear(name, root=data_root)]
    told = "\n".join(f"deleted {path}" for path in deleted) or f"{name}: nothing to delete"
    typer.echo(json.dumps(deleted) if as_json else told)


@app.command(
    name="bench",
    help=(
        "Time this package's kernels beside other libraries', each in its own process, after a check of their "
        "results.\n\n"
        "lif, htaf and scaling: forward and backward pass of a float32 tensor (steps, batch, features), medians in ms; "
        "saved bytes an element; the rate at which our kernels move the bytes they have to, as a part of a large "
        'copy\'s. Libraries that are not installed are listed as such; pip install "htaf-snn\\[bench]" brings them.\n\n'
        "packed: forward passes of layers and networks in bits beside floating point, inputs in bits where they are so "
        "inside a network."
    ),
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn bench lif\n\n"
        "htaf-snn bench scaling --steps 200\n\n"
        "htaf-snn bench packed\n\n"
        "htaf-snn bench lif --steps 128 --device cuda --json > results.json"
    ),
)
def bench_command(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            help="lif: neurons over a sequence; htaf: the smooth step; scaling: hnn.Leaky over sizes; "
            "packed: layers and networks in bits."
        ),
    ],
    steps: Annotated[int, typer.Option(help="Time steps.")] = 50,
    batch: Annotated[int, typer.Option(help="Sequences in a batch.")] = 128,
    features: Annotated[int, typer.Option(help="Neurons.")] = 1000,
    repeats: Annotated[int, typer.Option(help="Timed repetitions.")] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    peer: Annotated[Optional[list[str]], typer.Option(help="Time only this one; repeatable.")] = None,  # noqa: UP045
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with versions and machine.")] = False,
) -> None:
    # The text is in the decorator: Rich would take its lines as they are, and [bench] for markup.
    with _one_line_errors():
        if what not in (*sequences.BENCHMARKS, "scaling", "packed"):
            raise ValueError(f"what: expected {', '.join(sequences.BENCHMARKS)}, scaling or packed, got {what!r}")
        if device not in ("cpu", "cuda"):
            raise ValueError(f"device: expected cpu or cuda, got {device!r}")
        if peer and what in ("scaling", "packed"):
            raise ValueError(f"peer: expected none for {what}")
        problem = sequences.Problem(steps, batch, features, device, repeats)
        if what == "packed":
            for name in ("steps", "batch", "features"):
                if context.get_parameter_source(name).name == "COMMANDLINE":
                    raise ValueError(f"{name}: expected none for packed, which has sizes of its own")
            report, table = packed.run(device, repeats), packed.table
        elif what == "scaling":
            report, table = sequences.scaling(problem), sequences.scaling_table
        else:
            known = sequences.BENCHMARKS[what]
            unknown = set(peer or ()) - set(known)
            if unknown:
                raise ValueError(f"peer: expected one of {'; '.join(known)}, got {', '.join(sorted(unknown))}")
            report, table = sequences.run(problem, peer or list(known)), sequences.table
    typer.echo(json.dumps(report, indent=2) if as_json else table(report))


if __name__ == "__main__":
    sys.exit(main())
