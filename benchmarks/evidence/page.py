"""docs/results.md and the tables of other pages, from benchmarks/results/: no number in them is typed by hand."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from htaf_snn._files import replacing
from htaf_snn.compare import Settings
from htaf_snn.compare.selection import ARM, SETTING, TUNED, label, pick
from htaf_snn.compare.statistics import Comparison, compare_to
from htaf_snn.compare.trial import TWIN
from htaf_snn.configuration.columns import TOLERANCE

from .claims import CLAIMS
from .figures import draw, file_of
from .running import RESULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
_START, _END = r"^<!-- evidence: ([\w-]+) -->$", r"^<!-- end of evidence -->$"
_BLOCK = re.compile(rf"({_START}\n).*?({_END})", re.DOTALL | re.MULTILINE)

_HEAD = f"""# Results

Written by `python -m benchmarks.evidence page` from the files in `benchmarks/results/`. Each section begins with its
question, the command that repeats the measurement, and the setting.

Where a section lists learning rates and slopes, each arm, a surrogate, what is annealed and the identity in the
weights, has those with which it was best on validation data. The slope is a factor of the surrogate's argument; the
twin, relu, has none. Test accuracies are then those of seeds that did not take part in the choice. Three kinds of
section differ: the one on `surrogate.suggest` shows every slope at one learning rate, concept models choose the
learning rate alone, and convolutional networks have one learning rate that is not tuned.

Intervals of accuracies are 95 % intervals by Student's t on the scale of the log-odds. Differences are to the first
arm, paired by seed, with intervals by Student's t and p-values of paired t-tests after Holm's correction within a data
set and depth. The plateau is the factor between the ends of the learning rates, in a
row, whose validation accuracy is within {100 * TOLERANCE:g} points of the arm's best; ≥ where it reaches the end of
those tried. The gap is the accuracy that is lost when smooth steps are made hard after training.
"""
_TO = "\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}"  # so that an interval stays on one line


def write() -> list[Path]:
    """Write the results page, its figures and the tables of other pages; return the files."""
    results = [json.loads((RESULTS / f"{claim.name}.json").read_text()) for claim in measured()]
    figures = [path for result in results for path in draw(result, PAGE.parent / "results")]
    texts = {PAGE: page(results)} | {path: with_tables(path.read_text()) for path in pages_with_tables()}
    for path, text in texts.items():
        with replacing(path) as temporary:
            temporary.write_text(text)
    return [*texts, *figures]


def measured() -> list:
    """Return the claims that have results, in their order."""
    return [claim for claim in CLAIMS if (RESULTS / f"{claim.name}.json").is_file()]


def page(results: list[dict]) -> str:
    """Return the text of docs/results.md."""
    return "\n".join([_HEAD, *(_section(result) for result in results)])


def pages_with_tables(root: Path = ROOT) -> list[Path]:
    """Return those of README.md and the pages in docs/ that have tables of results between two comments."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return [path for path in pages if re.search(f"{_START}|{_END}", path.read_text(), re.MULTILINE)]


def with_tables(text: str) -> str:
    """Return a page with its tables as the results have them now.

    Raises:
        ValueError: if a table has no end, or an end no table.
    """
    comments = re.findall(f"{_START}|{_END}", text, re.MULTILINE)
    if not all(bool(name) == (index % 2 == 0) for index, name in enumerate(comments)) or len(comments) % 2:
        names = ", ".join(name or "an end" for name in comments)
        raise ValueError(f"evidence: expected each table to be followed by its end, got {names}")

    def filled(match: re.Match) -> str:
        if match[2] in _SUMMARIES:
            return f"{match[1]}\n{_SUMMARIES[match[2]]()}\n{match[3]}"
        parts = _parts(match[2])
        tables = [f"{name}:\n\n{_short(part)}" if len(parts) > 1 else _short(part) for name, part in parts.items()]
        return f"{match[1]}\n" + "\n".join(tables) + f"\n{match[3]}"

    return _BLOCK.sub(filled, text)


def _parts(claim: str) -> dict[str, dict]:
    return json.loads((RESULTS / f"{claim}.json").read_text())["parts"]


_CHOSEN = {
    "deep Heaviside": ("dhn-paths", "fashion-mnist"),
    "binary": ("bnn", "fashion-mnist"),
    "spiking": ("snn-depth", "saccade-digits"),
}


def _selected(part: dict, row: dict) -> float:
    """Return the validation accuracy of a row's arm with the seeds that selected its slope and learning rate."""
    own = [trial["val_accuracy"] for trial in _trials(part, row) if trial["seed"] < part["settings"]["select_seeds"]]
    return sum(own) / len(own)


def _trials(part: dict, row: dict) -> list[dict]:
    """Return the trials of a row's arm at its slope and learning rate."""
    names = (*SETTING, *ARM, *TUNED)
    return [trial for trial in part["trials"] if pick(trial, names) == pick(row, names)]


def defaults() -> str:
    """Return a table of the arm of HTAF with the best validation accuracy, by kind of network and depth."""
    lines = []
    for kind, (claim, name) in _CHOSEN.items():
        part = _parts(claim)[name]
        rows = [row for row in part["table"] if row["surrogate"] == "htaf"]
        for depth in dict.fromkeys(row["depth"] for row in rows):
            own = [row for row in rows if row["depth"] == depth]
            best = max(own, key=lambda row, part=part: _selected(part, row))
            path = "spikes throughout" if best["anneal"] == "none" else f"{best['anneal']} annealed"
            numbers = (f"{best[name]:g}" for name in ("slope", "identity", "lr"))
            lines.append([kind, str(depth), path, *numbers, f"`{claim}`"])
    return _markdown(("network", "layers", "path", "slope", "identity", "learning rate", "claim"), lines)


def counts() -> str:
    """Return how often HTAF is shown to be better or worse than other surrogates, each tuned alike."""
    places = better = worse = 0
    for claim in ("dhn-surrogates", "bnn", "snn-depth"):
        for part in _parts(claim).values():
            for depth in dict.fromkeys(row["depth"] for row in part["table"]):
                others = {
                    row["claim"] for row in part["table"]
                    if row["depth"] == depth and row["surrogate"] not in (baseline_of(part)[0], TWIN)
                }  # fmt: skip
                places, better, worse = places + 1, better + ("worse" in others), worse + ("better" in others)
    text = (
        f"Of {places} settings of data, kind of network and depth, HTAF is shown to be better than one or more of the "
        f"others in {better}, and worse in {worse}; elsewhere no difference is shown."
    )
    return f"{textwrap.fill(text, 120)}\n"


def paths() -> str:
    """Return a table of what an annealing gains over spikes from the start, with and without the identity."""
    part = _parts("dhn-paths")["fashion-mnist"]
    rows = {pick(row, ("depth", "surrogate", "anneal", "identity")): row for row in part["table"]}
    depths = sorted({row["depth"] for row in part["table"]})
    lines = []
    for identity in part["settings"]["identity"]:
        for anneal in ("hardness", "alpha"):
            tests = [
                _paired(part, rows[depth, "htaf", "none", identity], rows[depth, "htaf", anneal, identity])
                for depth in depths
            ]
            cells = [
                f"{100 * test.difference:+.1f} ({100 * test.low:+.1f} to {100 * test.high:+.1f})" for test in tests
            ]
            lines.append([f"{anneal} annealed", f"{identity:g}", *cells])
    return _markdown(("points", "identity", *(f"{depth} layers" for depth in depths)), lines)


def _paired(part: dict, base: dict, other: dict) -> Comparison:
    """Return the comparison of two rows of a part, over the seeds that did not select."""
    scores = [{one["seed"]: one["test_accuracy"] for one in _trials(part, row)} for row in (base, other)]
    seeds = [seed for seed in scores[0] if seed in scores[1] and seed >= part["settings"]["select_seeds"]]
    first, second = ([own[seed] for seed in seeds] for own in scores)
    return compare_to(first, {"other": second})["other"]


_COMPARED = (
    ("deep Heaviside, Fashion-MNIST", "dhn-surrogates", "fashion-mnist"),
    ("binary, Fashion-MNIST", "bnn", "fashion-mnist"),
    ("spiking, saccade-digits", "snn-depth", "saccade-digits"),
    ("spiking, part of N-MNIST", "snn-depth", "nmnist"),
)


def summary() -> str:
    """Return a table of HTAF beside the other surrogates, all of them tuned and spiking from the start."""
    lines = []
    for title, claim, name in _COMPARED:
        part = _parts(claim)[name]
        first = baseline_of(part)
        rows = [row for row in part["table"] if row["anneal"] == first[1] and row["surrogate"] != TWIN]
        for depth in dict.fromkeys(row["depth"] for row in rows):
            own = [row for row in rows if row["depth"] == depth]
            [base] = [row for row in own if row["surrogate"] == first[0]]
            others = [row for row in own if row is not base]
            means = [row["mean"] for row in others]
            shown = (
                ", ".join(f"`{row['surrogate']}`" for row in others if row["claim"] == claim)
                for claim in ("worse", "better")
            )
            spread = f"{min(means):.3f} to {max(means):.3f}"
            lines.append(
                [title, str(depth), _mean(base), f"{len(others)}: {spread}", *(text or "none" for text in shown)]
            )
    return _markdown(("network, data", "layers", "HTAF", "others", "shown worse", "shown better"), lines)


_SUMMARIES = {"defaults": defaults, "counts": counts, "paths": paths, "summary": summary}
"""What pages take from several claims."""


def _section(result: dict) -> str:
    machine, versions = result["machine"], result["versions"]
    lines = [
        f"## {result['question']}",
        "",
        f"`{result['command']}`; data in `benchmarks/results/{result['claim']}.json`.",
    ]
    for name, part in result["parts"].items():
        lines += ["", f"### {name}", ""]
        lines += _part_lines(part, file_of(result, name))
    lines += [
        f"Commit {result['commit']}, {machine['processor']}, {machine['cores']} cores, torch {versions['torch']}, "
        f"snnTorch {versions.get('snntorch', 'none')}.",
        "",
    ]
    return "\n".join(lines)


def _part_lines(part: dict, file: str) -> list[str]:
    if "packed" in part:
        return convolutional_lines(part)
    return concept_lines(part) if "heads" in part else _study_lines(part, file)


def _study_lines(part: dict, file: str) -> list[str]:
    hours = sum(trial["seconds"] for trial in part["trials"]) / 3600
    setting = textwrap.fill(f"{_setting(part)} {hours:.1f} hours of one core.", 120)
    lines = [setting, "", *findings(part), "", table(part)]
    what = "the learning rate, and gradients by layer" if part["suggested_slope"] is None else "the slope"
    lines += [f"![Accuracy over {what}](results/{file})", ""]
    return lines + ([_failures(part), ""] if part["failures"] else [])


_CONCEPTS = ("concepts by", "accuracy", "95 %", "difference", "95 %", "p", "lr", "gap", "dead", "leakage", "stability")


def concept_lines(part: dict) -> list[str]:
    """Return the text of a data set of concept models."""
    settings = part["settings"]
    about = (
        f"{settings['n_concepts']} concepts, {settings['epochs']} epochs, seeds 1 to {settings['seeds']}; learning "
        f"rates {_listed(settings['lrs'])}, chosen on validation images with seed 0. Leakage is what potentials add to "
        "the accuracy of the bits; stability is how far the concepts of two seeds agree, by chance in brackets."
    )
    heads = [[row["features"], _mean(row) if "mean" in row else row["not_measured"]] for row in part["heads"]]
    title = f"With a sparse head of at most {settings['most']} features per class:"
    rows = _markdown(_CONCEPTS, [_concept_cells(row) for row in part["rows"]])
    return [textwrap.fill(about, 120), "", rows, title, "", _markdown(("features", "test accuracy"), heads)]


def _concept_cells(row: dict[str, Any]) -> list[str]:
    compared = row["comparison"]
    return [
        row["arm"],
        f"{row['mean']:.3f}",
        _interval(row["low"], row["high"]),
        f"{compared['difference']:+.3f}" if compared else "",
        _interval(compared["low"], compared["high"], "+") if compared else "",
        f"{compared['p_holm']:.2g}" if compared and compared["p_holm"] is not None else "",
        f"{row['lr']:g}",
        f"{row['hardening_gap']:.4f}",
        f"{row['dead']:.1f}",
        "" if row["leakage"] is None else f"{row['leakage']:.4f}",
        f"{row['stability']:.2f} ({row['stability_by_chance']:.2f})",
    ]


_CONVOLUTIONAL = ("network", "accuracy", "std", "points to the twin", "95 %", "gap", "epochs", "lr")
_PACKED = ("network", "accuracy", "packed", "bytes in float32", "bytes packed", "rounded", "accuracy", "bytes packed")


def convolutional_lines(part: dict) -> list[str]:
    """Return the text of a data set of convolutional networks."""
    data, rows = part["data"], part["models"]
    hours = sum(sum(row["seconds"]) for row in rows) / 3600
    channels = next(arm["hidden"] for arm in part["settings"]["arms"].values() if "hidden" in arm)
    about = (
        f"{data['train']} training, {data['val']} validation and {data['test']} test images, batches of "
        f"{part['settings']['batch_size']}, a cosine schedule, channels "
        f"{', '.join(map(str, channels))} without shortcuts; otherwise the command's defaults. Every network has one "
        "learning rate, which is not tuned, and few epochs: all are far from converged. Means and standard deviations "
        f"of {rows[0]['n']} seeds. Differences to the floating-point twin are paired by seed, with intervals by "
        f"Student's t, which are wide for so few seeds. {hours:.1f} hours of one core."
    )
    title = (
        f"The networks of seed {part['packed'][0]['seed']} packed, and with the weights of Heaviside layers in the "
        "fewest bits, by layer, that keep the validation accuracy:"
    )
    rows_of_all = [_convolutional_cells(row) for row in rows]
    tables = _markdown(_CONVOLUTIONAL, rows_of_all), _markdown(_PACKED, [_packed_cells(row) for row in part["packed"]])
    return [textwrap.fill(about, 120), "", tables[0], textwrap.fill(title, 120), "", tables[1]]


def _convolutional_cells(row: dict[str, Any]) -> list[str]:
    compared, gaps = row["comparison"], row["hardening_gaps"]
    ends = [compared.get(end) for end in ("low", "high")]
    return [
        row["arm"],
        f"{row['mean']:.3f}",
        f"{row['std']:.3f}",
        f"{100 * compared['difference']:+.1f}" if compared else "",
        "" if None in ends else _TO.join(f"{100 * end:+.1f}" for end in ends),
        f"{sum(gaps) / len(gaps):.4f}",
        str(row["epochs"]),
        f"{row['lr']:g}",
    ]


def _packed_cells(row: dict[str, Any]) -> list[str]:
    rounded = row.get("rounded")
    cells = [row["arm"], f"{row['test_accuracy']:.4f}", f"{row['packed_accuracy']:.4f}"]
    cells += [str(row["float_bytes"]), str(row["packed_bytes"])]
    if rounded is None:
        return [*cells, "", "", ""]
    bits = ", ".join(map(str, rounded["bits"].values()))
    return [*cells, f"{bits} bits", f"{rounded['packed_accuracy']:.4f}", str(rounded["packed_bytes"])]


def _setting(part: dict) -> str:
    settings, data = part["settings"], part["data"]
    sizes = f"{settings['width']} neurons per layer, {settings['epochs']} epochs, batches of {settings['batch_size']}"
    choices = f"slopes {_listed(settings['slopes'])} and learning rates {_listed(settings['lrs'])}"
    if settings["select"] == "val":
        count = settings["select_seeds"] or settings["seeds"]
        choices += f", chosen with {count} of {settings['seeds']} seeds"
    others = ("norm", "schedule", "train_fraction", "alpha_end", "folds", "n_time_bins", "match")
    defaults = Settings().as_dict()
    given = [f"{name} {settings[name]}" for name in others if settings[name] != defaults[name]]
    return (
        f"{', '.join(settings['dataset'])} ({data['train']} training, {data['test']} test samples), {sizes}; {choices}"
        f"{'; ' if given else ''}{', '.join(given)}."
    )


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)


def _failures(part: dict) -> str:
    counts: dict[str, int] = {}
    for failure in part["failures"]:
        name = f"{label(pick(failure, ARM))}: {failure['error'].split(',')[0]}"
        counts[name] = counts.get(name, 0) + 1
    return "Trials that failed: " + "; ".join(f"{count} of {name}" for name, count in counts.items()) + "."


def findings(part: dict) -> list[str]:
    """Return one sentence per data set and depth, of what is shown and what is not."""
    if part["suggested_slope"] is not None:
        return [_of_suggestion(part)]
    rows, sentences = part["table"], []
    for place in dict.fromkeys((row["dataset"], row["depth"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["depth"]) == place]
        base, others = baseline_of(part), [row for row in own if row["claim"] != "baseline"]
        shown = {claim: [row for row in others if row["claim"] == claim] for claim in ("better", "worse")}
        texts = [_against(label(base), rows, claim) for claim, rows in shown.items() if rows]
        rest = [f"`{label(pick(row, ARM))}`" for row in others if row["claim"] == "no difference shown"]
        if rest:
            texts.append(f"No difference from `{label(base)}` is shown for {'; '.join(rest)}.")
        line = f"- {place[1]} hidden layers. {' '.join(texts) or 'A single arm.'}"
        sentences.append(textwrap.fill(line, 120, subsequent_indent="  ", break_long_words=False))
    return sentences


def baseline_of(part: dict) -> tuple:
    """Return the first arm of a part's study."""
    settings = part["settings"]
    return settings["surrogates"][0], settings["anneal"][0], settings["identity"][0], ""


def _of_suggestion(part: dict) -> str:
    slope, rows = part["suggested_slope"], sorted(part["table"], key=lambda row: -row["val_accuracy"])
    places = [place for place, row in enumerate(rows) if row["slope"] == slope]
    if not places:
        return f"- No trial at the suggested slope, {slope:g}, has finished."
    best, own = rows[0], rows[places[0]]
    return (
        f"- By mean validation accuracy the suggested slope, {slope:g}, is number {places[0] + 1} of {len(rows)}: "
        f"{own['val_accuracy']:.3f}, where the best, {best['slope']:g}, has {best['val_accuracy']:.3f}."
    )


def _against(name: str, rows: list[dict], claim: str) -> str:
    parts = [
        f"`{label(pick(row, ARM))}` by {100 * abs(row['difference']):.1f} points "
        f"({' to '.join(f'{100 * abs(end):.1f}' for end in _ends(row))})"
        for row in rows
    ]
    return f"{claim.capitalize()} than `{name}`: {'; '.join(parts)}."


def _ends(row: dict[str, Any]) -> list[float]:
    """Return the ends of the interval of a difference, the smaller magnitude first."""
    return sorted((row["difference_low"], row["difference_high"]), key=abs)


_COLUMNS = ("layers", "arm", "seeds", "accuracy", "95 %", "difference", "95 %", "p", "slope", "lr", "plateau", "gap")


def table(part: dict) -> str:
    """Return the Markdown table of a part."""
    rows = part["table"] if part["suggested_slope"] is None else sorted(part["table"], key=lambda row: row["slope"])
    return _markdown(_COLUMNS, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    difference, p = row["difference"], row["p_holm"]
    return [
        str(row["depth"]),
        label(pick(row, ARM)),
        str(row["seeds"]),
        f"{row['mean']:.3f}",
        _interval(row["low"], row["high"]),
        "" if difference is None else f"{difference:+.3f}",
        "" if difference is None else _interval(row["difference_low"], row["difference_high"], "+"),
        "" if p is None else f"{p:.2g}",
        "" if row["surrogate"] == TWIN else f"{row['slope']:.3g}",
        f"{row['lr']:g}",
        "" if row["plateau"] is None else f"{'≥ ' if row['plateau_open'] else ''}{row['plateau']:.3g}×",
        f"{row['hardening_gap']:.4f}",
    ]


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"{low:{sign}.3f}{_TO}{high:{sign}.3f}"


def _short(part: dict) -> str:
    if "heads" in part:
        rows = [[row["arm"], _mean(row)] for row in part["rows"]]
        return _markdown(("concepts by", "test accuracy"), rows)
    return short_table(part)


def _mean(row: dict[str, Any]) -> str:
    interval = _interval(row["low"], row["high"])
    return f"{row['mean']:.3f}{f' ({interval})' if interval else ''}"


def short_table(part: dict) -> str:
    """Return a Markdown table of accuracies, arms by depths."""
    rows = part["table"]
    depths = list(dict.fromkeys(row["depth"] for row in rows))
    arms = list(dict.fromkeys(pick(row, ARM) for row in rows))
    by_place = {(pick(row, ARM), row["depth"]): row for row in rows}
    lines = []
    for arm in arms:
        own = [by_place.get((arm, depth)) for depth in depths]
        lines.append([label(arm), *(_mean(row) if row else "" for row in own)])
    return _markdown(("", *(f"{depth} layers" for depth in depths)), lines)


def _markdown(head: tuple[str, ...], lines: list[list[str]]) -> str:
    rows = [list(head), ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
