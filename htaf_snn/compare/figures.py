"""The figures of a study's report."""

from __future__ import annotations

import numpy as np

from .drawing import COLOURS, Figure, drawn
from .maps import all_maps, judged, means, varied
from .selection import ARM, SETTING, label, pick, place_name, validated
from .settings import Settings
from .trial import TWIN


def all_figures(settings: Settings, results: dict) -> list[Figure]:
    """Draw every figure for which there are data."""
    figures = [accuracy(results["table"]), curves(results["trials"]), gradients(results["trials"])]
    if any(row["difference"] is not None for row in results["table"]):
        figures.insert(0, differences(results["table"], label(settings.arms()[0])))
    if results["ranks"]:
        figures.insert(1, ranks(results["ranks"], results["ranks_p"]))
    if len(settings.lrs) > 1 and any(validated(settings, results["trials"]).values()):
        figures.insert(1, learning_rates(settings, results["trials"]))
    if len(settings.slopes) > 1:
        figures.append(slopes(settings, results["grid"]))
    return figures + all_maps(settings, results["grid"])


def _label(row: dict, rows: list[dict]) -> str:
    """Return the arm and those of data set, slope, depth and learning rate that differ between rows."""
    varied = [name for name in ("dataset", "place", "slope", "depth", "lr") if len({other[name] for other in rows}) > 1]
    settings = (row[name] if name in ("dataset", "place") else f"{name} {row[name]:g}" for name in varied)
    return ", ".join([label(pick(row, ARM)), *settings])


def differences(rows: list[dict], baseline: str) -> Figure:
    """Draw the paired differences from the baseline with their intervals, best first."""
    own = sorted((row for row in rows if row["difference"] is not None), key=lambda row: -row["difference"])

    def draw(axes) -> None:
        for place, row in enumerate(reversed(own)):
            colour = COLOURS[0] if row["claim"] == "better" else COLOURS[1] if row["claim"] == "worse" else COLOURS[-1]
            if row["difference_low"] is not None:
                ends = [100 * row["difference_low"], 100 * row["difference_high"]]
                axes[0][0].plot(ends, [place, place], color=colour, lw=2)
            axes[0][0].plot(100 * row["difference"], place, "o", color=colour)
        axes[0][0].axvline(0, color="#000000", lw=0.8)
        axes[0][0].set_yticks(range(len(own)), [_label(row, rows) for row in reversed(own)])
        axes[0][0].set_xlabel("points of test accuracy above the baseline,\npaired by seed; unadjusted 95 % intervals")
        axes[0][0].margins(x=0.08, y=0.5 / len(own))
        axes[0][0].grid(axis="x", alpha=0.3)

    text = "; ".join(f"{_label(row, rows)} {100 * row['difference']:+.1f}" for row in own)
    key = f"Blue: shown to be better than {baseline}; red: worse; grey: neither. The colours follow the corrected test."
    names = ("difference", "difference_low", "difference_high", "p_holm", "claim")
    data = [{"arm": _label(row, rows), **{name: row[name] for name in names}} for row in own]
    drawing = drawn(draw, (7, 1 + 0.3 * len(own)))
    return Figure("Beside the baseline", f"{key} Points: {text}.", drawing, data)


def accuracy(rows: list[dict]) -> Figure:
    """Draw mean test accuracies with their intervals."""

    def draw(axes) -> None:
        for place, row in enumerate(reversed(rows)):
            if row["low"] is not None:
                axes[0][0].plot([row["low"], row["high"]], [place, place], color=COLOURS[0], lw=2)
            axes[0][0].plot(row["mean"], place, "o", color=COLOURS[0])
        axes[0][0].set_yticks(range(len(rows)), [_label(row, rows) for row in reversed(rows)])
        axes[0][0].set_xlabel("test accuracy, mean and 95 % interval")
        axes[0][0].margins(x=0.08, y=0.5 / len(rows))
        axes[0][0].grid(axis="x", alpha=0.3)

    means = "; ".join(f"{_label(row, rows)}: {row['mean']:.3f}" for row in rows)
    data = [{"arm": _label(row, rows), **{name: row[name] for name in ("mean", "low", "high")}} for row in rows]
    return Figure("Test accuracy", f"Means over seeds. {means}.", drawn(draw, (7, 1 + 0.3 * len(rows))), data)


def ranks(mean_ranks: dict[str, float], p: float | None) -> Figure:
    """Draw mean ranks, best first; p is that of `findings.ranks`."""
    order = sorted(mean_ranks, key=lambda name: mean_ranks[name])

    def draw(axes) -> None:
        axes[0][0].barh([*reversed(order)], [mean_ranks[name] for name in reversed(order)], color=COLOURS[0])
        axes[0][0].set_xlabel("mean rank over seeds and settings, 1 is best")

    text = ", ".join(f"{name} {mean_ranks[name]:.2f}" for name in order)
    shown = "are too few to be tested"
    if p is not None:
        friedman = "Friedman's test asks whether any arms differ, not which"
        shown = f"{'differ' if p < 0.05 else 'are not shown to differ'} (p = {p:.2g}); {friedman}"
    data = [{"arm": name, "mean_rank": mean_ranks[name]} for name in order]
    drawing = drawn(draw, (7, 1 + 0.3 * len(order)))
    return Figure("Ranks", f"Mean ranks, best first: {text}. They {shown}.", drawing, data)


def _by_arm(trials: list[dict]) -> dict[str, list[dict]]:
    """Return the results of each arm, apart for each value of the axes, as time steps and epochs may differ."""
    results: dict[str, list[dict]] = {}
    for trial in trials:
        names = filter(None, [label(pick(trial["config"], ARM)), trial["config"]["place"]])
        results.setdefault(", ".join(names), []).append(trial["result"])
    return results


def curves(trials: list[dict]) -> Figure:
    """Draw validation accuracy and training loss over epochs, averaged over all trials of each arm."""
    fields = ("val_accuracy", "train_loss")
    means = {
        name: [np.mean([[line[field] for line in result["curves"]] for result in results], axis=0) for field in fields]
        for name, results in _by_arm(trials).items()
    }

    def draw(axes) -> None:
        for i, (name, both) in enumerate(means.items()):
            for axis, mean in zip(axes[0], both, strict=True):
                axis.plot(range(1, len(mean) + 1), mean, ".-", color=COLOURS[i % len(COLOURS)], label=name)
        for axis in axes[0]:
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes[0][0].set(xlabel="epoch", ylabel="validation accuracy")
        axes[0][1].set(xlabel="epoch", ylabel="training loss")
        axes[0][1].legend(frameon=False)

    text = ", ".join(f"{name} {accuracies[-1]:.3f}" for name, (accuracies, _) in means.items())
    data = [
        {"arm": name, "epoch": epoch, **dict(zip(fields, values, strict=True))}
        for name, both in means.items()
        for epoch, values in enumerate(zip(*both, strict=True), 1)
    ]
    drawing = drawn(draw, (7, 3), columns=2)
    return Figure(
        "Learning",
        f"Means over all trials of an arm, at any slope and learning rate. Validation accuracy at last: {text}.",
        drawing,
        data,
    )


def gradients(trials: list[dict]) -> Figure:
    """Draw gradient norms before training: at the first layer over time steps, or, without time, over the layers."""
    steps = {name: [result["gradient_steps"] for result in results] for name, results in _by_arm(trials).items()}
    networks = [layers for by_trial in steps.values() for layers in by_trial]
    in_time, deepest = any(len(layers[0]) > 1 for layers in networks), max(map(len, networks))
    norms = {}
    for name, by_trial in steps.items():
        lines = [layers[0] if in_time else np.ravel(layers) for layers in by_trial if in_time or len(layers) == deepest]
        if lines:
            norms[name] = np.mean(lines, axis=0)

    def draw(axes) -> None:
        for i, (name, values) in enumerate(norms.items()):
            axes[0][0].semilogy(range(1, len(values) + 1), values, ".-", color=COLOURS[i % len(COLOURS)], label=name)
        labels = ("time step", "gradient norm at layer 1") if in_time else ("layer", "gradient norm")
        axes[0][0].set(xlabel=labels[0], ylabel=labels[1])
        axes[0][0].xaxis.get_major_locator().set_params(integer=True)
        axes[0][0].legend(frameon=False)

    text = ", ".join(f"{name} {values.mean():.3g}" for name, values in norms.items())
    over = "time steps at layer 1" if in_time else "layers"
    place = "step" if in_time else "layer"
    data = [{"arm": arm, place: i, "norm": norm} for arm, values in norms.items() for i, norm in enumerate(values, 1)]
    return Figure(
        "Gradients before training",
        f"Means over all trials of an arm. Mean norm over {over}: {text}.",
        drawn(draw, (7, 3)),
        data,
    )


def learning_rates(settings: Settings, trials: list[dict]) -> Figure:
    """Draw validation accuracy over the learning rate, at each arm's best slope, for each depth and data set."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for key, accuracies in validated(settings, trials).items():
        if accuracies:
            slope, _ = max(accuracies, key=lambda tuned: accuracies[tuned])
            points = sorted((lr, value) for (own, lr), value in accuracies.items() if own == slope)
            lines.setdefault(place_name(*key[: len(SETTING)]), {})[label(key[len(SETTING) :])] = points
    names = list(dict.fromkeys(name for by_arm in lines.values() for name in by_arm))

    def draw(axes) -> None:
        for axis, (place, by_arm) in zip(axes[0], lines.items(), strict=True):
            for name in names:
                style = {"color": COLOURS[names.index(name) % len(COLOURS)], "label": name}
                axis.semilogx(*zip(*by_arm.get(name, [(np.nan, np.nan)]), strict=True), "o-", **style)
            axis.set(title=place, xlabel="learning rate")
        axes[0][0].set_ylabel("validation accuracy, best slope")
        axes[0][0].figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

    texts = []
    for place, by_arm in lines.items():
        best = {name: max(points, key=lambda point: point[1]) for name, points in by_arm.items()}
        shown = ", ".join(f"{name} {accuracy:.3f} at {lr:g}" for name, (lr, accuracy) in best.items())
        texts.append(f"{place}: {shown}")
    drawing = drawn(draw, (min(3.2 * len(lines), 12) + 1, 3.6), columns=len(lines))
    data = [
        {"setting": place, "arm": name, "lr": lr, "val_accuracy": accuracy}
        for place, by_arm in lines.items()
        for name, points in by_arm.items()
        for lr, accuracy in points
    ]
    return Figure("Accuracy over the learning rate", f"Best. {'; '.join(texts)}.", drawing, data)


def slopes(settings: Settings, rows: list[dict]) -> Figure:
    """Draw accuracy over the slope, at the best learning rate of each slope."""
    column, quantity = judged(settings)
    pair = [name for name in ("slope", "lr") if name in varied(settings)]
    best = {}
    for arm in settings.arms():
        if arm[0] != TWIN:
            own = [row for row in rows if pick(row, ARM) == arm]
            values = means(settings, own, pair, lambda row: row[column])
            # NaN for a slope without a finished trial, as `numpy.nanmax` warns of.
            best[label(arm)] = np.fmax.reduce(values.reshape(len(settings.slopes), -1), axis=1)

    def draw(axes) -> None:
        for i, (name, values) in enumerate(best.items()):
            axes[0][0].semilogx(sorted(settings.slopes), values, "o-", color=COLOURS[i % len(COLOURS)], label=name)
        axes[0][0].set_xticks(settings.slopes, [f"{slope:g}" for slope in settings.slopes])
        axes[0][0].set_xticks([], minor=True)
        axes[0][0].set(xlabel="slope", ylabel=f"{quantity}, best learning rate")
        axes[0][0].legend(frameon=False)

    text = "; ".join(
        f"{name} from {np.nanmin(values):.3f} to {np.nanmax(values):.3f}"
        for name, values in best.items()
        if np.isfinite(values).any()
    )
    data = [
        {"arm": name, "slope": slope, "accuracy": value}
        for name, values in best.items()
        for slope, value in zip(sorted(settings.slopes), values, strict=True)
    ]
    return Figure(
        "Robustness to the slope",
        f"Means over data sets, depths and axes. Accuracies over slopes: {text}.",
        drawn(draw, (7, 3)),
        data,
    )
