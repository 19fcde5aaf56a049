"""`htaf-snn datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from ._app import OPTIONS, app, as_options, one_line_errors

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
    """Like `one_line_errors`, but the name is an argument, and where to place files by hand is told line by line."""
    with one_line_errors():
        try:
            yield
        except (OSError, ValueError) as error:
            typer.secho(f"error: {as_options(str(error), OPTIONS | {'name': 'NAME'})}", err=True, fg="red")
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
