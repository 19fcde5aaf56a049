"""The application, and parts shared by the commands: one-line errors, run folders."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from .. import __version__
from .._files import unique_folder
from .._memory import keep_freed
from ..configuration import ConceptRun, Run, StudySettings


def examples(*lines: str) -> str:
    """Return the examples at the end of a help page, given without `htaf-snn`."""
    return "**Examples**\n\n" + "\n".join(f"    htaf-snn {line}" for line in lines) + "\n"


app = App(
    name="htaf-snn",
    version=__version__,
    help="HTAF surrogate gradients: train spiking, binary and concept networks, measure and compare surrogates, manage "
    "event-camera data.",
    help_epilogue=examples("profile htaf snntorch.atan", "train --surrogate htaf", "train --help"),
    help_format="markdown",
    default_parameter=Parameter(negative=(), allow_repeating=True),
)
app.register_install_completion_command(help="Complete commands and options in this shell from now on.")

# Of the processes that torchrun started, the main one alone prints results.
IS_MAIN = os.environ.get("RANK", "0") == "0"
# Arguments of Python functions with which messages begin, and the options that set them.
OPTIONS = (
    {
        field.name: f"--{field.name.replace('_', '-')}"
        for kind in (Run, ConceptRun, StudySettings)
        for field in fields(kind)
    }
    | {
        "name": "--dataset",
        "root": "--data-root",
        "deltas": "--delta",
        "plot": "--plot",
        "stack_seeds": "--stack-seeds",
    }
    | {name: f"--{name}" for name in ("launcher", "preset", "slurm", "storage")}
)


# What a command adds to a message, by the error's `remedy`: where an argument of `EventFolder` is written, which no
# command has, or its own option.
_REMEDIES = {
    name: f"write EventFolder(…, {argument}) into a file of your own, --dataset FILE.py:NAME"
    for name, argument in {
        "columns": 'columns="txyp"',
        "time_unit": 'time_unit="ms"',
        "place": 'place="events"',
        "sensor_size": "sensor_size=(346, 260, 2)",
        "on_error": 'on_error="skip"',
    }.items()
} | {"own_frames": "the command makes frames by --n-time-bins"}


class RefusedError(Exception):
    """An error of the user's, with the message that is shown for it, in lines of its own."""


def command(*lines: str, name: str, to: App = app, notes: str = "", **given: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that adds a command whose help ends with notes and examples, given without `htaf-snn`."""
    return to.command(name=name, help_epilogue=notes + examples(*lines), **given)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; bad input, a missing file or a missing library is one line and exit code 2.

    Args:
        arguments: in place of those of the process.
    """
    # Norse 1.1 compiles a function with TorchScript on import; users cannot do anything about it.
    warnings.filterwarnings("ignore", message="`torch.jit")
    # Lines of our code say nothing to a user.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    keep_freed()
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or ())
        fail(f"expected options and their values, several values separated by commas, got also {words}", 2)
    except CycloptsError as error:
        fail(" ".join(str(error).split()), 2)
    except (ValueError, TypeError, OSError, ImportError) as error:
        fail(with_remedy(as_option(" ".join(str(error).split())), error), 2)
    except RefusedError as error:
        fail(str(error), 2)
    except FloatingPointError as error:
        fail(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        fail(f"out of memory, try a smaller model or fewer time bins: {error}", 1)
    sys.exit(0)


def fail(message: str, code: int) -> NoReturn:
    """Print an error and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def as_option(message: str, options: dict[str, str] = OPTIONS) -> str:
    """Return the message with a function's argument at its beginning replaced by the option that sets it."""
    name, colon, rest = message.partition(":")
    return f"{options.get(name, name)}{colon}{rest}"


def with_remedy(message: str, error: Exception) -> str:
    """Return the message of an error with what helps in a command."""
    remedy = _REMEDIES.get(getattr(error, "remedy", None) or "")
    return f"{message}; {remedy}" if remedy else message


@contextmanager
def run_folder(out: Path | None, name: str) -> Iterator[Path]:
    """Yield the folder of a run: `out`, or a new one in runs/ whose name is the time in the format of `strftime`."""
    chosen = out or Path("runs") / datetime.now().strftime(name)
    if out is not None or not IS_MAIN:  # the other processes of torchrun write nothing
        yield chosen
        return
    with unique_folder(chosen) as created:
        yield created


@contextmanager
def aside(out: Path) -> Iterator[None]:
    """Within the block the run in a folder is out of the way; it is gone afterwards, or back if no other was started.

    Raises:
        ValueError: if the folder holds no run, so that nothing else is deleted by mistake.
    """
    if not out.is_dir() or not any(out.iterdir()):
        yield
        return
    if not any((out / name).is_file() for name in ("config.json", "checkpoint.safetensors")):
        raise ValueError(f"out: expected the folder of a run to start over, got {out}, which has other files")
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.resolve().parent)) / out.name
    out.rename(old)
    try:
        yield
    finally:
        if not (out / "config.json").is_file():
            old.rename(out)
        shutil.rmtree(old.parent)


@contextmanager
def interruptible(out: Path, command: str, progress: Callable[[], str] = str) -> Iterator[None]:
    """On Ctrl-C within the block, print the progress and how to continue, and exit with code 130."""
    try:
        yield
    except KeyboardInterrupt:
        started = any((out / name).is_file() for name in ("config.json", "study.json"))
        state = f"{progress()}continue with: htaf-snn {command} {out}" if started else "nothing was written"
        print(f"interrupted; {state}", file=sys.stderr)
        sys.exit(130)
