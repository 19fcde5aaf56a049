"""The figures of a run's network on its test data, and a page that shows them."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import interop, plots, training
from .._files import replacing
from .._pages import render
from ..compare.measures import Network, activity
from ..configuration import SPIKING, ConceptRun, Run
from ..models.deep import SelfAttention
from ..models.neurons import needs_register
from ..models.spiking import SpikingNet
from ..nn._batches import device_of
from ..training.folder import device_of as named_device
from ..training.folder import read_data, write_json
from ..training.logs import confusion

FIGURES = "evaluation.json"
PAGE = "evaluation.html"


def evaluate_run(
    out: str | PathLike, *, data_root: str | PathLike | None = None, device: str = "auto", page: bool = True
) -> dict[str, Any]:
    """Measure the network of a run on the test part of its data, and write the figures and a page into its folder.

    Args:
        out: folder of a run of `htaf-snn train` or `icbm`, or of one of its folds.
        data_root: folder of the data set; None is that of the training.
        device: "auto", "cpu" or "cuda".
        page: also write `evaluation.html`.

    Returns:
        {"accuracy", "samples", "accuracy_by_class": by name, None for a class without samples, "confusion": samples by
        true class (rows) and predicted class; of networks with neurons or activations: "spike_rate", "dead" and
        "saturated" by layer, "acs" and "macs", the accumulations and multiply-accumulates per sample, and "energy_nj",
        as of a study, None where the network has operations that are not counted, such as attention; of spiking
        networks: "accuracy_over_time": after each time step, and "decision_step": the mean number of time steps after
        which the decision does not change any more}, also in `evaluation.json`.

    Raises:
        FileNotFoundError, ValueError: as `training.load` and `training.make_loaders`.

    Example:
        >>> import tempfile
        >>> run = training.Run(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = training.train(run, folder, progress=False)
        ...     figures = evaluate_run(folder, page=False)
        >>> figures["accuracy"] == result["test_accuracy"], len(figures["confusion"])
        (True, 10)
    """
    out, config = Path(out), config_of(out)
    net = training.load(out).to(named_device(device))
    if data_root is not None:
        config = replace(config, data_root=str(data_root))
    loader, classes = training.make_loaders(config)[2], read_data(out)["classes"]
    if list(loader.dataset.classes) != classes:
        raise ValueError(f"data_root: expected the classes of the training, {classes}, got {loader.dataset.classes}")
    with extended(config):
        figures = {**_answers(net, loader, classes), **_operations(net, loader), **_latency(net, loader)}
    write_json(out / FIGURES, figures)
    if page:
        with replacing(out / PAGE) as temporary:
            temporary.write_text(_page(out, figures, classes))
    return figures


def config_of(out: str | PathLike) -> Run | ConceptRun:
    """Return the configuration of a run of a command; ValueError for one of `concepts.fit`, which names no data."""
    config = training.read_config(out)
    if not isinstance(config, (Run, ConceptRun)):
        raise ValueError(f"{out}: expected a run whose configuration names its data, got one of concepts.fit")
    return config


def extended(config: Run | ConceptRun):
    """Return a context in which the libraries know this package's surrogates, where the network needs it."""
    if isinstance(config, Run) and config.model in SPIKING and needs_register(config.library, config.surrogate):
        return interop.register()
    return nullcontext()


def _answers(net: nn.Module, loader: DataLoader, classes: list[str]) -> dict[str, Any]:
    counts = torch.tensor(confusion(net, loader, len(classes)))
    right, totals = counts.diagonal().tolist(), counts.sum(1).tolist()
    if not sum(totals):
        raise ValueError("dataset: expected at least one test sample, got none")
    by_class = {name: right[i] / totals[i] if totals[i] else None for i, name in enumerate(classes)}
    return {
        "accuracy": sum(right) / sum(totals),
        "samples": sum(totals),
        "accuracy_by_class": by_class,
        "confusion": counts.tolist(),
    }


def _operations(net: nn.Module, loader: DataLoader) -> dict[str, Any]:
    if not hasattr(net, "neurons"):
        return {}
    found = activity(cast(Network, net), loader)
    attends = any(isinstance(module, SelfAttention) for module in net.modules())
    return found | (dict.fromkeys(("acs", "macs", "energy_nj")) if attends else {})


@torch.no_grad()
def _latency(net: nn.Module, loader: DataLoader) -> dict[str, Any]:
    if not isinstance(net, SpikingNet):
        return {}
    right: Tensor | float = 0.0
    decided = samples = 0.0
    for x, labels in loader:
        device = device_of(net)
        scores = net.stream(x.to(device))[0].cumsum(0).argmax(2)  # decisions (T, B) of the mean so far
        right = right + (scores == labels.to(device)).double().sum(1)
        changes = (scores[1:] != scores[:-1]).long()
        steps = torch.arange(1, len(scores), device=device)[:, None]
        decided += ((changes * steps).amax(0) + 1).sum().item() if len(scores) > 1 else len(labels)
        samples += len(labels)
    assert isinstance(right, Tensor)
    return {"accuracy_over_time": (right / samples).tolist(), "decision_step": decided / samples}


def _page(out: Path, figures: dict[str, Any], classes: list[str]) -> str:
    drawn = {"Confusion matrix": plots.confusion(figures["confusion"], classes)}
    if "accuracy_over_time" in figures:
        drawn["Accuracy over time"] = plots.over_time(figures["accuracy_over_time"])
    drawn["Training"] = plots.learning_curves(out)
    layers = list(zip(*(figures.get(name, ()) for name in ("spike_rate", "dead", "saturated")), strict=True))
    pictures = {title: _svg(figure) for title, figure in drawn.items()}
    return render(
        "htaf_snn.evaluation", "evaluation.html.jinja", out=out.name, figures=figures, layers=layers, pictures=pictures
    )


def _svg(figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg")
    text = file.getvalue()
    return text[text.index("<svg") :]
