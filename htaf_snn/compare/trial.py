"""One trial of a study: a network trained with one surrogate, slope, depth, learning rate and seed."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import integrations, models, training
from .. import nn as hnn
from ..integrations.snntorch_adapter import BETA
from ..surrogate import Surrogate
from .matching import Rescaled, rescaled
from .measures import activity, batch_gradient, cosine

__all__ = ["Config", "Prepared", "finish", "prepare", "run", "times"]


@dataclass(frozen=True)
class Config:
    """What one trial does.

    Attributes:
        surrogate: a specification of `htaf_snn.integrations.parse`.
        slope: stretches the surrogate.
        depth: the number of hidden layers.
        lr: learning rate of Adam.
        seed: of weights, order and data division.
        match: of `matching.MATCHES`.
        reference: the surrogate that is matched to, and with whose gradient others are compared.
        dataset, data_root: as in `training.TrainConfig`.
        width: neurons of a hidden layer.
        epochs, batch_size, time_bins: as in `training.TrainConfig`.
        folds: pool the data set's parts, and test on fold ``seed % folds`` of so many; None keeps the parts.
    """

    surrogate: str = "htaf"
    slope: float = 1.0
    depth: int = 2
    lr: float = 1e-3
    seed: int = 0
    match: str = "none"
    reference: str = "htaf"
    dataset: str = "saccade-digits"
    data_root: str | None = None
    width: int = 128
    epochs: int = 5
    batch_size: int = 32
    time_bins: int = 10
    folds: int | None = None


def surrogate_of(config: Config) -> Rescaled:
    """The surrogate of a trial, stretched and matched."""
    reference = integrations.parse(config.reference)
    return rescaled(integrations.parse(config.surrogate), reference, config.match, config.slope)


@dataclass
class Prepared:
    """A trial's network and data, and what is measured before the training."""

    config: Config
    step: Rescaled
    model: nn.Module
    loaders: tuple
    batch: tuple[Tensor, Tensor]
    measured: dict


def run(config: Config, processes: training.Processes | None = None) -> dict:
    """Train, test and measure; deterministic for one number of threads, but for "times".

    Args:
        config: what to do.
        processes: those that train the network together, as of `training.fit`; the result is the first one's.

    Returns:
        {"train_accuracy", "val_accuracy", "test_accuracy", "test_loss"; "curves": the metrics of each epoch; "stretch",
        "gain": the factors of the surrogate; the fields of `measures.activity` on the test part; "gradient_layers",
        "gradient_steps": norms at the start; "cosine_start", "cosine_end": of the gradient with that of the reference
        surrogate, on one batch; for a smooth surrogate "smooth_test_accuracy" and "hardening_gap"; "times": {"seconds",
        "ms_per_step", "peak_mb"}}.

    Raises:
        ValueError, FileNotFoundError, ImportError: as the surrogate, the data set or the training.
        FloatingPointError: if a gradient or the loss is not finite; it names the layer and the surrogate.
    """
    start = time.perf_counter()
    prepared = prepare(config)
    train, val, _ = prepared.loaders
    trained = time.perf_counter()
    options = {"epochs": config.epochs, "lr": config.lr, "progress": False, "processes": processes}
    with tempfile.TemporaryDirectory() as out:
        try:
            curves = training.fit(prepared.model, train, val, out=out, **options)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, behind the surrogate {config.surrogate}") from None
    seconds = time.perf_counter() - trained
    result = finish(prepared, curves)
    return {**result, "times": times(config, train, time.perf_counter() - start, seconds)}


def prepare(config: Config) -> Prepared:
    """Make the data and the network of a trial."""
    import neuromorphic_datasets as nd

    step = surrogate_of(config)
    loaders = nd.loaders(
        config.dataset,
        root=config.data_root,
        batch_size=config.batch_size,
        time_bins=config.time_bins,
        seed=config.seed,
        folds=config.folds,
        fold=None if config.folds is None else config.seed % config.folds,
    )
    train = loaders[0]
    model = _network(config, train.dataset, step)
    batch = next(iter(train))
    before = batch_gradient(model, *batch)
    measured = {
        "stretch": step.stretch,
        "gain": step.gain,
        "gradient_layers": before["layers"],
        "gradient_steps": before["steps"],
        "cosine_start": _agreement(model, config, before["flat"], *batch),
    }
    return Prepared(config, step, model, loaders, batch, measured)


def finish(prepared: Prepared, curves: list[dict]) -> dict:
    """Test and measure a trained network; `curves` are the metrics of its epochs."""
    config, model = prepared.config, prepared.model
    after = batch_gradient(model, *prepared.batch)["flat"]
    return {
        "train_accuracy": curves[-1]["train_accuracy"],
        "val_accuracy": curves[-1]["val_accuracy"],
        **_tested(model, prepared.step, prepared.loaders[2]),
        "curves": [{key: value for key, value in line.items() if key != "seconds"} for line in curves],
        **prepared.measured,
        "cosine_end": _agreement(model, config, after, *prepared.batch),
    }


def times(config: Config, train, seconds: float, training_seconds: float) -> dict:
    """A result's "times"."""
    return {
        "seconds": seconds,
        "ms_per_step": 1e3 * training_seconds / (config.epochs * len(train)),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _network(config: Config, recordings, step: Callable[[Tensor], Tensor]) -> nn.Module:
    torch.manual_seed(config.seed)
    width, height, polarities = recordings.sensor_size

    def neuron() -> nn.Module:
        return hnn.Sequential(hnn.Leaky(beta=BETA, surrogate=step))

    hidden = (config.width,) * config.depth
    return models.SpikingMLP(width * height * polarities, hidden, len(recordings.classes), neuron)


def _leaky_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, hnn.Leaky)]


def _agreement(model: nn.Module, config: Config, gradient: Tensor, frames: Tensor, labels: Tensor) -> float | None:
    """The cosine of a gradient with that of the same network with the reference surrogate."""
    layers = _leaky_layers(model)
    own = [layer.surrogate for layer in layers]
    for layer in layers:
        layer.surrogate = integrations.parse(config.reference)
    try:
        return cosine(gradient, batch_gradient(model, frames, labels)["flat"])
    finally:
        for layer, surrogate in zip(layers, own, strict=True):
            layer.surrogate = surrogate


def _tested(model: nn.Module, step: Rescaled, test) -> dict:
    """Test results and activity, for a smooth surrogate too of the spiking network."""
    found = training.evaluate(model, test)
    if not (isinstance(step.step, Surrogate) and step.step.mode == "smooth"):
        return {"test_accuracy": found["accuracy"], "test_loss": found["loss"], **activity(model, test)}
    step.step.mode = "spike"
    try:
        hard = training.evaluate(model, test)
        measured = activity(model, test)
    finally:
        step.step.mode = "smooth"
    return {
        "test_accuracy": hard["accuracy"],
        "test_loss": hard["loss"],
        "smooth_test_accuracy": found["accuracy"],
        "hardening_gap": found["accuracy"] - hard["accuracy"],
        **measured,
    }
