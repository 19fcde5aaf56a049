"""One trial of a study: a network trained with one surrogate, slope, depth, learning rate and seed."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sized
from dataclasses import dataclass, fields, replace
from typing import cast

import torch
from torch import Tensor

from .. import hardening, training
from .. import nn as hnn
from ..configuration import Compared, Run
from ..surrogate import Rescaled, resolve
from ..training.folder import device_of
from .matching import rescaled
from .measures import Network, activity, batch_gradient, cosine

TWIN = "relu"
"""In place of a surrogate: the floating-point twin of a network of images."""


@dataclass(frozen=True, kw_only=True)
class Config(Compared):
    """The configuration of one trial: one of each of the values that `compare.Settings` lists."""

    dataset: str = "saccade-digits"
    surrogate: str = "htaf"
    anneal: str = "none"
    identity: float = 0.0
    slope: float = 1.0
    depth: int = 2
    lr: float = 1e-3
    seed: int = 0

    def trained(self) -> Run:
        """Return the configuration of the trial's training."""
        shared = {field.name for field in fields(Run)} & {field.name for field in fields(Config)} - {"width"}
        values = {name: getattr(self, name) for name in shared - {"surrogate"}}
        if self.surrogate == TWIN:
            values |= {"model": TWIN, "weight_surrogate": Run.weight_surrogate}
        fold = None if self.folds is None else self.seed % self.folds
        return Run(**values, hidden=(self.width,) * self.depth, fold=fold)


def surrogate_of(config: Config) -> Rescaled | None:
    """Return the surrogate of a trial, stretched and matched; None for the twin, which has none."""
    if config.surrogate == TWIN:
        return None
    return rescaled(config.surrogate, config.reference, config.match, config.slope)


@dataclass
class Prepared:
    """A trial's network and data, and the measurements before the training."""

    config: Config
    model: Network
    loaders: tuple
    batch: tuple[Tensor, Tensor]
    measured: dict
    recipe: Run
    before_step: Callable[[int, torch.optim.Optimizer], None]


def run(config: Config, processes: training.Processes | None = None) -> dict:
    """Train, test and measure; on a CPU deterministic for a given number of threads, except for "times".

    Args:
        config: the trial.
        processes: the processes that train the network together, as in `training.fit`; the result is rank 0's.

    Returns:
        {"train_accuracy", "val_accuracy", "test_accuracy", "test_loss"; "curves": the metrics of each epoch; "stretch",
        "gain": the factors of the surrogate, None for the twin; the fields of `measures.activity` on the test part;
        "gradient_layers", "gradient_steps": gradient norms before training, at the hardness with which it begins,
        "gradient_layers_end": after it;
        "cosine_start", "cosine_end": cosine with the gradient of the reference surrogate before and after training, on
        one batch, None for the twin; "smooth_test_accuracy", "hardening_gap"; "times":
        {"seconds", "ms_per_step": in the fastest epoch, as the first ones compile, validation included, "peak_mb"}}.

    Raises:
        ValueError, FileNotFoundError, ImportError: if the surrogate, the data set or the training raises it.
        FloatingPointError: if a gradient or the loss is not finite; the message names the layer and the surrogate.
    """
    start = time.perf_counter()
    prepared = prepare(config, processes)
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
            )
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, behind the surrogate {config.surrogate}") from None
    result = finish(prepared, curves)
    device = next(model.parameters()).device
    return {**result, "times": times(train, time.perf_counter() - start, curves, device)}


def prepare(config: Config, processes: training.Processes | None = None) -> Prepared:
    """Make the data and the network of a trial, as it begins its training: smooth if its hardness is annealed."""
    device = device_of(config.device) if processes is None else processes.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    surrogate, loaders = surrogate_of(config), training.make_loaders(config.trained())
    train = loaders[0]
    model = _network(config, train.dataset, surrogate).to(device)
    trained = config.trained()
    if surrogate is not None and config.anneal == "alpha":  # the final alpha is that of the stretched surrogate
        trained = replace(trained, alpha_end=trained.alpha_end / surrogate.stretch)
    before_step = training.before_step(trained, model, training.steps_in_epoch(model, train, processes))
    x, labels = next(iter(train))
    batch = x.to(device), labels.to(device)
    before = batch_gradient(model, *batch)
    measured = {
        "stretch": None if surrogate is None else surrogate.stretch,
        "gain": None if surrogate is None else surrogate.gain,
        "gradient_layers": before["layers"],
        "gradient_steps": before["steps"],
        "cosine_start": _agreement(model, config, before["flat"], *batch),
    }
    return Prepared(config, model, loaders, batch, measured, trained, before_step)


def finish(prepared: Prepared, curves: list[dict]) -> dict:
    """Test and measure a trained network; `curves` are the metrics of its epochs."""
    config, model = prepared.config, prepared.model
    train, _, test = prepared.loaders
    after = batch_gradient(model, *prepared.batch)
    tested = training.runs.test(model, train, test)
    with hardening.hard(model):
        active = activity(model, test)
    return {
        "train_accuracy": curves[-1]["train_accuracy"],
        "val_accuracy": curves[-1]["val_accuracy"],
        **tested,
        **active,
        "curves": [{key: value for key, value in line.items() if key != "seconds"} for line in curves],
        **prepared.measured,
        "gradient_layers_end": after["layers"],
        "cosine_end": _agreement(model, config, after["flat"], *prepared.batch),
    }


def times(train: Sized, seconds: float, curves: list[dict], device: torch.device) -> dict:
    """Return a result's "times" from the total seconds and the epochs' in `curves`; on a GPU, memory is the GPU's."""
    if device.type == "cuda":
        peak_mb = torch.cuda.max_memory_allocated(device) // 2**20
    else:  # in bytes on macOS, elsewhere in KiB
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "seconds": seconds,
        "ms_per_step": 1e3 * min(line["seconds"] for line in curves) / len(train),
        "peak_mb": peak_mb,
    }


def _network(config: Config, samples, surrogate: Rescaled | None) -> Network:
    shape, n_classes = training.sample_shape(samples), len(samples.classes)
    return cast(Network, training.make_model(config.trained(), shape, n_classes, surrogate))


def _agreement(model: Network, config: Config, gradient: Tensor, x: Tensor, labels: Tensor) -> float | None:
    """Return the cosine of a gradient with that of the same network with the reference surrogate."""
    if config.surrogate == TWIN:
        return None
    holders = [(m, m.surrogate) for m in model.modules() if isinstance(m, (hnn.Leaky, hnn.BinaryActivation))]
    for holder, own in holders:
        holder.surrogate = resolve(config.reference).to(x.device)
        if holder.surrogate.formula is not None:
            holder.surrogate.hardness = own.function.hardness
    try:
        return cosine(gradient, batch_gradient(model, x, labels)["flat"])
    finally:
        for holder, own in holders:
            holder.surrogate = own
