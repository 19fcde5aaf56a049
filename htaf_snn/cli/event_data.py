"""`htaf-snn datasets`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ._app import OPTIONS, app, as_options, one_line_errors

_datasets = typer.Typer(
    help="Event-camera data sets: list, describe, download, pack, check and delete them.",
    no_args_is_help=True,
    epilog=(
        "[bold]Examples[/bold]\n\n"
        "htaf-snn datasets info dvsgesture\n\n"
        "htaf-snn datasets download nmnist --root data\n\n"
        "htaf-snn datasets cache saccade-digits --n-time-bins 25"
    ),
)
app.add_typer(_datasets, name="datasets")
_Name = Annotated[str, typer.Argument(help="A name shown by `htaf-snn datasets list`.")]
_Root = Annotated[Path | None, typer.Option(help="Folder of the data; default: the user's cache.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the output as JSON.")]


@contextmanager
def _datasets_errors() -> Iterator[None]:
    """Report errors as `one_line_errors` does, but keep the lines of installation instructions."""
    with one_line_errors():
        try:
            yield
        except (OSError, ValueError) as error:
            typer.secho(
                f"error: {as_options(str(error), OPTIONS | {'name': 'NAME', 'root': '--root'})}", err=True, fg="red"
            )
            raise typer.Exit(2) from None


def _examples(*lines: str) -> str:
    return "\n\n".join(["[bold]Examples[/bold]", *(f"htaf-snn datasets {line}" for line in lines)])


@_datasets.command("list", epilog=_examples("list", "list --json"))
def datasets_list(as_json: _Json = False) -> None:
    """List the data sets: name, title, sensor, classes and licence."""
    import neuromorphic_datasets as nd

    if as_json:
        typer.echo(json.dumps([_info_dict(name) for name in nd.names()]))
        return
    for info in map(nd.info, nd.names()):
        sensor = " x ".join(map(str, info.sensor_size))
        typer.echo(f"{info.name:<16}{info.title:<32}{sensor:<16}{info.n_classes:>4} classes   {info.licence}")


@_datasets.command("info", epilog=_examples("info dvsgesture", "info nmnist --json"))
def datasets_info(name: _Name, as_json: _Json = False) -> None:
    """Describe a data set: sensor, classes, splits, files and hosts, licence, citation."""
    with _datasets_errors():
        values = _info_dict(name)
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


def _info_dict(name: str) -> dict[str, Any]:
    import neuromorphic_datasets as nd

    info = nd.info(name)
    fields = "name title sensor_size n_classes classes splits bytes licence citation homepage hosts".split()
    files = [asdict(file) for file in info.files]
    return {field: getattr(info, field) for field in fields} | {"files": files, "note": info.note}


@_datasets.command("download", epilog=_examples("download nmnist", "download nmnist --root data"))
def datasets_download(name: _Name, root: _Root = None, as_json: _Json = False) -> None:
    """Fetch and unpack the missing files of a data set."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        folder = str(nd.download(name, root=root)) if nd.info(name).files else None
    text = folder or f"{name} is simulated on first use; there is nothing to fetch"
    typer.echo(json.dumps(folder) if as_json else text)


@_datasets.command(
    "cache", epilog=_examples("cache saccade-digits --n-time-bins 25", "cache nmnist --root data --skip-damaged")
)
def datasets_cache(
    name: _Name,
    root: _Root = None,
    n_time_bins: Annotated[
        int | None, typer.Option(help="Frames per recording that a training will use; default: pack events.")
    ] = None,
    skip: Annotated[bool, typer.Option("--skip-damaged", help="Leave out recordings that cannot be read.")] = False,
    as_json: _Json = False,
) -> None:
    """Pack all recordings of a data set into files, as the first training would."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        paths = nd.cache(name, root=root, n_time_bins=n_time_bins, on_error="skip" if skip else "raise")
    sizes = {str(path): path.stat().st_size for path in paths}
    lines = [f"{path}  {size / 1e6:.1f} MB" for path, size in sizes.items()]
    typer.echo(json.dumps(sizes) if as_json else "\n".join(lines))


@_datasets.command("verify", epilog=_examples("verify nmnist", "verify nmnist --root data --json"))
def datasets_verify(name: _Name, root: _Root = None, as_json: _Json = False) -> None:
    """Check a data set's files against their checksums, or read every recording; exit with code 1 on faults."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        faults = nd.verify(name, root=root)
    typer.echo(json.dumps(faults) if as_json else "\n".join(faults) or f"{name}: no faults")
    raise typer.Exit(1 if faults else 0)


@_datasets.command("clear", epilog=_examples("clear nmnist", "clear nmnist --root data"))
def datasets_clear(name: _Name, root: _Root = None, as_json: _Json = False) -> None:
    """Delete a data set's packed and downloaded files; a manually installed copy is kept."""
    import neuromorphic_datasets as nd

    with _datasets_errors():
        deleted = [str(path) for path in nd.clear(name, root=root)]
    text = "\n".join(f"deleted {path}" for path in deleted) or f"{name}: nothing to delete"
    typer.echo(json.dumps(deleted) if as_json else text)
