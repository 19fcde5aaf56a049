"""What the commands share: the application, errors reported in one line, options that were given."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__

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

# Of the processes that torchrun started, one tells what was found.
IS_FIRST = os.environ.get("RANK", "0") == "0"
# Arguments of Python functions that messages begin with, and what sets them here.
OPTIONS = {"name": "--dataset", "root": "--data-root", "deltas": "--delta", "plot": "--plot"}


def main() -> None:
    """Entry point of the command."""
    # Norse 1.1 compiles a function with TorchScript when it is imported; the user can do nothing about it.
    warnings.filterwarnings("ignore", message="`torch.jit")
    app()


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input, a missing file or a missing library is reported in one line, with exit code 2."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        typer.secho(f"error: {as_options(' '.join(str(error).split()))}", err=True, fg="red")
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        typer.secho(f"error: out of memory, take a smaller model or fewer time bins: {error}", err=True, fg="red")
        raise typer.Exit(1) from None
    except FloatingPointError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(1) from None


def as_options(message: str, options: dict[str, str] = OPTIONS) -> str:
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


def given(context: typer.Context, settings: type) -> dict:
    """The fields of a dataclass of settings that the command line gives."""
    found = {
        field.name: context.params[field.name]
        for field in fields(settings)
        if field.name in context.params and context.get_parameter_source(field.name).name == "COMMANDLINE"
    }
    if "data_root" in found:
        found["data_root"] = str(found["data_root"].expanduser().resolve())
    return found


def run_folder(out: Path | None, resume: bool, name: str) -> Path:
    """The folder of a run: the one given, or a new one in runs/ with a name of `strftime`."""
    if resume and out is None:
        raise ValueError("out: expected the folder of the run to resume, got none; add --out DIR")
    return out or Path("runs") / datetime.now().strftime(name)


@contextmanager
def interruptible(out: Path, command: str) -> Iterator[None]:
    """Ctrl-C within the block tells how to go on, with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        started = (out / "config.json").is_file()
        hint = f"continue with: htaf-snn {command} --resume --out {out}" if started else "nothing was written"
        typer.secho(f"interrupted; {hint}", err=True)
        raise typer.Exit(130) from None
