"""Runs: the data and the network of a configuration, trained into a folder and tested."""

from __future__ import annotations

import copy
import json
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from os import PathLike
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from .. import hardening, interop, models
from ..models.neurons import needs_register
from ..surrogate import SurrogateLike
from .checkpoint import CHECKPOINT, load_checkpoint
from .folder import check_folder, check_same_data, device_of, new_folder, read_settings, require, write_json
from .loop import fit, restore, steps_in_epoch
from .processes import Processes
from .recipe import Recipe, Setup, before_step, check_annealing

SPIKING = ("mlp", "cnn")
# Networks of images with binary activations.
BINARY = ("bnn", "dhn")
MODELS = (*SPIKING, *BINARY, "relu")
OFFLINE = {model: "saccade-digits" if model in SPIKING else "digits" for model in MODELS}


@dataclass(frozen=True)
class TrainConfig(Recipe, Setup):
    """Configuration of `train`; the defaults take about 20 s on two cores.

    Attributes:
        dataset: a name from `neuromorphic_datasets.names()`; for models of images, from
            `neuromorphic_datasets.images.names()`; or data of your own, a folder or ``FILE.py:NAME``, as in the
            `loaders` of either. None is the one that needs no download, saccade-digits or digits.
        root: folder of a published data set; None for the default place.
        download: fetch the data set if it is missing.
        resize: the side, or (height, width), that images in files are brought to; None leaves them as they are.
        library: neuron implementation of spiking models: "snntorch", "norse" or "fused", this package's.
        surrogate: a specification such as "htaf(alpha=0.5, beta=8)" or "snntorch.atan(alpha=2)". A network with a
            hardness below 1 is evaluated both hard and with that hardness.
        norm: "batch" for BatchNorm before the neurons or activations, "none", or "auto": for models of images "batch",
            for spiking ones "none". Others than "auto" only for "mlp", "dhn" and "relu".
        identity: multiple of the identity in the weights at the start, as in `models.DeepHeavisideNet`; only for "mlp",
            "dhn" and "relu".
        model: spiking, "mlp" or "cnn"; of images, "bnn" (`models.BinaryMLP`), "dhn" (`models.DeepHeavisideNet`) or
            "relu", their floating-point twin.
        weight_surrogate: surrogate of the bnn's weights, as in `htaf_snn.nn.BinaryLinear`.
        hidden: neurons, or channels of the cnn, per hidden layer.
        epochs, batch_size, n_time_bins: at least 1.
        lr: Adam's learning rate, in (0, 1e6].
        schedule: "constant", or "cosine" for a rate that rises in the first tenth of the steps and then falls to 0.
        anneal: "none"; "hardness" to train from smooth to hard, from hardness 0, or that of the surrogate if it is
            below 1, to 1; or "alpha" to make a smooth network steeper, from the surrogate's alpha to `alpha_end`.
        alpha_end: final alpha, in (0, 1e6].
        precision: "float32" or "bfloat16", as in `fit`.
        compiled: train through `torch.compile`.
        seed: seed for weights, order of the samples and split of the data.
        val_fraction: fraction of the training samples held out for validation, in [0, 1).
        train_fraction: fraction of the others that is trained on, in (0, 1].
        folds, fold: pool all samples and test on fold number `fold` of `folds` stratified folds.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if a value is out of range, or is not the default and has no effect on the model. `train` refuses
            an unknown library, surrogate or data set.

    Example:
        >>> config = TrainConfig(model="dhn", hidden=(64, 64), schedule="cosine")
        >>> config.dataset, config.epochs
        ('digits', 20)
        >>> TrainConfig(lr=0.0)
        Traceback (most recent call last):
            ...
        ValueError: lr: expected a number in (0, 1e6], got 0.0
    """

    library: str = "snntorch"
    surrogate: str = "htaf"
    model: str = "mlp"
    weight_surrogate: str = "clipped_ste"
    norm: str = "auto"
    identity: float = 0.0
    hidden: tuple[int, ...] = (256, 256)
    n_time_bins: int = 10
    folds: int | None = None
    fold: int | None = None

    def __post_init__(self):
        super().__post_init__()
        require("model", self.model, f"one of {', '.join(MODELS)}", MODELS.__contains__)
        if self.folds is not None and self.model not in SPIKING:
            raise ValueError(f"folds: expected None for a model of images, got {self.folds}")
        self._check_effects()
        if self.dataset is not None and not isinstance(self.dataset, str):
            raise TypeError(
                f"dataset: expected a name, a folder or FILE.py:NAME, as text, got a {type(self.dataset).__name__}; "
                "training.fit takes loaders of a set"
            )
        if self.dataset is None:
            object.__setattr__(self, "dataset", OFFLINE[self.model])

    def _check_effects(self) -> None:
        """Raise ValueError if a value has no effect."""
        if self.fold is not None and not (self.folds and type(self.fold) is int and 0 <= self.fold < self.folds):
            raise ValueError(f"fold: expected a fold of {self.folds} folds, counted from 0, got {self.fold!r}")
        users: dict[str, tuple[str, ...]] = {"weight_surrogate": ("bnn",)}
        users |= dict.fromkeys(("library", "n_time_bins"), SPIKING) | {
            "resize": (*BINARY, "relu"),
            "norm": ("mlp", "dhn", "relu"),
            "identity": ("mlp", "dhn", "relu"),
        }
        users |= dict.fromkeys(("surrogate", "anneal", "alpha_end"), (*SPIKING, *BINARY))
        for name, suited in users.items():
            value, default = getattr(self, name), getattr(type(self), name)
            if self.model not in suited and value != default:
                raise ValueError(
                    f"{name}: {value!r} has no effect on the model {self.model}, only on {', '.join(suited)}"
                )
        if self.identity and all(a != b for a, b in pairwise(self.hidden)):
            raise ValueError(
                f"identity: {self.identity!r} has no effect without two hidden layers of the same width in a row, got "
                f"hidden={self.hidden}"
            )


def image_loaders(config: Setup) -> tuple:
    """Return (train, val, test) loaders of the images that a configuration names; val is None without validation.

    Args:
        config: a `TrainConfig` or a `concepts.Config`.

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

    return nd.images.loaders(
        config.dataset or OFFLINE["relu"],
        root=config.root,
        download=config.download,
        resize=config.resize,
        batch_size=config.batch_size,
        val_fraction=config.val_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
    )


def make_loaders(config: TrainConfig) -> tuple:
    """Return (train, val, test) loaders of a configuration's data; val is None without validation.

    Args:
        config: the configuration; its model decides between recordings and images.

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

    dataset = config.dataset or OFFLINE[config.model]
    images, takes_images = dataset in nd.images.names(), config.model not in SPIKING
    if images != takes_images and (images or dataset in nd.names()):
        expected, got = ("images", "recordings") if takes_images else ("recordings", "images")
        suited = [model for model in MODELS if images == (model not in SPIKING)]
        raise ValueError(
            f"dataset: expected {expected} for the model {config.model}, got {dataset}, a set of {got}; "
            f"models of {got} are {', '.join(suited)}"
        )
    if takes_images:
        return image_loaders(config)
    return nd.loaders(
        dataset,
        root=config.root,
        download=config.download,
        batch_size=config.batch_size,
        n_time_bins=config.n_time_bins,
        val_fraction=config.val_fraction,
        train_fraction=config.train_fraction,
        seed=config.seed,
        folds=config.folds,
        fold=config.fold,
    )


SpikingNetwork = models.SpikingMLP | models.SpikingCNN
BinaryNetwork = models.BinaryMLP | models.DeepHeavisideNet


def make_model(
    config: TrainConfig, frame_shape: tuple[int, int, int], n_classes: int, surrogate: SurrogateLike | None = None
) -> SpikingNetwork | BinaryNetwork | models.ReLUNet:
    """Return the network of a configuration, with new weights and its surrogate, or copies of another one."""
    torch.manual_seed(config.seed)
    surrogate = config.surrogate if surrogate is None else surrogate
    in_features = torch.Size(frame_shape).numel()
    if config.model == "relu":
        return models.ReLUNet(in_features, config.hidden, n_classes, norm=norm_of(config), identity=config.identity)
    if config.model in BINARY:
        return binary_network(config, in_features, n_classes, surrogate)

    def neuron() -> nn.Module:
        return models.neuron(config.library, copy.deepcopy(surrogate))

    if config.model == "cnn":
        return models.SpikingCNN(frame_shape, config.hidden, n_classes, neuron)
    return models.SpikingMLP(
        in_features, config.hidden, n_classes, neuron, norm=norm_of(config), identity=config.identity
    )


def norm_of(config: TrainConfig) -> str:
    """Return the norm of a configuration's network, "batch" or "none"."""
    default = "none" if config.model in SPIKING else "batch"
    return default if config.norm == "auto" else config.norm


def binary_network(config: TrainConfig, in_features: int, n_classes: int, surrogate: SurrogateLike) -> BinaryNetwork:
    """Return the bnn or dhn of a configuration, with new weights.

    Args:
        config: its `model`, `hidden` and, for the bnn, `weight_surrogate` are used.
        in_features: values per image, C * H * W.
        n_classes: number of classes.
        surrogate: the activations', as in `models.BinaryMLP`.

    Raises:
        TypeError, ValueError: as the class of the model.

    Example:
        >>> net = binary_network(TrainConfig(model="dhn", hidden=(32, 16)), 64, 10, surrogate="htaf")
        >>> net(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    if config.model == "bnn":
        return models.BinaryMLP(
            in_features, config.hidden, n_classes, surrogate=surrogate, weight_surrogate=config.weight_surrogate
        )
    return models.DeepHeavisideNet(
        in_features, config.hidden, n_classes, surrogate=surrogate, norm=norm_of(config), identity=config.identity
    )


def load(out: str | PathLike) -> nn.Module:
    """Return the trained network of a run, hard and in eval mode on the CPU.

    Args:
        out: folder of a run of `train`, or of one fold of `train_folds`.

    Returns:
        A module from frames (T, B, C, H, W), or images (B, C, H, W), to class scores (B, n_classes); see `evaluate`.
        All its surrogates have hardness 1. Norse's neurons with a surrogate of this package work only while
        `htaf_snn.register()` is in force. Frames and images whose shape differs from the `frame_shape` or `image_shape`
        of the training are refused.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        ValueError: if a file is damaged, the checkpoint does not fit the configuration, or another command wrote the
            run; the message names the function that loads it.

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
        frame_shape, n_classes = tuple(values["frame_shape"]), len(values["classes"])
    except KeyError as error:
        hint = f"; load one of its folds, such as {Path(out) / 'fold0'}" if config.folds and config.fold is None else ""
        raise ValueError(f"{path}: expected the configuration of one network, got no {error}{hint}") from error
    # Drawing weights and loading the checkpoint must not change the caller's random state.
    with torch.random.fork_rng():
        model = make_model(config, frame_shape, n_classes)
        load_checkpoint(Path(out) / CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    if isinstance(model, SpikingNetwork):
        model.frame_shape = (config.n_time_bins, *frame_shape)
    else:
        model.image_shape = frame_shape
    hardening.harden(model)
    return model.eval()


def read_config(out: str | PathLike) -> TrainConfig:
    """Return the configuration of the run in a folder.

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

    Under `torchrun` all processes train one network, each on a shard of every batch, through Lightning Fabric; the main
    process reads and writes the folder. While Norse's neurons, or snnTorch's at a hardness below 1, are trained with a
    surrogate of this package, `htaf_snn.register()` is in force; afterwards both libraries are as before.

    Args:
        config: what to train, on which data, and how.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder. The config must be that of the run, except for a larger `epochs` and
            another `root` or `device`; the data must have the same classes, shape and numbers of samples.
        progress: show progress bars on standard error.

    Returns:
        {"test_accuracy", "test_loss", "smooth_test_accuracy", "hardening_gap", "epochs", "spike_rate" (mean output per
        layer in the last epoch), "seconds", "torch", "threads", "device", "processes", "out"}, also in `result.json`.
        The test figures are those of the hard network after the last epoch, and the gap is that of
        `hardening.evaluate`.

    Raises:
        ValueError: if an argument is invalid, the folder holds another run, or the checkpoint does not fit.
        OSError: if the data are missing or the folder is not writable.
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
    is_annealed = config.anneal != "none"
    is_extended = config.model in SPIKING and needs_register(config.library, config.surrogate, is_annealed)
    with interop.register() if is_extended else nullcontext():
        return _train(config, Path(out), resume, progress)


def _train(config: TrainConfig, out: Path, resume: bool, progress: bool) -> dict:
    device = device_of(config.device)
    processes = Processes.launched(device.type)
    is_main = processes is None or processes.is_main
    # Quick checks come first: an unknown surrogate or an unusable folder is refused before data are read.
    check_annealing(config, make_model(config, (1, 8, 8), 2))
    if is_main:
        check_folder(config, out, resume)
    with new_folder(out) if is_main else nullcontext():
        loaders = train_loader, val_loader, test_loader = make_loaders(config)
        frame_shape, classes = sample_shape(train_loader.dataset), list(train_loader.dataset.classes)
        samples = [len(loader.dataset) if loader else 0 for loader in loaders]
        data = {"frame_shape": frame_shape, "classes": classes, "samples": samples}
        model = make_model(config, frame_shape, len(classes)).to(device if processes is None else processes.device)
        # Before a checkpoint is restored, as it starts from the configuration's hardness and parameters.
        prepare = before_step(config, model, steps_in_epoch(model, train_loader, processes))
        if is_main:
            if resume:
                check_same_data(out, data)
                restore(out, model, torch.optim.Adam(model.parameters()))
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
        before_step=prepare,
    )
    result = {
        **test(model, train_loader, test_loader, processes),
        "epochs": len(metrics),
        "spike_rate": metrics[-1]["spike_rate"],
        "seconds": round(sum(line["seconds"] for line in metrics), 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "processes": 1 if processes is None else processes.world_size,
        "out": str(out),
    }
    if is_main:
        write_json(out / "result.json", result)
    if processes is not None:
        processes.shutdown()
    return result


def sample_shape(samples) -> tuple[int, int, int]:
    """Return (C, H, W) of a frame or an image.

    Args:
        samples: a data set of this project: a loader's `dataset`, or one from `neuromorphic_datasets.load` or
            `images.load`.

    Example:
        >>> import neuromorphic_datasets as nd
        >>> sample_shape(nd.images.load("digits")[0])
        (1, 8, 8)
    """
    return samples.sensor_size[::-1] if hasattr(samples, "sensor_size") else tuple(samples.images.shape[1:])


def test(
    model: nn.Module, train_loader: DataLoader, test_loader: DataLoader, processes: Processes | None = None
) -> dict[str, float]:
    """Return the test figures of a result; BatchNorm gets the hard network's statistics."""
    hard, smooth, gap, loss = hardening.evaluate(
        model, train_loader, test_loader, keep_hard_statistics=True, processes=processes
    )
    return {"test_accuracy": hard, "test_loss": loss, "smooth_test_accuracy": smooth, "hardening_gap": gap}


def train_folds(config: TrainConfig, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train and test on each of `config.folds` folds, in subfolders fold0, fold1, ….

    Args:
        config: a configuration of a spiking model with `folds` and without `fold`.
        out: folder of all runs; new or empty, unless resuming.
        resume: continue where the training stopped, as in `train`.
        progress: as in `train`.

    Returns:
        {"test_accuracy": mean, "fold_accuracy": one per fold, "out"}, also in `result.json`.

    Raises:
        ValueError: if `folds` is None, under `torchrun` with several processes, or as `train`.
        OSError, FloatingPointError: as `train`.

    Example:
        >>> train_folds(TrainConfig(epochs=5), "runs/folds")
        Traceback (most recent call last):
            ...
        ValueError: folds: expected an integer of at least 2, got None
    """
    if config.folds is None:
        raise ValueError("folds: expected an integer of at least 2, got None")
    require("fold", config.fold, "None, as all folds are trained", lambda v: v is None)
    out = Path(out)
    models.neuron(config.library, config.surrogate)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("folds: not supported under torchrun; pass fold=K to train one fold")
    check_folder(config, out, resume)
    with new_folder(out):
        write_json(out / "config.json", asdict(config))
        accuracies: list[float] = []
        try:
            for fold in range(config.folds):
                folder = out / f"fold{fold}"
                resumes = resume and (folder / "config.json").is_file()
                result = train(replace(config, fold=fold), folder, resume=resumes, progress=progress)
                accuracies.append(result["test_accuracy"])
        finally:
            if not (out / "fold0").is_dir():
                (out / "config.json").unlink()
    result = {"test_accuracy": sum(accuracies) / len(accuracies), "fold_accuracy": accuracies, "out": str(out)}
    write_json(out / "result.json", result)
    return result
