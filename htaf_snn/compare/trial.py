"""One trial of a study: a network trained with one surrogate, slope, depth, learning rate and seed."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from .. import integrations, models, training
from .. import nn as hnn
from ..integrations.snntorch_adapter import BETA
from ..training.folder import device_of
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
        model: "mlp", a spiking one, or of images "bnn" or "dhn", as in `training.TrainConfig`.
        dataset, root: as in `training.TrainConfig`.
        width: neurons of a hidden layer.
        weight_surrogate, epochs, batch_size, n_time_bins, schedule, alpha_end, anneal: as in `training.TrainConfig`.
        folds: pool the data set's parts, and test on fold ``seed % folds`` of so many; None keeps the parts.
        device: as in `training.TrainConfig`.
    """

    surrogate: str = "htaf"
    slope: float = 1.0
    depth: int = 2
    lr: float = 1e-3
    seed: int = 0
    match: str = "none"
    reference: str = "htaf"
    model: str = "mlp"
    dataset: str = "saccade-digits"
    root: str | None = None
    width: int = 128
    weight_surrogate: str = "clipped_ste"
    epochs: int = 5
    batch_size: int = 32
    n_time_bins: int = 10
    schedule: str = "constant"
    alpha_end: float = 20.0
    anneal: str = "exponential"
    folds: int | None = None
    device: str = "auto"

    def trained(self) -> training.TrainConfig:
        """What `training` calls it."""
        shared = {field.name for field in fields(training.TrainConfig)} & {field.name for field in fields(Config)}
        values = {name: getattr(self, name) for name in shared - {"surrogate"}}
        fold = None if self.folds is None else self.seed % self.folds
        return training.TrainConfig(**values, hidden=(self.width,) * self.depth, fold=fold)


def surrogate_of(config: Config) -> Rescaled:
    """The surrogate of a trial, stretched and matched."""
    reference = integrations.parse(config.reference)
    return rescaled(integrations.parse(config.surrogate), reference, config.match, config.slope)


@dataclass
class Prepared:
    """A trial's network and data, and what is measured before the training."""

    config: Config
    model: nn.Module
    loaders: tuple
    batch: tuple[Tensor, Tensor]
    measured: dict


def run(config: Config, processes: training.Processes | None = None) -> dict:
    """Train, test and measure; on a CPU deterministic for one number of threads, but for "times".

    Args:
        config: what to do.
        processes: those that train the network together, as of `training.fit`; the result is the first one's.

    Returns:
        {"train_accuracy", "val_accuracy", "test_accuracy", "test_loss"; "curves": the metrics of each epoch; "stretch",
        "gain": the factors of the surrogate; the fields of `measures.activity` on the test part; "gradient_layers",
        "gradient_steps": norms at the start; "cosine_start", "cosine_end": of the gradient with that of the reference
        surrogate, on one batch; for a smooth surrogate "smooth_test_accuracy" and "hardening_gap"; "times": {"seconds",
        "ms_per_step": of the quickest epoch, its validation included, as the first ones compile, "peak_mb"}}.

    Raises:
        ValueError, FileNotFoundError, ImportError: as the surrogate, the data set or the training.
        FloatingPointError: if a gradient or the loss is not finite; it names the layer and the surrogate.
    """
    start = time.perf_counter()
    prepared = prepare(config, None if processes is None else processes.device)
    train, val, _ = prepared.loaders
    options = {"epochs": config.epochs, "lr": config.lr, "progress": False, "processes": processes}
    options["before_step"] = training.before_step(
        config, prepared.model, training.steps_in_epoch(prepared.model, train, processes)
    )
    with tempfile.TemporaryDirectory() as out:
        try:
            curves = training.fit(prepared.model, train, val, out=out, **options)
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}, behind the surrogate {config.surrogate}") from None
    result = finish(prepared, curves)
    device = next(prepared.model.parameters()).device
    return {**result, "times": times(train, time.perf_counter() - start, curves, device)}


def prepare(config: Config, device: torch.device | None = None) -> Prepared:
    """Make the data and the network of a trial, on that device or the configuration's."""
    device = device or device_of(config.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step, loaders = surrogate_of(config), training.make_loaders(config.trained())
    train = loaders[0]
    model = _network(config, train.dataset, step).to(device)
    x, labels = next(iter(train))
    batch = x.to(device), labels.to(device)
    before = batch_gradient(model, *batch)
    measured = {
        "stretch": step.stretch,
        "gain": step.gain,
        "gradient_layers": before["layers"],
        "gradient_steps": before["steps"],
        "cosine_start": _agreement(model, config, before["flat"], *batch),
    }
    return Prepared(config, model, loaders, batch, measured)


def finish(prepared: Prepared, curves: list[dict]) -> dict:
    """Test and measure a trained network; `curves` are the metrics of its epochs."""
    config, model = prepared.config, prepared.model
    after = batch_gradient(model, *prepared.batch)["flat"]
    return {
        "train_accuracy": curves[-1]["train_accuracy"],
        "val_accuracy": curves[-1]["val_accuracy"],
        **_tested(model, prepared.loaders),
        "curves": [{key: value for key, value in line.items() if key != "seconds"} for line in curves],
        **prepared.measured,
        "cosine_end": _agreement(model, config, after, *prepared.batch),
    }


def times(train, seconds: float, curves: list[dict], device: torch.device) -> dict:
    """A result's "times", from those of all and of each epoch in `curves`; memory is the GPU's where one is used."""
    if device.type == "cuda":
        peak_mb = torch.cuda.max_memory_allocated(device) // 2**20
    else:  # in bytes on macOS, elsewhere in KiB
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "seconds": seconds,
        "ms_per_step": 1e3 * min(line["seconds"] for line in curves) / len(train),
        "peak_mb": peak_mb,
    }


def _network(config: Config, samples, step: Rescaled) -> nn.Module:
    torch.manual_seed(config.seed)
    features, classes = torch.Size(training.sample_shape(samples)).numel(), len(samples.classes)
    if config.model == "mlp":
        neuron = partial(hnn.Leaky, beta=BETA, surrogate=step)
        return models.SpikingMLP(features, config.trained().hidden, classes, lambda: hnn.Sequential(neuron()))
    activation = partial(integrations.parse, config.surrogate)
    model = training.binary_network(config.trained(), features, classes, activation)
    for number, module in enumerate(model):
        if isinstance(module, hnn.BinaryActivation):
            model[number] = Rescaled(module, step.stretch, step.gain)
    return model


@contextmanager
def _with_reference(model: nn.Module, config: Config) -> Iterator[None]:
    """Within the block the network has the reference surrogate."""
    holders = [(m, m.surrogate) for m in model.modules() if isinstance(m, (hnn.Leaky, hnn.BinaryActivation))]
    factors = [(m, m.stretch, m.gain) for m in model.modules() if isinstance(m, Rescaled)]
    for module, _ in holders:
        _put_surrogate(module, integrations.parse(config.reference))
    for module, _, _ in factors:
        module.stretch = module.gain = 1.0
    try:
        yield
    finally:
        for module, own in holders:
            _put_surrogate(module, own)
        for module, stretch, gain in factors:
            module.stretch, module.gain = stretch, gain


def _put_surrogate(module: nn.Module, surrogate: Callable[[Tensor], Tensor]) -> None:
    del module.surrogate  # torch lets no function take the place of a module
    module.surrogate = surrogate


def _agreement(model: nn.Module, config: Config, gradient: Tensor, x: Tensor, labels: Tensor) -> float | None:
    """The cosine of a gradient with that of the same network with the reference surrogate."""
    with _with_reference(model, config):
        return cosine(gradient, batch_gradient(model, x, labels)["flat"])


def _tested(model: nn.Module, loaders: tuple) -> dict:
    """Test results and activity, of the network with hard steps."""
    train, _, test = loaders
    found = training.evaluate_hard(model, train, test)
    with training.hardened(model):
        measured = activity(model, test)
    result = {"test_accuracy": found["accuracy"], "test_loss": found["loss"], **measured}
    if "hardening_gap" in found:
        result |= {"smooth_test_accuracy": found["smooth_accuracy"], "hardening_gap": found["hardening_gap"]}
    return result
