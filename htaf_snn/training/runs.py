"""Runs: a configuration, its data and model, trained into a folder and tested."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path

import torch
from torch import nn

from .. import integrations, models
from .checkpoint import CHECKPOINT, load_checkpoint
from .folder import (
    check_folder,
    check_same_data,
    device_of,
    is_count,
    is_number,
    make_plain,
    new_folder,
    read_settings,
    require,
    write_json,
)
from .loop import PRECISIONS, evaluate_hard, fit, make_hard, restore, steps_in_epoch
from .processes import Processes
from .recipe import ANNEALS, SCHEDULES, before_step, check_annealing, end_annealing

SPIKING = ("mlp", "cnn")
# Networks of images whose activations are steps.
HARDENED = ("bnn", "dhn")
MODELS = (*SPIKING, *HARDENED, "relu")
OFFLINE = {model: "saccade-digits" if model in SPIKING else "digits" for model in MODELS}


@dataclass(frozen=True)
class TrainConfig:
    """What `train` does; the defaults take about 20 s on two cores.

    Attributes:
        dataset: a name of `neuromorphic_datasets.names()`; for the models of images, of
            `neuromorphic_datasets.images.names()`. None is the one that needs no download, saccade-digits or digits.
        data_root: folder of the data set; None for the default place.
        download: fetch the data set if it is not there.
        library: "snntorch" or "norse", whose neurons spiking models use, or "fused" for this package's.
        surrogate: a specification such as "htaf(alpha=0.5, beta=8)" or "snntorch.atan(alpha=2)". In smooth mode the
            network is hard in evaluation.
        model: spiking, "mlp" or "cnn"; of images, "bnn" (`models.BinaryMLP`), "dhn" (`models.DeepHeavisideNet`) or
            "relu", their twin in floating point.
        estimator: of the weights of the bnn, as of `htaf_snn.nn.BinaryLinear`.
        hidden: neurons, or channels of the cnn, of each hidden layer.
        epochs, batch_size, time_bins: at least 1.
        lr: Adam's learning rate, in (0, 1e6].
        schedule: "constant", or "cosine" for one that rises in the first tenth and falls to 0.
        alpha_end: what the alpha of the smooth activations of bnn and dhn is raised to, from its own, in (0, 1e6];
            spiking networks keep theirs.
        anneal: how alpha is raised, as of `htaf_snn.nn.AnnealAlpha`.
        precision: "float32" or "bfloat16", as of `fit`.
        compiled: train through `torch.compile`.
        seed: of the weights, the order of the samples and the division of the data.
        val_fraction: part of the training samples kept for validation, in [0, 1).
        folds, fold: pool all samples and test on the fold-th of so many stratified folds.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if a value is out of range, or is not the default and has no effect on the model; an unknown
            library, surrogate or data set is refused by `train`.

    Example:
        >>> config = TrainConfig(model="dhn", hidden=(64, 64), schedule="cosine")
        >>> config.dataset, config.epochs
        ('digits', 20)
        >>> TrainConfig(lr=0.0)
        Traceback (most recent call last):
            ...
        ValueError: lr: expected a number in (0, 1e6], got 0.0
    """

    dataset: str | None = None
    data_root: str | None = None
    download: bool = False
    library: str = "snntorch"
    surrogate: str = "htaf"
    model: str = "mlp"
    estimator: str = "clipped_ste"
    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 20
    batch_size: int = 32
    time_bins: int = 10
    lr: float = 1e-3
    schedule: str = "constant"
    alpha_end: float = 20.0
    anneal: str = "exponential"
    precision: str = "float32"
    compiled: bool = False
    seed: int = 0
    val_fraction: float = 0.1
    folds: int | None = None
    fold: int | None = None
    device: str = "auto"

    def __post_init__(self):
        make_plain(self)
        for name in ("epochs", "batch_size", "time_bins"):
            require(name, getattr(self, name), "an integer of at least 1", lambda v: is_count(v))
        require(
            "hidden",
            self.hidden,
            "one or more positive integers",
            lambda v: isinstance(v, tuple) and v and all(map(is_count, v)),
        )
        require("folds", self.folds, "None or an integer of at least 2", lambda v: v is None or (is_count(v) and v > 1))
        require("lr", self.lr, "a number in (0, 1e6]", lambda v: is_number(v) and 0 < v <= 1e6)
        require("val_fraction", self.val_fraction, "a number in [0, 1)", lambda v: is_number(v) and 0 <= v < 1)
        require(
            "seed",
            self.seed,
            "an integer from 0 to 2^63 - 1",
            lambda v: v is not True and isinstance(v, int) and 0 <= v < 2**63,
        )
        require("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}", lambda v: v in SCHEDULES)
        require("anneal", self.anneal, f"one of {', '.join(ANNEALS)}", lambda v: v in ANNEALS)
        require("precision", self.precision, f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS)
        require("alpha_end", self.alpha_end, "a number in (0, 1e6]", lambda v: is_number(v) and 0 < v <= 1e6)
        require("model", self.model, f"one of {', '.join(MODELS)}", lambda v: v in MODELS)
        if self.folds is not None and self.model not in SPIKING:
            raise ValueError(f"folds: expected None for a model of images, got {self.folds}")
        self._check_effects()
        if self.dataset is None:
            object.__setattr__(self, "dataset", OFFLINE[self.model])
        require("device", self.device, "one of auto, cpu, cuda", lambda v: v in ("auto", "cpu", "cuda"))

    def _check_effects(self) -> None:
        """Raise ValueError if a value has no effect."""
        fold = -1 if isinstance(self.fold, bool) or not isinstance(self.fold, int) else self.fold
        if self.fold is not None and (self.folds is None or not 0 <= fold < self.folds):
            raise ValueError(f"fold: expected a fold of {self.folds} folds, counted from 0, got {self.fold!r}")
        users = {"library": SPIKING, "time_bins": SPIKING, "surrogate": (*SPIKING, *HARDENED), "estimator": ("bnn",)}
        users |= dict.fromkeys(("alpha_end", "anneal"), HARDENED)
        for field in fields(self):
            value, models = getattr(self, field.name), users.get(field.name, MODELS)
            if self.model not in models and value != field.default:
                raise ValueError(
                    f"{field.name}: {value!r} has no effect on the model {self.model}, only on {', '.join(models)}"
                )


def image_loaders(config) -> tuple:
    """(train, val, test) loaders of the images that a configuration names; val is None without validation.

    Args:
        config: a `TrainConfig`, or anything with its `dataset`, `data_root`, `download`, `batch_size`, `val_fraction`
            and `seed`.

    Returns:
        As `neuromorphic_datasets.images.loaders`: batches of float32 (B, C, H, W) within [0, 1] and int64 (B,).

    Raises:
        ValueError, FileNotFoundError: as `neuromorphic_datasets.images.loaders`.

    Example:
        >>> train, val, test = image_loaders(TrainConfig(model="bnn", batch_size=50))
        >>> images, labels = next(iter(test))
        >>> images.shape, labels.shape
        (torch.Size([50, 1, 8, 8]), torch.Size([50]))
    """
    import neuromorphic_datasets as nd

    names = ("download", "batch_size", "val_fraction", "seed")
    return nd.images.loaders(config.dataset, root=config.data_root, **{name: getattr(config, name) for name in names})


def make_loaders(config: TrainConfig) -> tuple:
    """(train, val, test) loaders of a configuration's data; val is None without validation.

    Args:
        config: for models of images as of `image_loaders`.

    Returns:
        As `neuromorphic_datasets.loaders`: batches of float32 (T, B, C, H, W) and int64 (B,); for models of images as
        `image_loaders`.

    Raises:
        ValueError, OSError: as `neuromorphic_datasets.loaders`.

    Example:
        >>> train, val, test = make_loaders(TrainConfig(model="relu", val_fraction=0.0))
        >>> len(train.dataset), val, len(test.dataset)
        (1437, None, 360)
    """
    import neuromorphic_datasets as nd

    images, takes_images = config.dataset in nd.images.names(), config.model not in SPIKING
    if images != takes_images and (images or config.dataset in nd.names()):
        wanted, came = ("images", "recordings") if takes_images else ("recordings", "images")
        suited = [model for model in MODELS if images == (model not in SPIKING)]
        raise ValueError(
            f"dataset: expected {wanted} for the model {config.model}, got {config.dataset}, a set of {came}; "
            f"models of {came} are {', '.join(suited)}"
        )
    if takes_images:
        return image_loaders(config)
    return nd.loaders(
        config.dataset,
        root=config.data_root,
        download=config.download,
        batch_size=config.batch_size,
        n_time_bins=config.time_bins,
        val_fraction=config.val_fraction,
        seed=config.seed,
        folds=config.folds,
        fold=config.fold,
    )


def _make_model(config: TrainConfig, frame_shape: tuple[int, int, int], classes: int) -> nn.Module:
    torch.manual_seed(config.seed)

    features = torch.Size(frame_shape).numel()
    if config.model == "relu":
        return models.ReLUNet(features, config.hidden, classes)
    if config.model in HARDENED:
        return hardened_network(config, features, classes, lambda: integrations.parse(config.surrogate))

    def neuron() -> nn.Module:
        return integrations.neuron(config.library, config.surrogate)

    if config.model == "cnn":
        return models.SpikingCNN(frame_shape, config.hidden, classes, neuron)
    return models.SpikingMLP(features, config.hidden, classes, neuron)


def hardened_network(config: TrainConfig, features: int, classes: int, activation: Callable | None) -> nn.Sequential:
    """The bnn or dhn of a configuration, with new weights.

    Args:
        config: its `model`, `hidden` and, for the bnn, `estimator` count.
        features: values in an image, C * H * W.
        classes: number of classes.
        activation: makes the surrogate of each activation, as `models.BinaryMLP` takes it; None for smooth HTAF.

    Returns:
        A `models.BinaryMLP` or a `models.DeepHeavisideNet`.

    Raises:
        TypeError, ValueError: as those.

    Example:
        >>> net = hardened_network(TrainConfig(model="dhn", hidden=(32, 16)), 64, 10, activation=None)
        >>> net(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    if config.model == "bnn":
        return models.BinaryMLP(features, config.hidden, classes, activation=activation, estimator=config.estimator)
    return models.DeepHeavisideNet(features, config.hidden, classes, activation=activation)


def load(out: str | PathLike) -> nn.Module:
    """The trained network of a run, hard and in eval mode on the CPU.

    Args:
        out: folder of a run of `train`, or of one fold of `train_folds`.

    Returns:
        A module from frames (T, B, C, H, W), or images (B, C, H, W), to class scores (B, classes); see `evaluate`. Its
        surrogates are in spike mode where those of a spiking network were smooth. It refuses frames and images that do
        not fit the training's, as its `frame_shape` or `image_shape` says.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        ValueError: if a file is damaged, the checkpoint does not fit the configuration, or the run is of another
            command, whose function is named.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(model="bnn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(config, folder, progress=False)
        ...     net = load(folder)
        >>> from htaf_snn.training import evaluate
        >>> evaluate(net, make_loaders(config)[2])["accuracy"] == result["test_accuracy"]
        True
    """
    config, path = read_config(out), Path(out) / "config.json"
    try:
        values = json.loads(path.read_text())
        frame_shape, classes = tuple(values["frame_shape"]), len(values["classes"])
    except KeyError as error:
        folds = (
            f"; load one of its folds, such as {Path(out) / 'fold0'}" if config.folds and config.fold is None else ""
        )
        raise ValueError(f"{path}: expected the configuration of one network, found no {error}{folds}") from error
    # Neither the weights drawn here nor the checkpoint's random state are to be noticed outside.
    with torch.random.fork_rng():
        model = _make_model(config, frame_shape, classes)
        load_checkpoint(Path(out) / CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    if config.model in SPIKING:
        model.frame_shape = (config.time_bins, *frame_shape)
        make_hard(model)
    else:
        model.image_shape = frame_shape
    end_annealing(config, model)
    return model.eval()


def read_config(out: str | PathLike) -> TrainConfig:
    """The configuration of the run in a folder.

    Args:
        out: folder of a run of `train` or `train_folds`.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if `config.json` is damaged.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train(config, folder, progress=False)
        ...     read_config(folder) == config
        True
    """
    return read_settings(out, TrainConfig)


def train(config: TrainConfig, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train and test one network.

    Args:
        config: what to do.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder; config must be its own but for a larger `epochs`, and another
            `data_root` or `device`. The data must have the same classes, shape and numbers of samples.
        progress: show progress bars on standard error.

    Started by `torchrun` in several processes, these train one network together, each on a part of every batch, through
    Lightning Fabric; the first reads and writes the folder.

    Returns:
        {"test_accuracy", "test_loss", "epochs", "spike_rate" (mean output per layer in the last epoch), "seconds",
        "torch", "threads", "device", "processes", "out"}, also in `result.json`. The test figures are those of the last
        epoch, of the network that spikes; after training in smooth mode there are "smooth_test_accuracy" and
        "hardening_gap".

    Raises:
        ValueError: if an argument is bad, the folder holds another run, or the checkpoint does not fit.
        OSError: if the data are missing or the folder cannot be written.
        FloatingPointError: if the loss or a gradient becomes NaN or infinite.

    Example:
        >>> import tempfile
        >>> config = TrainConfig(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = train(config, folder, progress=False)
        ...     longer = train(replace(config, epochs=2), folder, resume=True, progress=False)
        >>> first["epochs"], longer["epochs"], 0 <= longer["test_accuracy"] <= 1
        (1, 2, True)
    """
    device = device_of(config.device)
    out, processes = Path(out), Processes.launched(device.type)
    writes = processes is None or processes.first
    # First what takes no time: an unknown surrogate or a folder that cannot be written is refused before data are read.
    check_annealing(config, _make_model(config, (1, 8, 8), 2))
    if writes:
        check_folder(config, out, resume)
    with new_folder(out) if writes else nullcontext():
        train_loader, val_loader, test_loader = make_loaders(config)
        frame_shape, classes = sample_shape(train_loader.dataset), list(train_loader.dataset.classes)
        data = {"frame_shape": frame_shape, "classes": classes}
        data["samples"] = [len(one.dataset) if one else 0 for one in (train_loader, val_loader, test_loader)]
        model = _make_model(config, frame_shape, len(classes)).to(device if processes is None else processes.device)
        if resume and writes:
            check_same_data(out, data)
            restore(out, model, torch.optim.Adam(model.parameters()))
        if writes:
            (out / "result.json").unlink(missing_ok=True)  # of fewer epochs
            write_json(out / "config.json", {**asdict(config), **data})
    metrics = fit(
        model,
        train_loader,
        val_loader,
        out=out,
        epochs=config.epochs,
        lr=config.lr,
        resume=resume,
        progress=progress,
        label="" if config.fold is None else f"fold {config.fold + 1}/{config.folds}, ",
        processes=processes,
        precision=config.precision,
        compiled=config.compiled,
        before_step=before_step(config, model, steps_in_epoch(model, train_loader, processes)),
    )
    result = {
        **_test(model, train_loader, test_loader, processes),
        "epochs": len(metrics),
        "spike_rate": metrics[-1]["spike_rate"],
        "seconds": round(sum(line["seconds"] for line in metrics), 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "processes": 1 if processes is None else processes.count,
        "out": str(out),
    }
    if writes:
        write_json(out / "result.json", result)
    if processes is not None:
        processes.leave()
    return result


def sample_shape(samples) -> tuple[int, int, int]:
    """(C, H, W) of a frame or an image.

    Args:
        samples: a data set of this project: a loader's `dataset`, or what `neuromorphic_datasets.load` or
            `images.load` gives.

    Example:
        >>> import neuromorphic_datasets as nd
        >>> sample_shape(nd.images.load("digits")[0])
        (1, 8, 8)
    """
    return samples.sensor_size[::-1] if hasattr(samples, "sensor_size") else tuple(samples.images.shape[1:])


def _test(model: nn.Module, train_loader, test_loader, processes: Processes | None) -> dict[str, float]:
    found = evaluate_hard(model, train_loader, test_loader, processes)
    figures = {"test_accuracy": found["accuracy"], "test_loss": found["loss"]}
    if "hardening_gap" in found:
        figures |= {"smooth_test_accuracy": found["smooth_accuracy"], "hardening_gap": found["hardening_gap"]}
    return figures


def _train_fold(config: TrainConfig, out: Path, fold: int, resume: bool, progress: bool) -> dict:
    folder = out / f"fold{fold}"
    again = resume and (folder / "config.json").is_file()
    return train(replace(config, fold=fold), folder, resume=again, progress=progress)


def train_folds(config: TrainConfig, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """`train` on each of `config.folds` folds, in subfolders fold0, fold1, …; resuming goes on where it stopped.

    Args:
        config: with `folds`, at least 2, of a spiking model, and no `fold`.
        out: folder of all runs; new or empty, unless resuming.
        resume, progress: as of `train`.

    Returns:
        {"test_accuracy": mean, "fold_accuracy": one a fold, "out"}, also in `result.json`.

    Raises:
        ValueError: if `folds` is None, or several processes were started by `torchrun`; else as `train`.
        OSError, FloatingPointError: as `train`.

    Example:
        >>> train_folds(TrainConfig(epochs=5), "runs/folds")
        Traceback (most recent call last):
            ...
        ValueError: folds: expected an integer of at least 2, got None
    """
    require("folds", config.folds, "an integer of at least 2", lambda v: v is not None)
    require("fold", config.fold, "None, as all folds are trained", lambda v: v is None)
    out = Path(out)
    integrations.neuron(config.library, config.surrogate)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("folds: several processes train one fold; give its number too")
    check_folder(config, out, resume)
    with new_folder(out):
        write_json(out / "config.json", asdict(config))
        try:
            results = [_train_fold(config, out, fold, resume, progress) for fold in range(config.folds)]
        finally:
            if not (out / "fold0").is_dir():
                (out / "config.json").unlink()
    accuracies = [result["test_accuracy"] for result in results]
    result = {"test_accuracy": sum(accuracies) / len(accuracies), "fold_accuracy": accuracies, "out": str(out)}
    write_json(out / "result.json", result)
    return result
