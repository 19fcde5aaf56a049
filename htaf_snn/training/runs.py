"""Runs: the data and the network of a configuration, trained into a folder and tested."""

from __future__ import annotations

import copy
import os
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from .. import hardening, interop, models
from .._files import new_folder
from ..configuration import MODELS, SPIKING, ConceptRun, Network, Run, require
from ..models.neurons import needs_register
from ..nn._batches import class_scores, unpack
from ..nn._modes import in_eval
from ..surrogate import SurrogateLike
from .checkpoint import CHECKPOINT, NETWORK, epoch_of, load_checkpoint, save_checkpoint
from .describing import describe, lines
from .folder import (
    CONFIG,
    DATA,
    RESULT,
    check_folder,
    check_same_data,
    device_of,
    read_config,
    read_data,
    write_json,
)
from .logs import CONFUSION, CURVES, draw, logger
from .loop import fit, kept_epoch, restore
from .processes import Processes
from .recipe import check_annealing
from .step import Trainer

SPARSE_HEAD = "sparse-head.safetensors"
Loaders = tuple[Any, Any, Any]  # DataLoaders whose data sets have classes; that for validation may be None
Penalty = Callable[[nn.Module], AbstractContextManager[Callable[[], torch.Tensor] | None]]


def make_loaders(config: Run | ConceptRun) -> Loaders:
    """Return (train, val, test) loaders of a configuration's data; val is None without validation.

    Args:
        config: the configuration; its model decides between recordings and images.

    Returns:
        As `neuromorphic_datasets.loaders`: batches of float32 (T, B, C, H, W) and int64 (B,); for models of images as
        `neuromorphic_datasets.images.loaders`: float32 (B, C, H, W) within [0, 1] and int64 (B,).

    Raises:
        ValueError, OSError: as `neuromorphic_datasets.loaders` and `neuromorphic_datasets.images.loaders`.

    Example:
        >>> train, val, test = make_loaders(Run(model="relu", val_fraction=0.0))
        >>> len(train.dataset), val, len(test.dataset)
        (1437, None, 360)
    """
    import neuromorphic_datasets as nd

    dataset = str(config.dataset)  # a run has one
    names = "download", "batch_size", "val_fraction", "train_fraction", "seed"
    shared: dict[str, Any] = {"root": config.data_root} | {name: getattr(config, name) for name in names}
    if isinstance(config, Run):
        _check_kind(config.model, dataset, nd.images.names(), nd.names())
        if config.model in SPIKING:
            shared |= {"folds": config.folds, "fold": config.fold}
            return nd.loaders(dataset, n_time_bins=config.n_time_bins, **shared)
    return nd.images.loaders(dataset, resize=config.resize, **shared)


def _check_kind(model: str, dataset: str, of_images: list[str], of_recordings: list[str]) -> None:
    """Raise ValueError for a model of images and a published set of recordings, or the reverse."""
    images, takes_images = dataset in of_images, model not in SPIKING
    if images != takes_images and (images or dataset in of_recordings):
        expected, got = ("images", "recordings") if takes_images else ("recordings", "images")
        suited = [name for name in MODELS if images == (name not in SPIKING)]
        raise ValueError(
            f"dataset: expected {expected} for the model {model}, got {dataset}, a set of {got}; models of {got} are "
            f"{', '.join(suited)}"
        )


def make_model(
    config: Run | ConceptRun, shape: tuple[int, int, int], n_classes: int, surrogate: SurrogateLike | None = None
) -> nn.Module:
    """Return the network of a configuration, with new weights.

    Args:
        config: its network's fields are used, and its seed.
        shape: (C, H, W) of a frame or an image.
        n_classes: number of classes.
        surrogate: one whose copies take the place of the configuration's; None for that.

    Raises:
        TypeError, ValueError, ImportError: as the model's class, such as `models.SpikingMLP`, and `models.neuron`.

    Example:
        >>> make_model(Run(model="dhn", hidden=(32, 16)), (1, 8, 8), 10)(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    torch.manual_seed(config.seed)
    surrogate = config.surrogate if surrogate is None else surrogate
    if isinstance(config, ConceptRun):
        encoder = models.ImageEncoder(shape[0], config.width)
        return models.ICBM(encoder, config.n_concepts, n_classes, in_features=encoder.out_features, surrogate=surrogate)
    if config.model in SPIKING:
        return _spiking(
            config, shape, n_classes, lambda: models.neuron(config.library, copy.deepcopy(surrogate), config.neuron)
        )
    surrogates: dict[str, Any] = {"surrogate": surrogate, "weight_surrogate": config.weight_surrogate}
    start: dict[str, Any] = {"norm": norm_of(config), "identity": config.identity}
    in_features = torch.Size(shape).numel()
    in_shape = shape if config.model.endswith("cnn") else in_features
    if config.model in ("relu", "relu-cnn"):
        return models.ReLUNet(in_shape, config.hidden, n_classes, **start)
    if config.model in ("dhn", "dhn-cnn"):
        return models.DeepHeavisideNet(in_shape, config.hidden, n_classes, surrogate=surrogate, **start)
    if config.model == "bnn":
        return models.BinaryMLP(in_features, config.hidden, n_classes, **surrogates)
    if config.model == "binary-cnn":
        return models.BinaryCNN(shape, config.hidden, n_classes, **surrogates)
    if config.model == "relu-resnet20":
        return models.ReLUResNet(20, shape[0], n_classes, width=config.width or 16)
    return models.BinaryResNet(20, shape[0], n_classes, **surrogates, width=config.width or 16)


def _spiking(
    config: Run, shape: tuple[int, int, int], n_classes: int, neuron: Callable[[], nn.Module]
) -> models.SpikingNet:
    if config.model == "cnn":
        return models.SpikingCNN(shape, config.hidden, n_classes, neuron)
    if config.model == "mlp":
        start: dict[str, Any] = {"norm": norm_of(config), "identity": config.identity}
        return models.SpikingMLP(torch.Size(shape).numel(), config.hidden, n_classes, neuron, **start)
    if config.model == "spiking-vgg11":
        return models.SpikingVGG11(shape, n_classes, neuron, dropout=config.dropout)
    if config.model == "plif-net":
        width = {"channels": config.width} if config.width else {}
        return models.PLIFNet(shape, n_classes, neuron, dropout=config.dropout, **width)
    if config.model == "spikformer":
        return models.Spikformer(shape, n_classes, neuron, dim=config.width or 256)
    depth = int(config.model.removeprefix("sew-resnet"))
    return models.SEWResNet(depth, shape, n_classes, neuron, width=config.width or 64)


def norm_of(config: Network) -> str:
    """Return the norm of a configuration's network, "batch" or "none"."""
    default = "none" if config.model in SPIKING else "batch"
    return default if config.norm == "auto" else config.norm


def load(out: str | PathLike, model: nn.Module | None = None) -> nn.Module:
    """Return the trained network of a run of any command, hard and in eval mode.

    Args:
        out: folder of a run: of `train`, of one fold of `train_folds`, of `concepts.train`, or of `fit` and
            `concepts.fit`.
        model: for a folder of `fit` or `concepts.fit`, a network of the same structure, which receives the weights in
            place; otherwise None.

    Returns:
        A module from frames (T, B, C, H, W), or images (B, C, H, W), to class scores (B, n_classes), on the CPU or
        where `model` is; see `evaluate`. All its surrogates have hardness 1. Norse's neurons with a surrogate of this
        package work only while `htaf_snn.register()` is in force. Frames and images whose shape differs from that of
        the training are refused.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        NotADirectoryError: if `out` is a file.
        TypeError: if the model is missing, or passed for a run whose configuration defines it.
        ValueError: if a file is damaged, or the checkpoint does not fit the configuration or the model.

    Example:
        >>> import tempfile
        >>> run = Run(model="bnn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(run, folder, progress=False)
        ...     net = load(folder)
        >>> from htaf_snn.training import evaluate
        >>> evaluate(net, make_loaders(run)[2])["accuracy"] == result["test_accuracy"]
        True
    """
    out = Path(out)
    of_fit = (out / CHECKPOINT).is_file() and not (out / CONFIG).is_file()
    config = None if of_fit else read_config(out)
    data = read_data(out) if (out / DATA).is_file() or isinstance(config, (Run, ConceptRun)) else {}
    if isinstance(config, (Run, ConceptRun)):
        if model is not None:
            raise TypeError(f"model: expected None for {out}, whose configuration defines it, got {type(model)}")
        with torch.random.fork_rng():  # drawing weights must not change the caller's random state
            model = make_model(config, tuple(data["shape"]), len(data["classes"]))
    elif model is None:
        raise TypeError(f"model: expected a network like the one that fit trained in {out}, got None")
    shape = tuple(data.get("shape", ()))
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in model.parameters()) and shape:
        with torch.no_grad(), in_eval(model):
            model(torch.zeros(1, *shape))
    load_checkpoint(out / (NETWORK if (out / NETWORK).is_file() else CHECKPOINT), model)
    if (out / SPARSE_HEAD).is_file():
        _load_head(out / SPARSE_HEAD, model)
    if isinstance(config, Run) and config.model in SPIKING:
        model.frame_shape = (config.n_time_bins, *shape)  # type: ignore[assignment]
    elif shape:
        model.image_shape = shape  # type: ignore[assignment]
    hardening.harden(model)
    return model.eval()


def _load_head(path: Path, model: nn.Module) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.get_submodule("head").load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: expected the head of this model, got a damaged or other file ({error})") from error


def train(config: Run, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train and test one network.

    Under `torchrun` all processes train one network, each on a shard of every batch, through Lightning Fabric; the main
    process reads and writes the folder. While Norse's neurons, or snnTorch's at a hardness below 1, are trained with a
    surrogate of this package, `htaf_snn.register()` is in force; afterwards both libraries are as before.

    Args:
        config: what to train, on which data, and how.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder. The config must be that of the run, except for a larger `epochs`, to
            whose length an annealing and a cosine schedule are then stretched, and another `data_root` or `device`; the
            data must have the same classes, shape and numbers of samples.
        progress: show on standard error what the data are, and progress bars.

    Returns:
        {"test_accuracy", "test_loss", "smooth_test_accuracy", "hardening_gap", "epochs", "kept_epoch" (the one whose
        network is tested), "spike_rate" (mean output per layer in the last epoch), "seconds", "torch", "threads",
        "device", "processes", "out"}, also in `result.json`.
        The test figures are those of the hard network that the recipe keeps, and the gap is that of
        `hardening.evaluate`.

    Raises:
        ValueError: if an argument is invalid, the folder holds another run, or the checkpoint does not fit.
        OSError: if the data are missing or the folder is not writable.
        FloatingPointError: if the loss or a gradient becomes NaN or infinite.

    Example:
        >>> import tempfile
        >>> run = Run(model="dhn", hidden=(16,), epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first = train(run, folder, progress=False)
        ...     longer = train(replace(run, epochs=2), folder, resume=True, progress=False)
        >>> first["epochs"], longer["epochs"], 0 <= longer["test_accuracy"] <= 1
        (1, 2, True)
    """

    def figures(model: nn.Module, loaders: Loaders, processes: Processes | None) -> dict:
        found = test(model, loaders[0], loaders[2], processes)
        if (processes is None or processes.is_main) and (folder / NETWORK).is_file():
            _save_tested(folder / NETWORK, model)
        return found

    folder = Path(out)
    is_annealed = config.anneal not in ("none", "width")  # which goes on from the surrogate's own hardness
    is_extended = config.model in SPIKING and needs_register(config.library, config.surrogate, is_annealed)
    with interop.register() if is_extended else nullcontext():
        return complete(config, folder, figures, resume=resume, progress=progress)


def complete(
    config: Run | ConceptRun,
    out: Path,
    figures: Callable[[nn.Module, Loaders, Processes | None], dict],
    *,
    resume: bool,
    progress: bool,
    penalty: Penalty = lambda model: nullcontext(),
    results: tuple[str, ...] = (),
) -> dict:
    """Train a run's network into its folder and write its result: the life of every kind of run.

    Args:
        config, out, resume, progress: as for `train`.
        figures: called by all processes with the trained network and the data; its figures begin the result.
        penalty: makes, of the network, a context that gives the `penalty` of `fit`, or None.
        results: further files that `figures` writes: those that are older than a training that goes on are removed.
    """
    device = device_of(config.device)
    processes = Processes.launched(device.type)
    is_main = processes is None or processes.is_main
    # Quick checks come first: an unknown surrogate or an unusable folder is refused before data are read.
    check_annealing(config, make_model(config, (1, 32, 32), 2))
    on_epoch = logger(config.log if is_main else "none", out)
    if is_main:
        check_folder(config, out, resume)
    with new_folder(out) if is_main else nullcontext():
        loaders = make_loaders(config)
        data = describe(loaders)
        classes, shape = data["classes"], data["shape"]
        model = make_model(config, shape, len(classes)).to(device if processes is None else processes.device)
        _try(model, loaders[2])
        if is_main:
            if resume and ((out / DATA).is_file() or (out / CHECKPOINT).is_file()):
                check_same_data(out, {name: data[name] for name in ("shape", "classes", "samples")})
            if resume:
                _check_restorable(out, model, config)
            for name in (RESULT, CURVES, CONFUSION, *results):
                (out / name).unlink(missing_ok=True)
            # First, as it makes the folder that of a run, which can be resumed.
            write_json(out / CONFIG, asdict(config))
            write_json(out / DATA, data)
    fold = getattr(config, "fold", None)
    label = "" if fold is None else f"fold {fold + 1}, "
    if progress and is_main:
        print(*(f"{label}{line}" for line in lines(data)), sep="\n", file=sys.stderr, flush=True)
    with penalty(model) as added:
        metrics = fit(
            model,
            loaders[0],
            loaders[1],
            config,
            out=out,
            resume=resume,
            progress=progress,
            label=label,
            processes=processes,
            on_epoch=on_epoch,
            penalty=added,
        )
    result = {
        **figures(model, loaders, processes),
        "epochs": len(metrics),
        "kept_epoch": kept_epoch(metrics, config),
        "spike_rate": metrics[-1]["spike_rate"],
        "seconds": round(sum(line["seconds"] for line in metrics), 3),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "processes": 1 if processes is None else processes.world_size,
        "out": str(out),
    }
    if is_main:
        write_json(out / RESULT, result)
        draw(out, model, loaders[2], classes)
    if processes is not None:
        processes.shutdown()
    return result


def _save_tested(path: Path, model: nn.Module) -> None:
    """Write the network again, with the statistics of BatchNorm that it was tested with."""
    save_checkpoint(path, model, None, epoch_of(path))


def _check_restorable(out: Path, model: nn.Module, config: Run | ConceptRun) -> None:
    """Restore a checkpoint into a copy: annealing starts from the configuration's hardness and parameters."""
    copied = copy.deepcopy(model)
    with torch.random.fork_rng():
        trainer = Trainer(copied, config, lambda number, optimizer: None, None)
        restore(out, copied, trainer.optimizer, trainer.extra())


def _try(model: nn.Module, loader: DataLoader) -> None:
    """Evaluate a model on the first batch, so that what does not fit is found before anything is written."""
    with torch.random.fork_rng(), torch.no_grad(), in_eval(model):
        class_scores(model, unpack(next(iter(loader))))


def test(
    model: nn.Module, train_loader: DataLoader, test_loader: DataLoader, processes: Processes | None = None
) -> dict[str, float]:
    """Return the test figures of a result; BatchNorm gets the hard network's statistics."""
    hard, smooth, gap, loss = hardening.evaluate(
        model, train_loader, test_loader, keep_hard_statistics=True, processes=processes
    )
    return {"test_accuracy": hard, "test_loss": loss, "smooth_test_accuracy": smooth, "hardening_gap": gap}


def train_folds(config: Run, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train and test on each of `config.folds` folds, in subfolders fold0, fold1, ….

    Args:
        config: a configuration of a spiking model with `folds` and without `fold`.
        out: folder of all runs; new or empty, unless resuming.
        resume: continue where the training stopped, as in `train`.
        progress: as in `train`.

    Returns:
        {"test_accuracy": mean over folds, "test_accuracy_std": their standard deviation, with n - 1 in the denominator,
        "fold_accuracy": one per fold, "epochs" of each, "seconds" in total, "out"}, also in `result.json`.

    Raises:
        ValueError: if `folds` is None, under `torchrun` with several processes, or as `train`.
        OSError, FloatingPointError: as `train`.

    Example:
        >>> train_folds(Run(epochs=5), "runs/folds")
        Traceback (most recent call last):
            ...
        ValueError: folds: expected an integer of at least 2, got None
    """
    if config.folds is None:
        raise ValueError("folds: expected an integer of at least 2, got None")
    require("fold", config.fold, "None, as all folds are trained", lambda v: v is None)
    out = Path(out)
    models.neuron(config.library, config.surrogate, config.neuron)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("folds: not supported under torchrun; pass fold=K to train one fold")
    check_folder(config, out, resume)
    with new_folder(out):
        (out / RESULT).unlink(missing_ok=True)
        write_json(out / CONFIG, asdict(config))
        of_folds: list[dict] = []
        try:
            for fold in range(config.folds):
                folder = out / f"fold{fold}"
                resumes = resume and (folder / CONFIG).is_file()
                of_folds.append(train(replace(config, fold=fold), folder, resume=resumes, progress=progress))
        finally:
            if not (out / "fold0").is_dir():
                (out / CONFIG).unlink()
    accuracies = [result["test_accuracy"] for result in of_folds]
    result = {
        "test_accuracy": statistics.fmean(accuracies),
        "test_accuracy_std": statistics.stdev(accuracies),
        "fold_accuracy": accuracies,
        "epochs": [result["epochs"] for result in of_folds],
        "seconds": sum(result["seconds"] for result in of_folds),
        "out": str(out),
    }
    write_json(out / RESULT, result)
    return result
