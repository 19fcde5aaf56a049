"""Pictures of spikes, potentials and trainings, as matplotlib figures that a user may go on drawing in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ._checks import describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion", "learning_curves", "over_time", "raster", "traces"]


def raster(spikes: Tensor, sample: int = 0) -> Figure:
    """Draw when each neuron spikes.

    Args:
        spikes: (T, B, *features), or (T, features) of one sample; a neuron spikes where they are above 0.
        sample: the sample of a batch to draw.

    Raises:
        TypeError: if the spikes are no tensor.
        ValueError: if they have fewer than two dimensions, or there is no such sample.

    Example:
        >>> import torch
        >>> raster((torch.rand(20, 1, 50) > 0.9).float()).axes[0].get_xlabel()
        'time step'
    """
    rows = _rows("spikes", spikes, sample)
    figure, axes = _figure("time step", "neuron")
    steps, neurons = (rows > 0).nonzero(as_tuple=True)
    axes.scatter(steps.numpy(), neurons.numpy(), s=max(1.0, 400 / max(len(rows[0]), 1)), marker="|", linewidths=1)
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_ylim(-0.5, len(rows[0]) - 0.5)
    axes.set_title(f"{len(steps)} spikes, {len(steps) / max(rows.numel(), 1):.3f} per neuron and time step", loc="left")
    return figure


def traces(potentials: Tensor, sample: int = 0, *, threshold: float | None = None, most: int = 8) -> Figure:
    """Draw the potentials of neurons over time.

    Args:
        potentials: (T, B, *features), or (T, features) of one sample.
        sample: the sample of a batch to draw.
        threshold: drawn as a line; None for none.
        most: the neurons that are drawn, from the first on.

    Raises:
        TypeError, ValueError: as `raster`.

    Example:
        >>> import torch
        >>> len(traces(torch.rand(20, 1, 50), most=3).axes[0].lines)
        3
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"most: expected an integer of at least 1, got {most!r}")
    rows = _rows("potentials", potentials, sample)
    figure, axes = _figure("time step", "potential")
    for neuron in range(min(most, rows.shape[1])):
        axes.plot(rows[:, neuron].numpy(), linewidth=1, label=f"neuron {neuron}")
    if threshold is not None:
        axes.axhline(threshold, color="gray", linestyle="--", linewidth=1, label="threshold")
    axes.legend(fontsize="small", frameon=False, ncols=2)
    return figure


def _rows(name: str, values: object, sample: int) -> Tensor:
    """Return (T, neurons) of one sample, on the CPU."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(values).__name__}")
    if values.ndim < 2:
        raise ValueError(f"{name}: expected (T, B, *features) or (T, features), got {describe(values)}")
    batch = 1 if values.ndim == 2 else values.shape[1]
    if not batch:
        raise ValueError(f"{name}: expected one sample or more, got {describe(values)}")
    if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < batch:
        raise ValueError(f"sample: expected an integer from 0 to {batch - 1}, got {sample!r}")
    values = values.detach().cpu().float()
    return values if values.ndim == 2 else values[:, sample].flatten(1)


def learning_curves(out: str | PathLike) -> Figure:
    """Draw loss and accuracy over the epochs of a run.

    Args:
        out: folder of a run of any command, or of `training.fit`.

    Raises:
        FileNotFoundError: if the folder has no metrics.
        ValueError: if they are damaged.

    Example:
        >>> import tempfile
        >>> from htaf_snn import training
        >>> run = training.Run(model="dhn", hidden=(16,), epochs=2, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = training.train(run, folder, progress=False)
        ...     figure = learning_curves(folder)
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'accuracy']
    """
    path = Path(out, "metrics.jsonl")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the metrics of a run, got no file")
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: expected the metrics of a run, got {error}") from error
    loss = _loss(Path(out, "config.json"))
    figure = _empty((8, 3.2))
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, style in (("train", "--"), ("val", "-")):
            of_recipe = quantity == "loss" and part == "train" and loss != "cross-entropy"
            values = [line.get(f"{part}_{quantity}") for line in lines]
            if values and values[0] is not None:
                axes.plot(
                    [line["epoch"] for line in lines],
                    values,
                    style,
                    marker=".",
                    label=f"{part}, {loss}" if of_recipe else part,
                )
        axes.set_xlabel("epoch")
        _whole_steps(axes)
        axes.set_ylabel(quantity)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure


def _loss(config: Path) -> str:
    """Return the loss that a run is trained with; validation always reports the cross-entropy."""
    if not config.is_file():
        return "cross-entropy"
    values = json.loads(config.read_text())
    return "smoothed" if values.get("label_smoothing") else values.get("loss", "cross-entropy")


def confusion(counts: Sequence[Sequence[int]] | np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw how often each class is taken for each.

    Args:
        counts: samples by true class (rows) and predicted class (columns).
        classes: their names.

    Raises:
        ValueError: if the counts are not square, or of another number of classes.

    Example:
        >>> confusion([[9, 1], [0, 10]], ["cat", "dog"]).axes[0].get_ylabel()
        'true class'
    """
    counts = np.asarray(counts)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"counts: expected {len(classes)} rows and columns, got shape {counts.shape}")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 2.5 + 0.45 * len(classes))
    figure, axes = _figure("predicted class", "true class", (side, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 30:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = shares[row, column] > 0.5
                axes.text(column, row, count, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return figure


def over_time(accuracies: Sequence[float]) -> Figure:
    """Draw the accuracy of decisions that are made after each number of time steps.

    Args:
        accuracies: after 1, 2, … time steps.

    Example:
        >>> over_time([0.2, 0.8]).axes[0].get_xlabel()
        'time steps seen'
    """
    figure, axes = _figure("time steps seen", "accuracy")
    axes.plot(range(1, len(accuracies) + 1), accuracies, marker=".")
    _whole_steps(axes)
    axes.set_ylim(0, 1.02)
    return figure


def _whole_steps(axes: Any) -> None:
    """Use whole numbers alone on an axis of steps or epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _figure(x: str, y: str, size: tuple[float, float] = (6.0, 3.2)) -> tuple[Figure, Any]:
    figure = _empty(size)
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _empty(size: tuple[float, float]) -> Figure:
    """Return a figure that no window shows; notebooks draw it, and `savefig` writes it."""
    from ._pdf_figure import PdfFigure

    return PdfFigure(size, layout="constrained")
