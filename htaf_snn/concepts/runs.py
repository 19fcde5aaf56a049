"""Runs: a model trained on images into a folder, measured, and laid out as an atlas."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path

import torch

from .._files import replacing
from ..models import ICBM, ImageEncoder
from ..training import CHECKPOINT, Processes, TrainConfig, evaluate, image_loaders, load_checkpoint
from ..training.folder import (
    check_folder,
    check_same_data,
    device_of,
    is_count,
    new_folder,
    read_settings,
    require,
    write_json,
)
from ..training.loop import restore
from ..training.recipe import check_annealing, end_annealing
from .atlas import atlas
from .codes import codes
from .fitting import Recipe, activation_of, fit, look, start
from .measures import measure
from .sparse import sparsify

__all__ = ["Config", "load", "run"]

SPARSE_HEAD = "sparse-head.safetensors"


@dataclass(frozen=True)
class Config(Recipe):
    """What `run` does.

    Attributes:
        dataset: a name of `neuromorphic_datasets.images.names()`, or a folder of images, as of `images.load`.
        root, download: as of `images.load`.
        n_concepts: number of concepts.
        discretiser: as of `nn.ConceptLayer`.
        width: of the backbone, `models.ImageEncoder`.
        max_concepts_per_class: give the model a sparse head, see `sparsify`; None for the dense one.
        batch_size, seed, val_fraction: as of `images.loaders`; the seed is also the weights'.
        precision, compiled, device: as of `training.TrainConfig`.

    Raises:
        ValueError: if a number is out of range; an unknown data set or discretiser is refused by `run`.

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
    root: str | None = None
    download: bool = False
    n_concepts: int = 64
    discretiser: str = "htaf"
    width: int = 16
    max_concepts_per_class: int | None = None
    batch_size: int = 64
    seed: int = 0
    val_fraction: float = 0.1
    precision: str = "float32"
    compiled: bool = False
    device: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        names = ("batch_size", "seed", "val_fraction", "precision", "device")
        TrainConfig(model="dhn", **{name: getattr(self, name) for name in names})  # checks them
        for name in ("n_concepts", "width"):
            require(name, getattr(self, name), "an integer of at least 1", is_count)
        require(
            "max_concepts_per_class",
            self.max_concepts_per_class,
            "None" if self.discretiser == "relu" else f"None or 1 to {self.n_concepts}",
            lambda v: v is None or (is_count(v) and v <= self.n_concepts and self.discretiser != "relu"),
        )


def _model(config: Config, channels: int, classes: int) -> ICBM:
    torch.manual_seed(config.seed)
    encoder = ImageEncoder(channels, config.width)
    return ICBM(encoder, config.n_concepts, classes, in_features=encoder.out_features, discretiser=config.discretiser)


def load(out: str | PathLike, model: ICBM | None = None) -> ICBM:
    """The trained model of a run, in eval mode, with its sparse head if it was given one.

    Args:
        out: folder of a run of `run`, or of `fit`.
        model: for a folder of `fit`: a model of the same structure, which gets the weights, in place.

    Returns:
        The model; of a run on the CPU, of `fit` the one given.

    Raises:
        FileNotFoundError: if there is no run or no checkpoint.
        TypeError: if the model is missing for a folder of `fit`, or given for one of `run`.
        ValueError: if a file is damaged, the checkpoint does not fit the configuration or the model, the model makes
            its concepts by another activation, or the run is of another command, whose function is named.

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
    recipe, stored = read_settings(out, Recipe), json.loads((out / "config.json").read_text())
    of_run = "n_concepts" in stored
    if of_run and model is not None:
        raise TypeError(f"model: expected none for {out}, whose configuration makes it, got {type(model).__name__}")
    if not of_run and not isinstance(model, ICBM):
        raise TypeError(f"model: expected an ICBM like the one that fit trained into {out}, got {type(model).__name__}")
    missing = {"image_shape", "classes"} - stored.keys() if of_run else {"image_shape"} - stored.keys()
    if missing:
        raise ValueError(f"{out / 'config.json'}: expected the images' shape and classes, found {', '.join(stored)}")
    with torch.random.fork_rng():
        if model is None:
            model = _model(read_settings(out, Config), stored["image_shape"][0], len(stored["classes"]))
        elif activation_of(model) != stored.get("activation", activation_of(model)):
            raise ValueError(f"model: expected concepts of {stored['activation']}, got {activation_of(model)}")
        model.image_shape = tuple(stored["image_shape"])
        look(model, torch.zeros(1, *model.image_shape))
        load_checkpoint(out / CHECKPOINT, model, torch.optim.Adam(model.parameters()))
    if (out / SPARSE_HEAD).is_file():
        _load_head(out / SPARSE_HEAD, model)
    end_annealing(recipe, model)
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
        config: what to do.
        out: folder of the run; new or empty, unless resuming.
        resume, progress: as of `training.train`.

    Several processes started by `torchrun` train one model together.

    Returns:
        The figures of `measure` on the test images, of the model that `load` gives, and {"dense_accuracy": with a
        sparse head the one of the dense head before, "out"}, also in `result.json`; beside it are `codes.npz` and,
        unless concepts are the real ones of "relu", `atlas.html`.

    Raises:
        ValueError, OSError, FloatingPointError: as of `training.train`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = run(Config(n_concepts=8, width=2, epochs=1, batch_size=256), folder, progress=False)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['atlas.html', 'checkpoint.safetensors', 'codes.npz', 'config.json', 'metrics.jsonl', 'result.json']
        >>> 0 <= result["dead"] <= 8
        True
    """
    device = device_of(config.device)
    out, processes = Path(out), Processes.launched(device.type)
    writes = processes is None or processes.is_main
    check_annealing(config, _model(config, 1, 2))
    if writes:
        check_folder(config, out, resume)
    with new_folder(out) if writes else nullcontext():
        train, val, test = image_loaders(config)
        classes, shape = train.dataset.classes, tuple(train.dataset.images.shape[1:])
        model = _model(config, shape[0], len(classes)).to(device if processes is None else processes.device)
        start(model, train)
        samples = [len(one.dataset) if one else 0 for one in (train, val, test)]
        data = {"image_shape": shape, "classes": list(classes), "samples": samples}
        if writes:
            if resume:
                check_same_data(out, data)
                restore(out, model, torch.optim.Adam(model.parameters()))
            # What is older than the training that goes on would be taken for its own.
            for name in (SPARSE_HEAD, "result.json", "codes.npz", "atlas.html"):
                (out / name).unlink(missing_ok=True)
            write_json(out / "config.json", {**asdict(config), **data})
    how = {"precision": config.precision, "compiled": config.compiled, "resume": resume, "processes": processes}
    fit(model, train, val, recipe=config, out=out, progress=progress, **how)
    result = {}
    if writes:
        result = _measured(model, (train, test), config, out)
        write_json(out / "result.json", result)
    if processes is not None:
        processes.shutdown()
    return result


def _measured(model: ICBM, loaders: tuple, config: Config, out: Path) -> dict:
    train, test = loaders
    dense = {}
    if config.max_concepts_per_class is not None:
        from safetensors.torch import save_file

        dense = {"dense_accuracy": evaluate(model, test)["accuracy"]}
        sparsify(model, train, config.max_concepts_per_class)
        with replacing(out / SPARSE_HEAD) as temporary:
            save_file({name: value.cpu() for name, value in model.head.state_dict().items()}, temporary)
    result = {**measure(model, train, test), **dense}
    codes(model, test).save(out / "codes.npz")
    if model.is_binary:
        title = f"Concepts of {Path(config.dataset).name}"
        atlas(model, test, out / "atlas.html", classes=test.dataset.classes, title=title)
    return {**result, "out": str(out)}
