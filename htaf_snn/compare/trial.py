"""One trial of a study: a network trained with one surrogate, slope, depth, learning rate and seed."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from .. import hardening, training
from ..configuration import Run
from ..surrogate import Rescaled, resolve
from ..training.folder import device_of
from ..training.loop import kept_epoch
from .matching import rescaled
from .measures import Network, activity, batch_gradient, cosine

TWIN = "relu"
"""In place of a surrogate: the floating-point twin of a network of images."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run of a study, whose hidden layers have one width, and what is done to its surrogate.

    Attributes:
        run: what is trained.
        slope, match, reference: as for `matching.rescaled`.
        variant, place: names of the values of a study's axes, if these are what it compares or where it compares.
    """

    run: Run
    slope: float
    match: str
    reference: str
    variant: str = ""
    place: str = ""

    @property
    def surrogate(self) -> str:
        """The surrogate's specification, or `TWIN`."""
        return TWIN if self.run.model == TWIN else self.run.surrogate

    def rescaled(self) -> Rescaled | None:
        """Return the surrogate, stretched and matched; None for the twin, which has none."""
        return None if self.surrogate == TWIN else rescaled(self.surrogate, self.reference, self.match, self.slope)

    def config(self) -> dict[str, Any]:
        """Return all that the result depends on, by the names of the fields, and the depth."""
        own = {name: getattr(self, name) for name in ("surrogate", "slope", "match", "reference", "variant", "place")}
        return {**asdict(self.run), **own, "depth": len(self.run.hidden)}


@dataclass
class Prepared:
    """A trial's network and data, and the measurements before the training."""

    trial: Trial
    model: Network
    loaders: tuple
    batch: tuple[Tensor, Tensor]
    measured: dict
    recipe: Run
    before_step: Callable[[int, torch.optim.Optimizer], None]


class StoppedError(Exception):
    """A training was ended early, after so many epochs."""

    def __init__(self, epoch: int):
        super().__init__(f"ended after epoch {epoch}")
        self.epoch = epoch


def run(
    trial: Trial,
    processes: training.Processes | None = None,
    is_to_end: Callable[[int, float], bool] = lambda epoch, score: False,
) -> dict:
    """Train, test and measure; on a CPU deterministic for a given number of threads, except for "times".

    Args:
        trial: what to train.
        processes: the processes that train the network together, as in `training.fit`; the result is rank 0's.
        is_to_end: whether the training is to end early, for an epoch counted from 1 and its validation accuracy.

    Returns:
        {"train_accuracy", "val_accuracy", "test_accuracy", "test_loss"; "chance": one over the number of classes;
        "curves": the metrics of each epoch; "stretch", "gain": the factors of the surrogate, None for the twin; the
        fields of `measures.activity` on the test part;
        "gradient_layers", "gradient_steps": gradient norms before training, at the hardness with which it begins,
        "gradient_layers_end": after it;
        "cosine_start", "cosine_end": cosine with the gradient of the reference surrogate before and after training, on
        one batch, None for the twin; "smooth_test_accuracy", "hardening_gap"; "times":
        {"seconds", "ms_per_batch": in the fastest epoch, as the first ones compile, validation included, "peak_mb"}}.

    Raises:
        ValueError, FileNotFoundError, ImportError: if the surrogate, the data set or the training raises it.
        FloatingPointError: if a gradient or the loss is not finite; the message names the layer and the surrogate.
        StoppedError: if the training was ended early.
    """

    def on_epoch(line: dict) -> None:
        if line["epoch"] < trial.run.epochs and is_to_end(line["epoch"], line["val_accuracy"]):
            raise StoppedError(line["epoch"])

    start = time.perf_counter()
    prepared = prepare(trial, processes)
    model, (train, val, _) = prepared.model, prepared.loaders
    with tempfile.TemporaryDirectory() as out:
        try:
            curves = training.fit(
                model,
                train,
                val,
                prepared.recipe,
                out=out,
                progress=False,
                processes=processes,
                on_epoch=on_epoch,
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, behind the surrogate {trial.surrogate}") from None
    result = finish(prepared, curves, processes)
    device = next(model.parameters()).device
    return {**result, "times": times(train, time.perf_counter() - start, curves, device)}


def prepare(trial: Trial, processes: training.Processes | None = None) -> Prepared:
    """Make the data and the network of a trial, as it begins its training: smooth if its hardness is annealed."""
    recipe, surrogate = trial.run, trial.rescaled()
    device = device_of(recipe.device) if processes is None else processes.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    loaders = training.make_loaders(recipe)
    train = loaders[0]
    model = network(trial, train.dataset).to(device)
    if surrogate is not None and recipe.anneal == "alpha":  # the final alpha is that of the stretched surrogate
        recipe = replace(recipe, alpha_end=recipe.alpha_end / surrogate.stretch)
    before_step = training.before_step(recipe, model, training.steps_in_epoch(model, train, processes))
    x, labels = next(iter(train))
    batch = x.to(device), labels.to(device)
    before = batch_gradient(model, *batch)
    measured = {
        "stretch": None if surrogate is None else surrogate.stretch,
        "gain": None if surrogate is None else surrogate.gain,
        "gradient_layers": before["layers"],
        "gradient_steps": before["steps"],
        "cosine_start": _agreement(model, trial, before["flat"], *batch),
    }
    return Prepared(trial, model, loaders, batch, measured, recipe, before_step)


def finish(prepared: Prepared, curves: list[dict], processes: training.Processes | None = None) -> dict:
    """Test and measure a trained network; `curves` are the metrics of its epochs."""
    kept = kept_epoch(curves, prepared.recipe)
    model = prepared.model
    train, _, test = prepared.loaders
    after = batch_gradient(model, *prepared.batch)
    tested = training.runs.test(model, train, test, processes)
    with hardening.hard(model):
        active = activity(model, test)
    return {
        "train_accuracy": curves[kept - 1]["train_accuracy"],
        "val_accuracy": curves[kept - 1]["val_accuracy"],
        **tested,
        "chance": 1 / len(train.dataset.classes),
        **active,
        "curves": [{key: value for key, value in line.items() if key != "seconds"} for line in curves],
        **prepared.measured,
        "gradient_layers_end": after["layers"],
        "cosine_end": _agreement(model, prepared.trial, after["flat"], *prepared.batch),
    }


def times(train: Sized, seconds: float, curves: list[dict], device: torch.device) -> dict:
    """Return a result's "times" from the total seconds and the epochs' in `curves`; on a GPU, memory is the GPU's."""
    if device.type == "cuda":
        peak_mb = torch.cuda.max_memory_allocated(device) // 2**20
    else:  # in bytes on macOS, elsewhere in KiB
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "seconds": seconds,
        "ms_per_batch": 1e3 * min(line["seconds"] for line in curves) / len(train),
        "peak_mb": peak_mb,
    }


def network(trial: Trial, samples) -> Network:
    """Return the network of a trial for samples such as a loader's `dataset`, with new weights."""
    shape, n_classes = training.sample_shape(samples), len(samples.classes)
    return cast(Network, training.make_model(trial.run, shape, n_classes, trial.rescaled()))


def _agreement(model: Network, trial: Trial, gradient: Tensor, x: Tensor, labels: Tensor) -> float | None:
    """Return the cosine of a gradient with that of the same network with the reference surrogate."""
    if trial.surrogate == TWIN:
        return None
    held = [(m, getattr(m, "surrogate", None)) for m in model.modules()]
    holders = [(holder, own) for holder, own in held if isinstance(own, Rescaled)]
    for holder, own in holders:
        holder.surrogate = resolve(trial.reference).to(x.device)
        if holder.surrogate.formula is not None:
            holder.surrogate.hardness = own.function.hardness
    try:
        return cosine(gradient, batch_gradient(model, x, labels)["flat"])
    finally:
        for holder, own in holders:
            holder.surrogate = own
