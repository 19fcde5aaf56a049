"""Runs: train a model on images into a folder, measure it, and write its atlas."""

from __future__ import annotations

from functools import partial
from os import PathLike
from pathlib import Path

from torch import nn

from .._files import replacing
from ..configuration import ConceptRun
from ..training import Processes, evaluate
from ..training.runs import SPARSE_HEAD, Loaders, complete
from .atlas import write_atlas
from .coding import codes
from .fitting import penalised
from .measures import measure
from .sparse import sparsify

CODES = "codes.npz"
ATLAS = "atlas.html"


def train(config: ConceptRun, out: str | PathLike, *, resume: bool = False, progress: bool = True) -> dict:
    """Train a model, measure it on the test images, and write their codes and an atlas.

    Args:
        config: settings of the run.
        out: folder of the run; new or empty, unless resuming.
        resume: continue the run in the folder, exactly as if never interrupted.
        progress: show progress bars on standard error.

    Processes started by `torchrun` train one model together; the main one measures it.

    Returns:
        The figures of `measure` on the test images, for the model that `training.load` returns, with "hard_accuracy"
        and "smooth_accuracy" as "test_accuracy" and "smooth_test_accuracy"; {"dense_accuracy": for a sparse head, the
        accuracy of the dense head before it}; and "epochs" to "out" of `training.train`. Also in `result.json`, next to
        `codes.npz` and, unless "relu" keeps the concepts real, `atlas.html`.

    Raises:
        ValueError, OSError, FloatingPointError: as in `training.train`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = train(ConceptRun(n_concepts=8, width=2, epochs=1, batch_size=256), folder, progress=False)
        ...     sorted(path.name for path in Path(folder).iterdir() if path.suffix not in (".json", ".svg"))
        ['atlas.html', 'checkpoint.safetensors', 'codes.npz', 'metrics.jsonl']
        >>> 0 <= result["dead"] <= 8
        True
    """
    out = Path(out)

    def figures(model: nn.Module, loaders: Loaders, processes: Processes | None) -> dict:
        is_main = processes is None or processes.is_main
        return _measured(model, loaders, config, out, progress) if is_main else {}

    return complete(
        config,
        out,
        figures,
        resume=resume,
        progress=progress,
        penalty=partial(penalised, recipe=config),
        results=(SPARSE_HEAD, CODES, ATLAS),
    )


def _measured(model, loaders: Loaders, config: ConceptRun, out: Path, progress: bool) -> dict:
    train_loader, _, test_loader = loaders
    dense = {}
    if config.max_concepts_per_class is not None:
        from safetensors.torch import save_file

        dense = {"dense_accuracy": evaluate(model, test_loader)["accuracy"]}
        sparsify(model, train_loader, config.max_concepts_per_class, progress=progress)
        with replacing(out / SPARSE_HEAD) as temporary:
            save_file({name: value.cpu() for name, value in model.head.state_dict().items()}, temporary)
    figures = measure(model, train_loader, test_loader)
    accuracies = {f"{prefix}test_accuracy": figures.pop(name) for prefix, name in _ACCURACIES.items()}
    codes(model, test_loader).save(out / CODES)
    if model.is_binary:
        title, classes = f"Concepts of {Path(config.dataset).name}", train_loader.dataset.classes
        write_atlas(model, test_loader, out / ATLAS, classes=classes, title=title)
    return {**accuracies, **figures, **dense}


_ACCURACIES = {"": "hard_accuracy", "smooth_": "smooth_accuracy"}
