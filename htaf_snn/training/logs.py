"""Metrics for TensorBoard, and the pictures in a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import hardening, plots
from .._files import replacing
from .._packages import needs
from ..nn._batches import class_scores, unpack
from ..nn._modes import in_eval

CURVES = "learning_curves.svg"
CONFUSION = "confusion.svg"
TENSORBOARD = "tensorboard"


def logger(log: str, out: Path) -> Callable[[dict[str, Any]], None]:
    """Return what takes an epoch's metrics: nothing for "none", TensorBoard's event file in the folder otherwise.

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    if log == "none":
        return lambda line: None
    with needs("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter

    def write(line: dict[str, Any]) -> None:
        # A writer per epoch: of a resumed run, what was logged from that epoch on is hidden.
        with SummaryWriter(str(out / TENSORBOARD), purge_step=line["epoch"]) as writer:
            for name, value in line.items():
                if isinstance(value, list):
                    for layer, one in enumerate(value, 1):
                        writer.add_scalar(f"{name}/{layer}", one, line["epoch"])
                elif name != "epoch":
                    writer.add_scalar(name, value, line["epoch"])

    return write


def draw(out: Path, model: nn.Module, loader: Iterable, classes: list[str]) -> None:
    """Draw the learning curves of a run and the confusion matrix of its hard network."""
    with hardening.hard(model):
        counts = confusion(model, loader, len(classes))
    for name, figure in {CURVES: plots.learning_curves(out), CONFUSION: plots.confusion(counts, classes)}.items():
        with replacing(out / name) as temporary:
            figure.savefig(temporary, format="svg")


@torch.no_grad()
def confusion(model: nn.Module, loader: Iterable, n_classes: int) -> list[list[int]]:
    """Return the samples of a loader by true class (rows) and predicted class, for a model in eval mode.

    Example:
        >>> scores = torch.eye(2)
        >>> confusion(nn.Identity(), [(scores, torch.tensor([0, 0]))], 2)
        [[1, 1], [0, 0]]
    """
    counts = torch.zeros(n_classes, n_classes, dtype=torch.int64)
    with in_eval(model):
        for batch in map(unpack, loader):
            scores, labels = class_scores(model, batch)
            counts.index_put_((labels.cpu(), scores.argmax(1).cpu()), torch.ones(len(labels), dtype=torch.int64), True)
    return counts.tolist()
