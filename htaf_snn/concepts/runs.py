"""Runs: train a model on images into a folder, measure it, and write its atlas."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from .. import hardening
from .._files import replacing
from ..models import ICBM, ImageEncoder
from ..training import CHECKPOINT, Processes, evaluate, folder, image_loaders, load_checkpoint
from ..training.loop import restore
from ..training.recipe import Setup, check_annealing
from .atlas import write_atlas
from .coding import codes
from .fitting import Recipe, activation_of, check_first_batch, check_images, fit
from .measures import measure
from .sparse import sparsify

SPARSE_HEAD = "sparse-head.safetensors"


@dataclass(frozen=True)
class Config(Recipe, Setup):
    """Settings of a run.

    Attributes:
        dataset: a name of `neuromorphic_datasets.images.names()`, or images of your own, as in `images.load`.
        root, download, resize: as in `images.load`.
        n_concepts: number of concepts.
        surrogate: a name or specification, as in `nn.ConceptLayer`.
        width: of the backbone, `models.ImageEncoder`.
        max_concepts_per_class: size of a sparse head, see `sparsify`; None for a dense one.
        batch_size, seed, val_fraction: as in `images.loaders`; the seed also sets the weights.
        train_fraction, precision, compiled, device: as in `training.TrainConfig`.

    Raises:
        ValueError: if a number is out of range; `run` refuses an unknown data set or surrogate.

    Example:
        >>> config = Config(n_concepts=32, max_concepts_per_class=4)
        >>> config.dataset, config.epochs
        ('digits', 20)
        >>> Config(n_concepts=8, max_concepts_per_class=9)
        Traceback (most recent call last):
            ...
        ValueError: max_concepts_per_class: expected None or 1 to 8, got 9
    """

    dataset: str = "digits"
    n_concepts: int = 64
    surrogate: str = "htaf(alpha=0.5)"
    width: int = 16
    max_concepts_per_class: int | None = None
    batch_size: int = 64

    def __post_init__(self):
        super().__post_init__()
        folder.require(
            "max_concepts_per_class",
            self.max_concepts_per_class,
            "None" if self.surrogate == "relu" else f"None or 1 to {self.n_concepts}",
            lambda v: v is None or (folder.is_count(v) and v <= self.n_concepts and self.surrogate != "relu"),
        )


def _model(config: Config, in_channels: int, n_classes: int) -> ICBM:
    torch.manual_seed(config.seed)
    encoder = ImageEncoder(in_channels, config.width)
    return ICBM(encoder, config.n_concepts, n_classes, in_features=encoder.out_features, surrogate=config.surrogate)


def load(out: str | PathLike, model: ICBM | None = None) -> ICBM:
    """Load the trained model of a run, in eval mode, with its sparse head if it has one.

    Args:
        out: folder written by `run` or `fit`.
        model: only for a folder of `fit`: a model of the same structure, which receives the weights in place.

    Returns:
        The model: for `run` a new one on the CPU, for `fit` the one passed.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        TypeError: if the model is missing for a folder of `fit`, or passed for one of `run`.
        ValueError: if a file is damaged, the checkpoint does not match the configuration or the model, the model makes
            its concepts by another surrogate, or the folder is another command's, whose function is named.

    Example:
        >>> import tempfile
        >>> config = Config(n_concepts=8, width=2, epochs=1, batch_size=256)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = run(config, folder, progress=False)
        ...     model = load(folder)
        >>> evaluate(model, image_loaders(config)[2])["accuracy"] == result["hard_accuracy"]
        True
    """
    out = Path(out)
    folder.read_settings(out, Recipe)  # checks the file
    stored = json.loads((out / "config.json").read_text())
    of_run = "n_concepts" in stored
    if of_run and model is not None:
        raise TypeError(f"model: expected None for {out}, whose configuration defines it, got {type(model).__name__}")
    if not of_run and not isinstance(model, ICBM):
        raise TypeError(f"model: expected an ICBM like the one that fit trained in {out}, got {type(model).__name__}")
    missing = {"image_shape", "classes"} - stored.keys() if of_run else {"image_shape"} - stored.keys()
    if missing:
        raise ValueError(f"{out / 'config.json'}: expected the images' shape and classes, got {', '.join(stored)}")
    with torch.random.fork_rng():
        if model is None:
            model = _model(folder.read_settings(out, Config), stored["image_shape"][0], len(stored["classes"]))
        elif activation_of(model) != stored.get("activation", activation_of(model)):
            raise ValueError(f"model: expected concepts of {stored['activation']}, got {activation_of(model)}")
        model.image_shape = tuple(stored["image_shape"])
        check_images(model, torch.zeros(1, *model.image_shape))
        load_checkpoint(out / CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    if (out / SPARSE_HEAD).is_file():
        _load_head(out / SPARSE_HEAD, model)
    hardening.harden(model)
    return model.eval()


def _load_head(path: Path, model: ICBM) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.head.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: expected the head of this model, got a damaged or other file ({error})") from error


def run(config: Config, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train a model, measure it on the test images, and write their codes and an atlas.

    Args:
        config: settings of the run.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder, exactly as if never interrupted.
        progress: show progress bars on standard error.

    Processes started by `torchrun` train one model together.

    Returns:
        The figures of `measure` on the test images, for the model that `load` returns, and {"dense_accuracy": for a
        sparse head, the accuracy of the dense head before it, "out"}; also in `result.json`, next to `codes.npz` and,
        unless "relu" keeps the concepts real, `atlas.html`.

    Raises:
        ValueError, OSError, FloatingPointError: as in `training.train`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = run(Config(n_concepts=8, width=2, epochs=1, batch_size=256), folder, progress=False)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['atlas.html', 'checkpoint.safetensors', 'codes.npz', 'config.json', 'metrics.jsonl', 'result.json']
        >>> 0 <= result["dead"] <= 8
        True
    """
    device = folder.device_of(config.device)
    out, processes = Path(out), Processes.launched(device.type)
    writes = processes is None or processes.is_main
    check_annealing(config, _model(config, 1, 2))
    if writes:
        folder.check_folder(config, out, resume)
    with folder.new_folder(out) if writes else nullcontext():
        train, val, test = image_loaders(config)
        classes, shape = train.dataset.classes, tuple(train.dataset.images.shape[1:])
        model = _model(config, shape[0], len(classes)).to(device if processes is None else processes.device)
        check_first_batch(model, train)
        samples = [len(loader.dataset) if loader else 0 for loader in (train, val, test)]
        data = {"image_shape": shape, "classes": list(classes), "samples": samples}
        if writes:
            if resume:
                folder.check_same_data(out, data)
                # Not into the model itself, whose annealing starts from the configuration's surrogate.
                restored = copy.deepcopy(model)
                restore(out, restored, torch.optim.Adam(restored.parameters()))
            # Files older than the training that continues would be mistaken for its results.
            for name in (SPARSE_HEAD, "result.json", "codes.npz", "atlas.html"):
                (out / name).unlink(missing_ok=True)
            folder.write_json(out / "config.json", {**asdict(config), **data})
    fit(
        model,
        train,
        val,
        out=out,
        recipe=config,
        resume=resume,
        progress=progress,
        processes=processes,
        precision=config.precision,
        compiled=config.compiled,
    )
    result = {}
    if writes:
        result = _measured(model, train, test, classes, config, out, progress)
        folder.write_json(out / "result.json", result)
    if processes is not None:
        processes.shutdown()
    return result


def _measured(
    model: ICBM, train: DataLoader, test: DataLoader, classes: Sequence[str], config: Config, out: Path, progress: bool
) -> dict:
    dense = {}
    if config.max_concepts_per_class is not None:
        from safetensors.torch import save_file

        dense = {"dense_accuracy": evaluate(model, test)["accuracy"]}
        sparsify(model, train, config.max_concepts_per_class, progress=progress)
        with replacing(out / SPARSE_HEAD) as temporary:
            save_file({name: value.cpu() for name, value in model.head.state_dict().items()}, temporary)
    result = {**measure(model, train, test), **dense}
    codes(model, test).save(out / "codes.npz")
    if model.is_binary:
        title = f"Concepts of {Path(config.dataset).name}"
        write_atlas(model, test, out / "atlas.html", classes=classes, title=title)
    return {**result, "out": str(out)}
