"""The results of a study: as a table, as files and as one page of HTML that needs no network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import _files, _pages, training
from .._checks import check_choice
from ..configuration import SHARED, Shared
from ..configuration.columns import COLUMNS, Column
from ..surrogate.specifications import without_folder
from . import conclusions, figures, findings, selection
from .drawing import Figure
from .settings import Settings


class Outcome(NamedTuple):
    """What came of a study.

    Attributes:
        out: its folder.
        settings: what was compared.
        trials, failures, stopped: as `Study` returns them; the first are its results.
        counts: the numbers of trials by their state.
        extended_from: the numbers of seeds that it had when it was extended although it had results.
    """

    out: Path
    settings: Settings
    trials: list[dict]
    failures: list[dict]
    stopped: list[dict]
    counts: dict[str, int]
    extended_from: list[int]


def write(of: Outcome, to: Path, columns: Sequence[str] = ()) -> Path:
    """Write a report's files into a folder, and return the page's path; see `Study.report`."""
    settings, trials = of.settings, of.trials
    rows = findings.table(settings, trials)
    if not rows:
        raise ValueError(f"{of.out}: {_without_rows(of)}")
    cells = findings.grid(trials)
    ranks, ranks_p = findings.ranks(settings, trials)
    results = {
        "settings": settings.as_dict(),
        "extended_from": of.extended_from,
        "table": rows,
        "grid": cells,
        "ranks": ranks,
        "ranks_p": ranks_p,
        "areas": findings.areas(settings, cells),
        "failures": of.failures,
        "trials": trials,
    }
    files = {
        "table.csv": as_csv(rows),
        "table.md": as_markdown(rows),
        "table.tex": as_latex(settings, rows, columns),
        "results.json": json.dumps(results, indent=1),
    }
    drawn = figures.all_figures(settings, results)
    files["report.html"] = as_html(settings, results, drawn, of.counts, of.stopped)
    to.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        with _files.replacing(to / name) as temporary:
            temporary.write_text(text)
    (to / "figures").mkdir(exist_ok=True)
    for figure in drawn:
        figure.save(to / "figures")
    return to / "report.html"


def _without_rows(of: Outcome) -> str:
    """Return why a study has no rows, and what to do."""
    total = sum(of.counts.values())
    if len(of.failures) == total:
        return f"expected a finished trial, got none; all {total} have failed, the first: {of.failures[0]['error']}"
    states = ", ".join(f"{number} {state}" for state, number in of.counts.items() if number)
    what = "the trials that select to have ended" if of.trials else "a finished trial"
    return f"expected {what}, got {states} of {total}; go on with: htaf-snn compare --out {of.out}"


def _shown(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return without_folder(str(value))


def as_csv(rows: Sequence[dict]) -> str:
    """Return comma-separated values, with numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Return the columns that are not empty, and their cells as text."""
    columns = [name for name in COLUMNS if any(row[name] not in (None, "") for row in rows)]
    return columns, [[_shown(row[name]) for name in columns] for row in rows]


def as_markdown(rows: Sequence[dict]) -> str:
    """Return a Markdown table."""
    columns, cells = _lines(rows)
    lines = [[COLUMNS[name].heading for name in columns], ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(settings: Settings, rows: Sequence[dict], columns: Sequence[str] = ()) -> str:
    """Return a LaTeX table for the package booktabs.

    Args:
        settings: of the study.
        rows: of `findings.table`.
        columns: names of columns; without them, those that the page shows at first. "mean" is mean ± standard
            deviation unless "std" is a column, in bold for the best arm of a setting if it is shown to be better than
            the baseline or, for the baseline, all others to be worse.

    Raises:
        ValueError: if there is no such column.
    """
    for name in columns:
        check_choice("columns", name, [*COLUMNS])
    names = [*columns] or [name for name in _lines(rows)[0] if not _column(name, rows).group and name != "std"]
    places = [selection.setting(settings, row) for row in rows]
    lines = [" & ".join(_escaped(COLUMNS[name].heading) for name in names), r"\midrule"]
    for row, place in zip(rows, places, strict=True):
        bold = _is_shown_best(row, [other for other, its in zip(rows, places, strict=True) if its == place])
        mean = _mean(row, bold, "std" not in names)
        cells = [mean if name == "mean" else _escaped(_shown(row[name])) for name in names]
        lines.append(" & ".join(cells))
    body = "\n".join(line if line.startswith("\\m") else line + r" \\" for line in lines)
    kinds = "".join("l" if name in _WORDS else "r" for name in names)
    return f"\\begin{{tabular}}{{{kinds}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


_WORDS = ("dataset", "place", "surrogate", "anneal", "variant", "claim", "at_zero", "fault")
_ESCAPES = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "±": r"$\pm$"}


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(sign, sign) for sign in text)


def _mean(row: dict, bold: bool, with_std: bool) -> str:
    spread = "" if row["std"] is None or not with_std else rf" \pm {row['std']:.4f}"
    number = f"{row['mean']:.4f}{spread}"
    return rf"$\mathbf{{{number}}}$" if bold else f"${number}$"


def _is_shown_best(row: dict, beside: Sequence[dict]) -> bool:
    """Return whether a row has the best mean of its setting, and the tests show it."""
    others = [other["claim"] for other in beside if other is not row]
    shown = bool(others) and set(others) == {"worse"} if row["claim"] == "baseline" else row["claim"] == "better"
    return shown and row["mean"] == max(other["mean"] for other in beside)


def as_html(
    settings: Settings, results: dict, drawn: Sequence[Figure], counts: dict[str, int], stopped: Sequence[dict]
) -> str:
    """Return the page."""
    rows = results["table"]
    columns, cells = _lines(rows)
    baseline = selection.label(settings.arms()[0])
    return _pages.render(
        "htaf_snn.compare",
        "report.html.jinja",
        settings=settings,
        counts=counts,
        columns=[_column(name, rows) for name in columns],
        groups=list(dict.fromkeys(group for name in columns if (group := _column(name, rows).group))),
        kinds=[_kind(name, rows) for name in columns],
        cells=cells,
        arms=len(settings.arms()),
        baseline=baseline,
        beside="".join(f", {name}" for name in settings.axis) if settings.places() != [""] else "",
        answer=conclusions.answer(rows, baseline),
        cautions=conclusions.cautions(settings, rows, results["extended_from"]),
        saved=sum(one["config"]["epochs"] - one["epoch"] for one in stopped),
        figures=drawn,
        areas=results["areas"],
        failures=results["failures"],
        shown=_shown,
        command=command(settings),
        versions={name: one["versions"][name] for one in reversed(results["trials"]) for name in one["versions"]},
        data_hashes={name: data_hash(settings, name) for name in settings.dataset},
    )


def _column(name: str, rows: Sequence[dict]) -> Column:
    """Return a column; one of the settings that is the same in all rows is not shown at first."""
    column, values = COLUMNS[name], {row[name] for row in rows}
    is_same = name in findings.KEY and name != "surrogate" and len(values) == 1
    return column._replace(group="settings") if is_same else column


def _kind(name: str, rows: Sequence[dict]) -> str:
    """Return the class of a column's cells on the page."""
    group = _column(name, rows).group
    return f"of-{group}" if group else name


def command(settings: Settings) -> str:
    """Return the command that repeats the study."""
    parts = ["htaf-snn", "compare", "--out", "DIR"]
    default = Shared(model=settings.shared.model)
    for name, value in settings.as_dict().items():
        is_default = name in SHARED and name != "model" and value == getattr(default, name)
        if name == "axis":
            parts += [f"--axis={own}={','.join(map(_exactly, values))}" for own, values in value.items()]
        elif value is not None and not is_default:
            values = value if isinstance(value, tuple) else (value,)
            parts += [f"--{name.replace('_', '-')}", *([] if value is True else [",".join(map(_exactly, values))])]
    return shlex.join(parts)


def _exactly(value: object) -> str:
    """Return a value as the command reads it, a number in the fewest digits."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def data_hash(settings: Settings, dataset: str) -> str:
    """Return digits that identify a data set: from its files' names, sizes and times, or from its images."""
    try:
        data = settings.data(dataset)
        if settings.shared.model in training.SPIKING:
            if not data.fingerprint:
                return "not available (a data set without a fingerprint)"
            content = [f"{data.fingerprint} {len(data)}".encode()]
        else:
            shown = [repr((part.pixels.shape, part.targets.tolist(), part.classes)).encode() for part in data]
            content = shown + [part.pixels.tobytes() for part in data]
    except (OSError, ValueError) as error:
        return f"not available ({error.__class__.__name__})"
    return hashlib.sha256(b"".join(content)).hexdigest()[:16]
