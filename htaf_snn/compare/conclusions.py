"""What the table of a study shows, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from . import selection, statistics
from .settings import Settings
from .trial import TWIN

_WIDE = 3
"""Factor between widths above which a comparison at one slope is one of widths."""


def answer(rows: Sequence[dict], baseline: str) -> tuple[str, str]:
    """Return in a sentence each what the table shows of the arms beside the baseline, and what it does not."""
    compared = [row for row in rows if row["difference"] is not None]
    if any(row["claim"] == "too few seeds" for row in compared):
        fewest = statistics.FEWEST_SEEDS
        return f"Fewer than {fewest} seeds: no claim can be made.", "Means alone say nothing about which arm is better."
    shown, unclear = [], []
    for name in dict.fromkeys(_name(row) for row in compared):
        own = [row for row in compared if _name(row) == name]
        claims = [_claimed(own, claim) for claim in ("better", "worse")]
        shown += [f"{name} is {claim}" for claim in claims if claim]
        unclear += [] if any(claims) else [name]
    if not compared:
        others = any(_name(row) != baseline for row in rows)
        second = f"No other arm has finished seeds that {baseline} has." if others else f"{baseline} is alone."
        return "There is nothing to compare.", second
    first = f"Beside {baseline}, {'; '.join(shown)}." if shown else f"No difference from {baseline} is shown."
    second = f"Not shown to differ: {'; '.join(unclear)}, which does not prove that they are equal."
    return first, second if unclear else "Each arm is shown to differ at the 5 % level, after Holm's correction."


def cautions(settings: Settings, rows: Sequence[dict], extended_from: Sequence[int] = ()) -> list[str]:
    """Return in sentences what a reader of the table should know before the figures are believed.

    Args:
        settings: of the study.
        rows: of `findings.table`.
        extended_from: of the study's `Queue`.
    """
    at_chance = [row for row in rows if row["chance"] is not None and _lowest(row) <= row["chance"]]
    flat = [row for row in rows if row["std"] == 0]
    widths = [row["width"] for row in rows if row["width"]]
    sentences = []
    if min(extended_from, default=settings.seeds) < settings.seeds:
        sentences.append(
            f"Extended from {min(extended_from)} to {settings.seeds} seeds after results were in; the p values hold "
            "only if that number was decided before anyone looked."
        )
    if len(settings.slopes) == 1 and widths and max(widths) > _WIDE * min(widths):
        factor = f"The gradients' widths differ by a factor of {max(widths) / min(widths):.2g} and one slope was tried"
        sentences.append(f"{factor}: this compares widths, not shapes; try more with --slopes.")
    if at_chance:
        sentences.append(f"Not shown to be better than guessing: {_named(at_chance, rows)}.")
    if flat:
        sentences.append(f"All seeds have the same accuracy, so there is no interval: {_named(flat, rows)}.")
    return sentences + _at_the_ends(settings, rows)


def _lowest(row: dict) -> float:
    return row["mean"] if row["low"] is None else row["low"]


def _named(own: Sequence[dict], rows: Sequence[dict]) -> str:
    return "; ".join(_names(own, rows))


def _names(own: Sequence[dict], rows: Sequence[dict]) -> list[str]:
    """Return the names of some rows' arms, each with the number of its rows unless these are all."""
    names = [_name(row) for row in rows]
    parts = []
    for name, n in Counter(map(_name, own)).items():
        parts.append(name if n == names.count(name) else f"{name} in {n} of {names.count(name)} rows")
    return parts


def _subject(names: Sequence[str]) -> str:
    """Return names as the subject of a sentence, with its verb."""
    *others, last = names
    mark = "; " if any("," in name for name in others) else ", "
    return f"{mark.join(others)} and {last} are" if others else f"{last} is"


def _at_the_ends(settings: Settings, rows: Sequence[dict]) -> list[str]:
    """Return in sentences which arms were best at an end of the slopes or the learning rates tried."""
    sentences = []
    is_known = settings.select == "val" and settings.budget == "full"  # what was ended might have been better
    for name, words, tried in (("slope", "slope", settings.slopes), ("lr", "learning rate", settings.lrs)):
        own = [row for row in rows if row["surrogate"] != TWIN or name == "lr"]  # the twin has no slope
        for end, what, beyond in ((max(tried), "largest", "larger"), (min(tried), "smallest", "smaller")):
            there = [row for row in own if row[name] == end] if is_known and len(tried) > 1 else []
            if there:
                which = "All arms are" if len(there) == len(own) else _subject(_names(there, own))
                where = f"at the {what} {words} tried, {end:g}"
                sentences.append(f"{which} best {where}; {beyond} ones may be better still.")
    return sentences


def _name(row: dict) -> str:
    return selection.label(selection.pick(row, selection.ARM))


def _claimed(rows: Sequence[dict], claim: str) -> str:
    """Return in how many of an arm's settings a claim is shown, and by how many points; nothing for none."""
    points = sorted(100 * abs(row["difference"]) for row in rows if row["claim"] == claim)
    if not points:
        return ""
    ends = dict.fromkeys(f"{point:.1f}" for point in (points[0], points[-1]))
    where = f" in {len(points)} of {len(rows)} settings" if len(rows) > 1 else ""
    return f"{claim}{where}, by {' to '.join(ends)} points"
