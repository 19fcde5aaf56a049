"""`htaf-snn compare` and `htaf-snn report`."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..configuration import SHARED, Shared, StudySettings
from ..configuration.columns import COLUMNS
from ._app import IS_MAIN, command, interruptible
from ._options import LISTED, SINGLE, Flag, Named, options, settled

if TYPE_CHECKING:
    from ..compare import Study

    StudyOptions = dict[str, Any]
    SharedOptions = dict[str, Any]
else:
    StudyOptions, SharedOptions = options(StudySettings), options(Shared, SHARED)

_Json = Annotated[bool, Flag, Parameter(help="Print the table as JSON, one object per row.")]


@command(
    "compare",
    "compare --surrogates htaf,snntorch.atan,norse.super --slopes 0.5,1,2 --seeds 5 --out runs/first",
    "compare --model dhn --surrogates htaf,relu --anneal none,hardness --lrs 5e-4,2e-3 --select val --out runs/deep",
    "compare --preset zenke-vogels-2021 --out runs/manifolds",
    "compare --out runs/first",
    'compare --surrogates htaf --axis "neuron=leaky(beta=0.9),lif(v_th=0.3)" --out runs/neurons',
    "compare --out runs/first --storage postgresql+psycopg://host/name",
    "compare --out runs/first --storage URL --launcher slurm --workers 16 --slurm timeout_min=60",
    name="compare",
)
def compare_command(
    *,
    workers: Annotated[int, Parameter(help="Worker processes on this machine, with one thread each.")] = 2,
    stack_seeds: Annotated[
        bool, Flag, Parameter(help="Train the seeds of a spiking configuration as one network; for GPUs.")
    ] = False,
    preset: Annotated[
        str | None,
        Parameter(
            help="Settings to start from, which options replace: depth, three surrogates at 1 to 8 layers; neuron, six "
            "neurons with HTAF; or zenke-vogels-2021, shape, scale and learning rate on random manifolds. The report "
            "ends with all settings."
        ),
    ] = None,
    launcher: Annotated[
        Literal["local", "slurm"], Parameter(help="Where the workers run: here, or in jobs of a Slurm cluster.")
    ] = "local",
    slurm: Annotated[
        Named, Flag, Parameter(help="Options of these jobs, such as timeout_min=60 or slurm_partition=gpu.", **SINGLE)
    ] = {},  # noqa: B006
    storage: Annotated[
        str | None,
        Parameter(help="URL of a database that machines share; by default that used before, or a file in the folder."),
    ] = None,
    out: Annotated[Path, Parameter(help="Folder of the study; an existing study is continued.")] = Path("runs/compare"),
    json: _Json = False,
    chosen: StudyOptions = {},  # noqa: B006
    shared: SharedOptions = {},  # noqa: B006
) -> None:
    """Compare surrogates over seeds, with statistics and a report (report.html in --out).

    Finished trials are never repeated: after an interruption the same command, or --out alone, continues the study;
    --out and a larger --seeds extend it. Under torchrun all processes share each trial.
    """
    from ..compare import Settings, Study, launching
    from ..compare import preset as settings_of
    from ..compare.databases import storage_of
    from ..compare.stacking import check_all

    settings = ({} if preset is None else settings_of(preset)) | settled({**chosen, **shared})
    launching.check(launcher, storage_of(out, storage), slurm)  # before anything is written
    if stack_seeds and settings:
        check_all(Settings.of(**settings).trials())  # before anything is written
    study = Study(out, storage=storage, **settings)
    counts = study.counts()
    if IS_MAIN and (counts["finished"] or counts["failed"]):
        progress = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        print(f"continuing the study in {out}: {progress}; --out DIR starts another", file=sys.stderr)

    def finished() -> str:
        counts = study.counts()
        return f"{counts['finished']} of {sum(counts.values())} trials finished; "

    with interruptible(out, "compare --out", finished):
        study.run(workers=workers, stack_seeds=stack_seeds, launcher=launcher, slurm=slurm)
    if IS_MAIN:
        _report(study, json)


@command(
    "report runs/first",
    "report runs/first --columns surrogate,mean,difference,p_holm",
    "report runs/first --json > table.json",
    name="report",
    notes="**Columns**\n\n" + "\n".join(f"- {name}: {column.meaning}" for name, column in COLUMNS.items()) + "\n\n",
)
def report_command(
    out: Annotated[Path, Parameter(help="Folder of a study of `htaf-snn compare`.")],
    *,
    storage: Annotated[str | None, Parameter(help="URL of the study's database, if it is not in the folder.")] = None,
    columns: Annotated[
        tuple[str, ...], Flag, Parameter(help="Columns of table.tex, by their names below.", **LISTED)
    ] = (),
    to: Annotated[Path | None, Parameter(help="Folder to write into; by default the study's.")] = None,
    json: _Json = False,
) -> None:
    """Write the report of a study's finished trials: report.html, table.csv, .md and .tex, results.json, figures/.

    The study itself, which may be running, is only read.
    """
    from ..compare import Study
    from ..compare.study import SETTINGS

    if not (out / SETTINGS).is_file():
        raise FileNotFoundError(f"{out}: expected the folder of a study, with {SETTINGS}")
    _report(Study(out, storage=storage, read_only=True), json, columns, to)


def _report(study: Study, as_json: bool, columns: tuple[str, ...] = (), to: Path | None = None) -> None:
    from ..compare.conclusions import cautions
    from ..compare.selection import ARM, SETTING, label, pick, place_name

    page, rows = study.report(columns, to), study.table()
    if as_json:
        print(json_format.dumps(rows, allow_nan=False))
        return
    names = [label(pick(row, ARM)) for row in rows]
    settings = [f"{place_name(*pick(row, SETTING))}, slope {row['slope']:g}, lr {row['lr']:g}" for row in rows]
    for row, name, setting in zip(rows, names, settings, strict=True):
        interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
        start = f"{name:<{max(map(len, names))}}  {setting:<{max(map(len, settings))}}"
        print(f"{start}  {row['mean']:.4f}{interval}  {row['claim']}")
    for sentence in cautions(study.settings, rows, study.queue.extended_from()):
        print(sentence, file=sys.stderr)
    for failure in study.failures():
        failed = f"{failure['config']['surrogate']}, seed {failure['config']['seed']}: {failure['error']}"
        print(f"failed: {failed}", file=sys.stderr)
    print(f"report: {page}")
