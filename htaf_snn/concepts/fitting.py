"""Training of implicit concept bottleneck models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import training
from ..models import ICBM
from ..nn._batches import check_labels, unpack
from ..nn._modes import in_eval
from ..training.folder import check_same_data, check_same_run, is_number, read_settings, require, write_json
from ..training.loop import check_no_run
from ..training.recipe import check_annealing

_RATES = 0.05, 0.95


@dataclass(frozen=True)
class Recipe(training.recipe.Recipe):
    """Settings of a training.

    Attributes:
        epochs, lr, schedule, anneal, alpha_end: as in `training.TrainConfig`.
        activity, decorrelation, entropy: weights of the penalties, see `penalties`; at least 0.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> Recipe(epochs=5, entropy=0.5).schedule
        'cosine'
        >>> Recipe(activity=-1.0)
        Traceback (most recent call last):
            ...
        ValueError: activity: expected a number >= 0, got -1.0
    """

    lr: float = 8e-3
    schedule: str = "cosine"
    activity: float = 1.0
    decorrelation: float = 0.01
    entropy: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("activity", "decorrelation", "entropy"):
            require(name, getattr(self, name), "a number >= 0", lambda v: is_number(v) and 0 <= v < float("inf"))


def penalties(concepts: Tensor) -> dict[str, Tensor]:
    """Return the regularisation penalties of a batch; each is 0 at its optimum.

    Args:
        concepts: of shape (B, K), within [0, 1]; any real dtype.

    Returns:
        {"activity": mean distance of the activation rates from the range 0.05 to 0.95, which keeps concepts alive;
        "decorrelation": mean squared correlation of two concepts, which keeps them distinct; "entropy": 1 minus the
        mean entropy of the rates in bits, which balances them}, scalars in float32 with gradients.

    Example:
        >>> same = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> {name: round(value.item(), 3) for name, value in penalties(same).items()}
        {'activity': 0.0, 'decorrelation': 1.0, 'entropy': 0.0}
    """
    concepts = concepts.float()
    rates = concepts.mean(0)
    low, high = _RATES
    inside = rates.clamp(1e-6, 1 - 1e-6)
    entropy = -(inside * inside.log2() + (1 - inside) * (1 - inside).log2())
    deviations = concepts - rates
    # The deviations of a concept that does not vary are 0, and so is its correlation.
    unit = deviations / deviations.square().sum(0).clamp(min=1e-6).sqrt()
    correlations = (unit.T @ unit).square()
    pairs = max(concepts.shape[1] * (concepts.shape[1] - 1), 1)
    return {
        "activity": ((low - rates).clamp(min=0) + (rates - high).clamp(min=0)).mean(),
        "decorrelation": (correlations.sum() - correlations.diagonal().sum()) / pairs,
        "entropy": 1 - entropy.mean(),
    }


class _Penalty:
    """The weighted penalties of the last forward pass."""

    _concepts: Tensor  # set by each forward pass

    def __init__(self, recipe: Recipe):
        names = ("activity", "decorrelation", "entropy")
        self._weights = {name: getattr(recipe, name) for name in names if getattr(recipe, name) > 0}

    @contextmanager
    def watching(self, activation: nn.Module) -> Iterator[None]:
        def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            self._concepts = output

        handle = activation.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def __call__(self) -> Tensor:
        values = penalties(self._concepts)
        return sum((weight * values[name] for name, weight in self._weights.items()), torch.zeros(()))


def fit(
    model: ICBM,
    train_loader: DataLoader,
    val_loader: DataLoader | None = None,
    *,
    out: str | PathLike,
    recipe: Recipe | None = None,
    epochs: int | None = None,
    resume: bool = False,
    progress: bool = True,
    processes: training.Processes | None = None,
    precision: str = "float32",
    compiled: bool = False,
) -> list[dict]:
    """Train a model, by default with concepts that are 0 or 1 from the start.

    Args:
        model: on the device to train it on.
        train_loader: of (images, labels), all images of one shape.
        val_loader: likewise, or None.
        out: folder for `config.json`, `metrics.jsonl` and the checkpoint; created if missing. It must not hold another
            run, unless resuming. `concepts.load(out, model)` loads the weights into a model of the same structure.
        recipe: settings of the training; None for the defaults.
        epochs: overrides the recipe's.
        resume: continue the run in the folder, exactly as if never interrupted.
        progress: show a progress bar on standard error.
        processes: those that share the work, as in `training.fit`.
        precision: "float32", or "bfloat16" for mixed precision.
        compiled: train through `torch.compile`.

    Returns:
        The metrics of all epochs, as in `training.fit`; "spike_rate" is the concepts' mean.

    Raises:
        TypeError: if the model is not an ICBM, or as in `training.fit`.
        ValueError: if a label is out of range, the run to resume has another recipe, surrogate or image shape, or as
            in `training.fit`.
        FileNotFoundError, FloatingPointError: as in `training.fit`.

    Example:
        >>> import tempfile
        >>> from neuromorphic_datasets import images
        >>> train, val, _ = images.loaders("digits", batch_size=256)
        >>> model = ICBM(nn.Flatten(), n_concepts=16, n_classes=10, in_features=64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     metrics = fit(model, train, val, out=folder, recipe=Recipe(epochs=2), progress=False)
        >>> len(metrics), {"train_loss", "val_accuracy", "val_hardening_gap"} <= set(metrics[-1])
        (2, True)
    """
    if not isinstance(model, ICBM):
        raise TypeError(f"model: expected an ICBM, got {type(model).__name__}")
    recipe = recipe or Recipe()
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    out, penalty = Path(out), _Penalty(recipe)
    surrogate = getattr(model.concept_layer.activation, "surrogate", None)
    start = surrogate.numbers() if surrogate else {}  # without addresses of callables, which differ between processes
    own = Recipe(**{field.name: getattr(recipe, field.name) for field in fields(Recipe)})
    check_annealing(own, model)
    writes = processes is None or processes.is_main
    resumes = writes and resume and (out / "config.json").is_file()
    if resumes:
        check_same_run(own, read_settings(out, Recipe))
    with _shape_restored_on_error(model), penalty.watching(model.concept_layer.activation):
        check_first_batch(model, train_loader)
        data = {"image_shape": model.image_shape, "activation": activation_of(model), "surrogate_at_start": start}
        if resumes:
            check_same_data(out, data)
        if writes:
            out.mkdir(parents=True, exist_ok=True)
            check_no_run(out, resume)
            path = out / "config.json"  # of `run`, which has more settings
            before = json.loads(path.read_text()) if path.is_file() else {}
            write_json(path, {**before, **asdict(own), **data})
        return training.fit(
            model,
            train_loader,
            val_loader,
            out=out,
            epochs=recipe.epochs,
            lr=recipe.lr,
            resume=resume,
            progress=progress,
            processes=processes,
            precision=precision,
            compiled=compiled,
            before_step=training.before_step(recipe, model, training.steps_in_epoch(model, train_loader, processes)),
            penalty=penalty,
        )


def activation_of(model: ICBM) -> str:
    """Return what makes the concepts: a class, without its parameters, as training changes them, or a specification."""
    activation = model.concept_layer.activation
    surrogate = getattr(activation, "surrogate", activation)
    return getattr(surrogate, "name", "") or type(surrogate).__name__


def check_first_batch(model: ICBM, loader: DataLoader) -> None:
    """Check the labels and images of the first batch, and give the model their shape and its lazy layer its size."""
    images, labels, _ = unpack(next(iter(loader)))
    check_labels(labels, model.head.out_features)
    model.image_shape = tuple(images.shape[1:])
    check_images(model, images)


def check_images(model: ICBM, images: Tensor) -> None:
    """Evaluate a model once, which checks the images and gives a lazy layer its size."""
    with torch.no_grad(), in_eval(model):
        model(images.to(model.head.weight.device))


@contextmanager
def _shape_restored_on_error(model: ICBM) -> Iterator[None]:
    before = model.image_shape
    try:
        yield
    except Exception:
        model.image_shape = before
        raise
