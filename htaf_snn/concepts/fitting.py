"""Training of implicit concept bottleneck models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import training
from ..configuration import ConceptRecipe
from ..models import ICBM
from ..nn._batches import check_labels, unpack
from ..nn._modes import in_eval
from ..training.folder import CONFIG, DATA, check_same_data, check_same_run, read_config, write_json
from ..training.loop import check_no_run
from ..training.recipe import check_annealing

_RATES = 0.05, 0.95


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


@contextmanager
def penalised(model: nn.Module, recipe: ConceptRecipe) -> Iterator[Callable[[], Tensor]]:
    """Within the block, the function gives the weighted penalties of the model's last forward pass."""
    weights = {name: getattr(recipe, name) for name in ("activity", "decorrelation", "entropy")}
    last: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        last[:] = [output]

    def total() -> Tensor:
        if not len(last[0]):  # an empty shard
            return last[0].sum()
        values = penalties(last[0])
        return sum((weight * values[name] for name, weight in weights.items() if weight), torch.zeros(()))

    handle = model.get_submodule("concept_layer.activation").register_forward_hook(keep)
    try:
        yield total
    finally:
        handle.remove()


def fit(
    model: ICBM,
    train_loader: DataLoader,
    val_loader: DataLoader | None = None,
    *,
    out: str | PathLike,
    recipe: ConceptRecipe | None = None,
    resume: bool = False,
    progress: bool = True,
    processes: training.Processes | None = None,
) -> list[dict]:
    """Train a model, by default with concepts that are 0 or 1 from the start.

    Args:
        model: on the device to train it on.
        train_loader: of (images, labels), all images of one shape.
        val_loader: likewise, or None.
        out: folder for `config.json`, `data.json`, `metrics.jsonl` and the checkpoint; created if missing. It must not
            hold another run, unless resuming. `training.load(out, model)` loads the weights into a model of the same
            structure.
        recipe: settings of the training; None for the defaults.
        resume: continue the run in the folder, exactly as if never interrupted.
        progress: show a progress bar on standard error.
        processes: those that share the work, as in `training.fit`; the penalties are those of each one's shard.

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
        ...     metrics = fit(model, train, val, out=folder, recipe=ConceptRecipe(epochs=2), progress=False)
        >>> len(metrics), {"train_loss", "val_accuracy", "val_hardening_gap"} <= set(metrics[-1])
        (2, True)
    """
    if not isinstance(model, ICBM):
        raise TypeError(f"model: expected an ICBM, got {type(model).__name__}")
    recipe = recipe or ConceptRecipe()
    out = Path(out)
    surrogate = getattr(model.concept_layer.activation, "surrogate", None)
    start = surrogate.numbers() if surrogate else {}  # without addresses of callables, which differ between processes
    own = ConceptRecipe(**{field.name: getattr(recipe, field.name) for field in fields(ConceptRecipe)})
    check_annealing(own, model)
    is_main = processes is None or processes.is_main
    resumes = is_main and resume and (out / CONFIG).is_file()
    if resumes:
        check_same_run(own, read_config(out, ConceptRecipe))
    with _shape_restored_on_error(model), penalised(model, recipe) as penalty:
        check_first_batch(model, train_loader)
        data = {"shape": model.image_shape, "activation": activation_of(model), "surrogate_at_start": start}
        if resumes:
            check_same_data(out, data)
        if is_main:
            out.mkdir(parents=True, exist_ok=True)
            check_no_run(out, resume)
            write_json(out / CONFIG, asdict(own))
            write_json(out / DATA, data)
        return training.fit(
            model,
            train_loader,
            val_loader,
            recipe,
            out=out,
            resume=resume,
            progress=progress,
            processes=processes,
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
