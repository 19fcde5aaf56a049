"""`htaf-snn datasets`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from ._app import OPTIONS, RefusedError, app, as_option, command, examples
from ._options import Flag

_datasets = App(
    name="datasets",
    help="Event-camera data sets: list, describe, download, pack, check and delete them.",
    help_epilogue=examples("datasets info dvsgesture", "datasets cache saccade-digits --n-time-bins 25"),
)
app.command(_datasets)
_Name = Annotated[str, Parameter(help="A name shown by `htaf-snn datasets list`.")]
_Root = Annotated[Path | None, Parameter(help="Folder of the data; by default the user's cache.")]
_Json = Annotated[bool, Flag, Parameter(help="Print the output as JSON.")]


@contextmanager
def _errors() -> Iterator[None]:
    """Refuse what is wrong in its own words, which keeps the lines of installation instructions."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise RefusedError(as_option(str(error), OPTIONS | {"name": "NAME"})) from None


def _subcommand(*lines: str):
    return command(*(f"datasets {line}" for line in lines), name=lines[0].split()[0], to=_datasets)


@_subcommand("list", "list --json")
def datasets_list(*, json: _Json = False) -> None:
    """List the data sets: name, title, sensor, classes and licence."""
    import neuromorphic_datasets as nd

    if json:
        print(json_format.dumps([_info_dict(name) for name in nd.names()]))
        return
    for info in map(nd.info, nd.names()):
        sensor = " x ".join(map(str, info.sensor_size))
        print(f"{info.name:<17}{info.title:<32}{sensor:<16}{info.n_classes:>4} classes   {info.licence}")


@_subcommand("info dvsgesture", "info nmnist --json")
def datasets_info(name: _Name, *, json: _Json = False) -> None:
    """Describe a data set: sensor, classes, splits, files and hosts, licence, citation."""
    with _errors():
        values = _info_dict(name)
    if json:
        print(json_format.dumps(values))
        return
    for field, value in values.items():
        if field == "files":
            value = "\n".join(f"{file['name']}  MD5 {file['md5'] or 'not fixed'}" for file in value)
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        lines = str("unknown" if value is None else value).splitlines() or ["-"]
        print(f"{field:<12}" + f"\n{'':<12}".join(lines))


def _info_dict(name: str) -> dict[str, Any]:
    import neuromorphic_datasets as nd

    info = nd.info(name)
    fields = "name title sensor_size n_classes classes splits bytes licence citation homepage hosts".split()
    files = [asdict(file) for file in info.files]
    return {field: getattr(info, field) for field in fields} | {"files": files, "note": info.note}


@_subcommand("download nmnist", "download nmnist --data-root data")
def datasets_download(name: _Name, *, data_root: _Root = None, json: _Json = False) -> None:
    """Fetch and unpack the missing files of a data set."""
    import neuromorphic_datasets as nd

    with _errors():
        folder = str(nd.download(name, root=data_root)) if nd.info(name).files else None
    text = folder or f"{name} is simulated on first use; there is nothing to fetch"
    print(json_format.dumps(folder) if json else text)


@_subcommand("cache saccade-digits --n-time-bins 25", "cache nmnist --data-root data --skip-damaged")
def datasets_cache(
    name: _Name,
    *,
    data_root: _Root = None,
    n_time_bins: Annotated[
        int | None, Parameter(help="Frames per recording that a training will use; default: pack events.")
    ] = None,
    skip: Annotated[
        bool, Flag, Parameter(name="--skip-damaged", help="Leave out recordings that cannot be read.")
    ] = False,
    json: _Json = False,
) -> None:
    """Pack all recordings of a data set into files, as the first training would."""
    import neuromorphic_datasets as nd

    with _errors():
        paths = nd.cache(name, root=data_root, n_time_bins=n_time_bins, on_error="skip" if skip else "raise")
    sizes = {str(path): path.stat().st_size for path in paths}
    lines = [f"{path}  {size / 1e6:.1f} MB" for path, size in sizes.items()]
    print(json_format.dumps(sizes) if json else "\n".join(lines))


@_subcommand("verify nmnist", "verify nmnist --data-root data --json")
def datasets_verify(name: _Name, *, data_root: _Root = None, json: _Json = False) -> None:
    """Check a data set's files against their checksums, or read every recording; exit with code 1 on faults."""
    import neuromorphic_datasets as nd

    with _errors():
        faults = nd.verify(name, root=data_root)
    print(json_format.dumps(faults) if json else "\n".join(faults) or f"{name}: no faults")
    sys.exit(1 if faults else 0)


@_subcommand("clear nmnist", "clear nmnist --data-root data")
def datasets_clear(name: _Name, *, data_root: _Root = None, json: _Json = False) -> None:
    """Delete a data set's packed and downloaded files; a manually installed copy is kept."""
    import neuromorphic_datasets as nd

    with _errors():
        deleted = [str(path) for path in nd.clear(name, root=data_root)]
    text = "\n".join(f"deleted {path}" for path in deleted) or f"{name}: nothing to delete"
    print(json_format.dumps(deleted) if json else text)
