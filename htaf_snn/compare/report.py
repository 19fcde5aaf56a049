"""The results of a study: as a table, as files and as one page of HTML that needs no network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from .. import _files, _pages, training
from ..configuration import SHARED, Shared
from . import figures, findings, selection
from .settings import Settings


def write(out: Path, settings: Settings, trials: list[dict], failures: list[dict], counts: dict[str, int]) -> Path:
    """Write the report's files into the study's folder, and return the page's path; see `Study.report`."""
    rows = findings.table(settings, trials)
    if trials and not rows:
        raise ValueError(f"{out}: expected the trials that select to have ended, got a study that still runs them")
    if not rows:
        reason = f"; all {len(failures)} have failed, the first: {failures[0]['error']}" if failures else ""
        raise ValueError(f"{out}: expected a finished trial, got none{reason}")
    cells = findings.grid(trials)
    ranks, ranks_p = findings.ranks(settings, trials)
    results = {
        "settings": settings.as_dict(),
        "table": rows,
        "grid": cells,
        "ranks": ranks,
        "ranks_p": ranks_p,
        "areas": findings.areas(settings, cells),
        "failures": failures,
        "trials": trials,
    }
    files = {
        "table.csv": as_csv(rows),
        "table.md": as_markdown(rows),
        "table.tex": as_latex(rows),
        "results.json": json.dumps(results, indent=1),
        "report.html": as_html(settings, results, counts),
    }
    for name, text in files.items():
        with _files.replacing(out / name) as temporary:
            temporary.write_text(text)
    return out / "report.html"


def _shown(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def as_csv(rows: Sequence[dict]) -> str:
    """Return comma-separated values, with numbers in full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(findings.COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _lines(rows: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """Return the columns that are not empty, and their cells as text."""
    columns = [name for name in findings.COLUMNS if any(row[name] is not None for row in rows)]
    return columns, [[_shown(row[name]) for name in columns] for row in rows]


def as_markdown(rows: Sequence[dict]) -> str:
    """Return a Markdown table."""
    columns, cells = _lines(rows)
    lines = [[findings.COLUMNS[name].heading for name in columns], ["---"] * len(columns), *cells]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_latex(rows: Sequence[dict]) -> str:
    """Return a LaTeX table of the main columns, for the package booktabs."""
    main = (*findings.KEY, "seeds", "mean", "low", "high", "difference", "p_holm", "claim")
    escapes = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}"}

    def escaped(text: str) -> str:
        return "".join(escapes.get(sign, sign) for sign in text)

    lines = [" & ".join(escaped(findings.COLUMNS[name].heading) for name in main), r"\midrule"]
    lines += [" & ".join(escaped(_shown(row[name])) for name in main) for row in rows]
    body = "\n".join(line if line.startswith("\\m") else line + r" \\" for line in lines)
    return f"\\begin{{tabular}}{{l{'r' * (len(main) - 2)}l}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n"


def as_html(settings: Settings, results: dict, counts: dict[str, int]) -> str:
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
        answer=findings.answer(rows, baseline),
        figures=figures.all_figures(settings, results),
        areas=results["areas"],
        failures=results["failures"],
        command=command(settings),
        versions=results["trials"][0]["versions"],
        data_hashes={name: data_hash(settings, name) for name in settings.dataset},
    )


def _column(name: str, rows: Sequence[dict]) -> findings.Column:
    """Return a column; one of the settings that is the same in all rows is not shown at first."""
    column, values = findings.COLUMNS[name], {row[name] for row in rows}
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
        if value is not None and not is_default:
            values = value if isinstance(value, tuple) else (value,)
            parts += [f"--{name.replace('_', '-')}", *([] if value is True else [",".join(map(_exactly, values))])]
    return shlex.join(parts)


def _exactly(value: object) -> str:
    """Return a number in the fewest digits from which it can be read again."""
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
