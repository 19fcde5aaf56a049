"""Parts shared by the commands: the application, one-line errors, options of the command line, run folders."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from .._memory import keep_freed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

app = typer.Typer(
    help="HTAF surrogate gradients: train spiking, binary and concept networks, measure and compare surrogates, manage "
    "event-camera data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn profile htaf snntorch.atan\n\n"
        "htaf-snn train --surrogate htaf\n\n"
        "htaf-snn train --help    (options and examples of a command)"
    ),
)

# Of the processes that torchrun started, the main one alone prints results.
IS_MAIN = os.environ.get("RANK", "0") == "0"
# Arguments of Python functions that messages begin with, and the options that set them.
OPTIONS = {"name": "--dataset", "dataset": "--dataset", "root": "--root", "deltas": "--delta", "plot": "--plot"}


def main() -> None:
    """Entry point of the command."""
    # Norse 1.1 compiles a function with TorchScript on import; users cannot do anything about it.
    warnings.filterwarnings("ignore", message="`torch.jit")
    keep_freed()
    app()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report bad input, a missing file or a missing library in one line, with exit code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.secho(f"error: {as_options(' '.join(str(error).split()))}", err=True, fg="red")
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        typer.secho(f"error: out of memory, try a smaller model or fewer time bins: {error}", err=True, fg="red")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(1) from None


def as_options(message: str, options: dict[str, str] = OPTIONS) -> str:
    """Return the message with a function's argument at its beginning replaced by the option that sets it."""
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


def given_options(context: typer.Context, settings: type[DataclassInstance]) -> dict[str, Any]:
    """Return the fields of a dataclass of settings that the command line sets."""
    options = {}
    for field in fields(settings):
        source = context.get_parameter_source(field.name)
        if source is not None and source.name == "COMMANDLINE":
            options[field.name] = context.params[field.name]
    if "root" in options:
        options["root"] = str(options["root"].expanduser().resolve())
    if "dataset" in options:
        whole = _source(options["dataset"])
        options["dataset"] = whole if Path(whole).is_dir() else ",".join(map(_source, whole.split(",")))
    if "resize" in options:
        options["resize"] = _sides(options["resize"])
    return options


def _source(text: str) -> str:
    """Return a folder or FILE.py:NAME with its whole path, so that a run can be resumed elsewhere; others as given."""
    import neuromorphic_datasets as nd

    text = text.strip()
    if text in (*nd.names(), *nd.images.names()):
        return text
    if Path(text).expanduser().is_dir():
        return str(Path(text).expanduser().resolve())
    path, _, name = text.rpartition(":")
    return f"{Path(path).expanduser().resolve()}:{name}" if path.endswith(".py") else text


def _sides(text: str) -> int | tuple[int, ...]:
    try:
        sides = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"resize: expected a side or HEIGHT,WIDTH, got {text!r}") from None
    return sides[0] if len(sides) == 1 else sides


def run_folder(out: Path | None, resume: bool, name: str) -> Path:
    """Return the folder of a run: `out`, or a new one in runs/ whose name is the time in the format of `strftime`."""
    if resume and out is None:
        raise ValueError("out: expected the folder of the run to resume, got none; add --out DIR")
    return out or Path("runs") / datetime.now().strftime(name)


@contextmanager
def interruptible(out: Path, command: str) -> Iterator[None]:
    """On Ctrl-C within the block, print how to continue and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        started = (out / "config.json").is_file()
        hint = f"continue with: htaf-snn {command} --resume --out {out}" if started else "nothing was written"
        typer.secho(f"interrupted; {hint}", err=True)
        raise typer.Exit(130) from None
