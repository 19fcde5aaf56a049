"""Training over epochs, with metrics and checkpoints; evaluation."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sized
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from .. import hardening
from .._files import replacing
from ..configuration import Recipe
from ..nn._batches import device_of, loss_and_accuracy, unpack
from .checkpoint import CHECKPOINT, NETWORK, load_checkpoint, save_checkpoint
from .processes import Processes
from .readings import Readings, SpikeRates
from .recipe import before_step as changes_of
from .step import Trainer

if TYPE_CHECKING:
    from tqdm import tqdm

METRICS = "metrics.jsonl"


def evaluate(model: nn.Module, loader: Iterable, processes: Processes | None = None) -> dict[str, float]:
    """Return the mean cross-entropy and the accuracy of a classifier over a loader of (inputs, labels).

    Args:
        model: maps inputs to class scores (B, n_classes); evaluated on its own device and in eval mode, after which it
            is in its former mode again. For batches of three items it is called with `lengths=` beside the frames.
        loader: batches of (inputs, integer labels (B,)), or of (frames (T, B, …), labels, lengths (B,)) as from
            `neuromorphic_datasets.loaders(time_window=…)`, where time steps beyond a recording's length do not count.
        processes: the processes that share every batch; all get the same figures. None for this process alone.

    Returns:
        {"loss": in nats, "accuracy": from 0 to 1}.

    Raises:
        ValueError: if the loader is empty, a label is out of range, or the scores have another shape, such as those of
            a network that returns a sequence.
        TypeError: if the inputs are 8-bit, or their type is not that of the parameters, and the model does not take
            them; the scores are no tensor, the model does not take lengths, or the loader of several processes is no
            `DataLoader`.
        FloatingPointError: if a score is NaN.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.eye(2))
        >>> x, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1, 1])
        >>> evaluate(net, [(x, labels)])["accuracy"]
        0.75
    """
    loss, accuracy = loss_and_accuracy(model, loader, processes)
    return {"loss": loss, "accuracy": accuracy}


def validate(
    model: nn.Module, train_loader: Iterable, val_loader: Iterable | None, processes: Processes | None = None
) -> dict[str, float]:
    """Return the validation figures of an epoch, none without data; BatchNorm gets the hard network's statistics."""
    if val_loader is not None:
        hard, smooth, gap, loss = hardening.evaluate(
            model, train_loader, val_loader, keep_hard_statistics=True, processes=processes
        )
        return {"val_loss": loss, "val_accuracy": hard, "val_smooth_accuracy": smooth, "val_hardening_gap": gap}
    if not hardening.is_hard(model):
        with hardening.hard(model):
            hardening.recalibrate(model, train_loader, processes=processes)
    return {}


def _shared_seed(processes: Processes | None) -> int | None:
    """Seed all processes alike, so that their loaders draw one order, and return the seed; None for one process.

    It comes from the main process's random state, which a checkpoint holds.
    """
    if processes is None:
        return None
    seed = int(processes.broadcast(int(torch.randint(2**62, ()))))
    torch.manual_seed(seed)
    return seed


def train_epoch(trainer: Trainer, loader: Iterable, epoch: int, steps: int, bar: tqdm, seed: int | None = None) -> dict:
    """Train for one epoch, the `epoch`-th counted from 0, and return its metrics; `seed` as of `_shared_seed`."""
    model, processes, every = trainer.model, trainer.processes, trainer.recipe.accumulate
    scale = trainer.scaler.get_scale()
    model.train()
    total = [0.0, 0.0, 0.0]  # of loss, correct answers and samples
    min_samples, n_updates = _min_samples(model), updates_in_epoch(steps, trainer.recipe)
    batches = (batch for batch in map(unpack, loader) if len(batch.labels) >= min_samples)
    readings = Readings(device_of(model).type == "cuda" and processes is None)
    with SpikeRates(model) as rates:

        def show(figures: list[float], sums: list[float], sizes: list[float]) -> None:
            total[:] = [a + b for a, b in zip(total, figures, strict=True)]
            loss, correct = total[0] / total[2], total[1] / total[2]
            spike_rate = rates.mean(sums, sizes)
            mean_rate = sum(spike_rate) / max(len(spike_rate), 1)
            bar.set_postfix_str(f"loss {loss:.3f}, acc {correct:.3f}, rate {mean_rate:.3f}", refresh=False)
            bar.update()

        step = -1
        try:
            for step, batch in enumerate(batches):
                rates.batch = batch
                if not step and seed is not None and processes is not None:
                    torch.manual_seed(seed + 1 + processes.rank)  # for dropout and augmentation, after the order
                if not step % every:
                    trainer.begin(epoch * n_updates + step // every, batch)
                figures, count = trainer.add_gradients(batch)
                _read(trainer, figures, count, f"in epoch {epoch + 1}, step {step + 1}", rates, readings, show)
                if step % every == every - 1:
                    trainer.update()
            if (step + 1) % every:
                trainer.update()
        finally:
            readings.finish()  # an error of the step before explains one of this
    if not total[2]:
        raise ValueError(f"train_loader: expected a batch of {max(min_samples, 1)} samples or more, got none")
    sums, sizes = rates.sums().tolist(), rates.sizes()
    if processes is not None:
        processes.average_statistics(model)
        sums, sizes = processes.sum(*sums), processes.sum(*sizes)
    trainer.check_scale(scale, updates_in_epoch(step + 1, trainer.recipe), f"in epoch {epoch + 1}")
    loss, correct, count = total
    return {"train_loss": loss / count, "train_accuracy": correct / count, "spike_rate": rates.mean(sums, sizes)}


def _read(
    trainer: Trainer, figures: Tensor, count: float, when: str, rates: SpikeRates, readings: Readings, show: Callable
) -> None:
    """Check that a batch's loss and gradients are finite, and show the sums of its figures, maybe one batch later."""
    # In float16 the scaler leaves out steps whose gradients are not finite.
    largest = {} if trainer.scaler.is_enabled() else _largest_gradients(trainer.model)
    sums, sizes = rates.sums().to(figures.device), rates.sizes()

    def use(numbers: list[float]) -> None:
        loss, right, *others = numbers
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} {when}; try a smaller lr")
        for name, value in reversed([*zip(largest, others, strict=False)]):  # that nearest to the loss
            if not math.isfinite(value):
                raise FloatingPointError(f"{name}: {'NaN' if math.isnan(value) else 'infinite'} gradient {when}")
        show([loss * count, right, count], others[len(largest) :], sizes)

    values = [value.to(figures) for value in largest.values()]
    readings.read(torch.cat([figures, *([torch.stack(values)] if values else []), sums]), use)


def updates_in_epoch(steps: int, recipe: Recipe) -> int:
    """Return the optimizer's steps in an epoch of so many batches."""
    return -(-steps // recipe.accumulate)


def _min_samples(model: nn.Module, processes: Processes | None = None) -> int:
    """Return how many samples a batch needs: BatchNorm takes two per process."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return 0
    return 2 * (1 if processes is None else processes.world_size)


def steps_in_epoch(model: nn.Module, loader: DataLoader, processes: Processes | None = None) -> int:
    """Return the number of training steps per epoch: all batches but those too small for BatchNorm.

    BatchNorm takes two samples per process; `fit` skips smaller batches. The sizes that a custom batch sampler makes
    are not known beforehand, so all of its batches are counted.

    Args:
        model: the network; only its BatchNorm layers matter.
        loader: the training data.
        processes: the processes that share every batch; None for this process alone.

    Raises:
        TypeError: if the loader has no length.
        ValueError: if no batch is large enough.

    Example:
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> loader = DataLoader(TensorDataset(torch.zeros(65, 3)), batch_size=32)
        >>> steps_in_epoch(nn.Linear(3, 2), loader), steps_in_epoch(nn.BatchNorm1d(3), loader)
        (3, 2)
    """
    try:
        steps = len(loader)
    except TypeError as error:
        raise TypeError(
            f"train_loader: expected one with a length, which numbers the training's steps, got none ({error}); give "
            "its data set or sampler a __len__"
        ) from None
    min_samples, batches = _min_samples(model, processes), getattr(loader, "batch_sampler", None)
    # The sampler of an iterable data set has no length.
    if min_samples and type(batches) is BatchSampler and isinstance(batches.sampler, Sized):
        steps -= not batches.drop_last and 0 < len(batches.sampler) % batches.batch_size < min_samples
        if batches.batch_size < min_samples or not steps:
            raise ValueError(
                f"batch_size: BatchNorm expects two samples per process, {min_samples} in total, got fewer"
            )
    return steps


def _largest_gradients(model: nn.Module) -> dict[str, Tensor]:
    """Return the largest magnitude in each parameter's gradient, which shows whether all of it is finite."""
    named = model.named_parameters()
    gradients = {name: p.grad for name, p in named if p.grad is not None and p.grad.numel()}
    # Many times as quick on a CPU as their norms of order infinity.
    largest = torch._foreach_max(torch._foreach_abs([*gradients.values()])) if gradients else ()
    return dict(zip(gradients, largest, strict=True))


def fit(
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: Iterable | None = None,
    recipe: Recipe | None = None,
    *,
    out: str | PathLike,
    resume: bool = False,
    progress: bool = True,
    label: str = "",
    processes: Processes | None = None,
    before_step: Callable[[int, torch.optim.Optimizer], None] = lambda number, optimizer: None,
    on_epoch: Callable[[dict], None] = lambda line: None,
    penalty: Callable[[], Tensor] | None = None,
) -> list[dict]:
    """Train a classifier, writing metrics and a checkpoint after every epoch.

    Args:
        model: maps a loader's inputs to class scores (B, n_classes), or frames (T, B, …) to the scores of every time
            step (T, B, n_classes), whose mean counts; the mean output of the modules in `model.neurons` is recorded as
            the spike rate, for levels -1 and 1 the share of 1. It is trained on its own device, and ends as the network
            that the recipe keeps.
        train_loader: batches as in `evaluate`; if its sampler has `set_epoch`, that is called with the number of the
            epoch.
        val_loader: likewise, or None.
        recipe: how to train; None for the defaults. For a loss of every time step ("tet") the model returns their
            scores, or has a `stream` as `models.SpikingNet`; `tbptt` needs the latter.
        out: existing folder for `metrics.jsonl` and the checkpoint; without those of another run, unless resuming.
        resume: continue from the folder's checkpoint, exactly as if never interrupted. The recipe's epochs include
            those of the run before; if they are more, an annealing and a cosine schedule are stretched to them.
        progress: show a progress bar on standard error, or, where that is no terminal, a line per epoch.
        label: text in front of the progress bar.
        processes: the processes from `Processes.launched`, all of which call this and share every batch of
            `train_loader`. The main one's weights are used, and it alone reads and writes the folder.
        before_step: called with the number of the optimizer's step, counted from the start of the first epoch, and the
            optimizer, to set what changes during training besides what the recipe changes. It must depend on the number
            alone, so that resuming is exact.
        on_epoch: called with the metrics of each epoch, by the main process.
        penalty: called after each forward pass; its value is added to the loss that is minimised, not to the one that
            is reported.

    Returns:
        The metrics of all epochs, as in `metrics.jsonl`: {"epoch": counted from 1, "train_loss", "train_accuracy",
        "spike_rate": one per module in `model.neurons`, "val_loss", "val_accuracy", "val_smooth_accuracy",
        "val_hardening_gap", "seconds"}. "train_loss" is the recipe's loss, "val_loss" the cross-entropy. Validation
        figures are those of `hardening.evaluate`.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`, when resuming.
        ValueError: if the folder has a run and `resume` is False, the recipe needs validation data and there are none,
            there is nothing to anneal, or as `steps_in_epoch`.
        TypeError, ValueError: as `evaluate`, for inputs, labels and scores.
        FloatingPointError: if the loss or a gradient, which is named, becomes NaN or infinite; on a GPU after one more
            step, as training does not wait for it. In fp16, where such a step is left out, if hardly one is made.

    Example:
        >>> import tempfile
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.randn(64, 2)
        >>> loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     metrics = fit(nn.Linear(2, 2), loader, recipe=Recipe(epochs=3, lr=0.1), out=folder, progress=False)
        >>> len(metrics), metrics[-1]["train_loss"] < metrics[0]["train_loss"]
        (3, True)
    """
    from tqdm import tqdm

    out, is_main, recipe = Path(out), processes is None or processes.is_main, recipe or Recipe()
    if val_loader is None and (recipe.keeps_best or recipe.early_stopping is not None):
        raise ValueError("val_loader: expected validation data for early_stopping and keep='best', got None")
    if is_main:
        check_no_run(out, resume)
    steps = steps_in_epoch(model, train_loader, processes)
    # Before a checkpoint is restored, as an annealing starts from the surrogates' own hardness and parameters.
    changes = changes_of(recipe, model, updates_in_epoch(steps, recipe))

    def prepare(number: int, optimizer: torch.optim.Optimizer, clips: bool = True) -> None:
        changes(number, optimizer, clips)
        before_step(number, optimizer)

    trainer = Trainer(model, recipe, prepare, penalty)
    done, metrics = restore(out, model, trainer.optimizer, trainer.extra()) if resume and is_main else (0, [])
    batches = train_loader
    if processes is not None:
        done, metrics = processes.broadcast((done, metrics))
        trainer.share(processes)
        batches = processes.shard(train_loader, _min_samples(model, processes))
    if done:  # the settings of the previous step, in all processes; its weights are as that step left them
        prepare(done * updates_in_epoch(steps, recipe) - 1, trainer.optimizer, False)
    if is_main:
        if not done:
            save_checkpoint(out / CHECKPOINT, model, trainer.optimizer, 0, trainer.extra())
        if not done or not trainer.has_network:
            (out / NETWORK).unlink(missing_ok=True)
        _write_metrics(out, metrics)
    is_bar = progress and is_main and sys.stderr.isatty()
    for epoch in range(done, recipe.epochs):
        if is_stopped(metrics, recipe):
            break
        _set_epoch(train_loader, epoch)
        start = time.perf_counter()
        with tqdm(total=steps, desc=f"{label}epoch {epoch + 1}/{recipe.epochs}", disable=not is_bar) as bar:
            if epoch == done:
                bar.set_postfix_str("first step: loads data and compiles kernels")
            seed = _shared_seed(processes)
            line = {"epoch": epoch + 1, **train_epoch(trainer, batches, epoch, steps, bar, seed)}
            with trainer.tested_weights(train_loader):
                line |= validate(model, train_loader, val_loader, processes)
                metrics.append({**line, "seconds": round(time.perf_counter() - start, 3)})
                if is_main and trainer.has_network and (not recipe.keeps_best or best_epoch(metrics) == epoch + 1):
                    save_checkpoint(out / NETWORK, model, None, epoch + 1)
            if val_loader is not None:
                bar.set_postfix_str(f"{bar.postfix}, val acc {line['val_accuracy']:.3f}")
        if progress and is_main and not is_bar:
            print(f"{label}{_line(metrics[-1], recipe)}", file=sys.stderr, flush=True)
        if is_main:
            on_epoch(metrics[-1])
            _write_metrics(out, metrics)
            save_checkpoint(out / CHECKPOINT, model, trainer.optimizer, epoch + 1, trainer.extra())
    if progress and is_main and is_stopped(metrics, recipe):
        print(
            f"{label}stopped after epoch {len(metrics)}, as the validation accuracy had not improved for "
            f"{recipe.early_stopping} epochs; kept is the network of epoch {kept_epoch(metrics, recipe)}",
            file=sys.stderr,
        )
    _set_epoch(train_loader, len(metrics) - 1)  # where a finished run is resumed, so that it is tested as before
    if trainer.has_network and metrics:
        _keep(out, model, kept_epoch(metrics, recipe), processes)
    return metrics


def _set_epoch(loader: DataLoader, epoch: int) -> None:
    """Tell a loader's sampler, if it asks, whose epoch's order to draw."""
    set_epoch = getattr(getattr(loader, "sampler", None), "set_epoch", None)
    if set_epoch is not None:
        set_epoch(max(epoch, 0))


def _keep(out: Path, model: nn.Module, epoch: int, processes: Processes | None) -> None:
    """Give the model the weights of the network that the recipe keeps, that of the epoch counted from 1."""
    if processes is None or processes.is_main:
        found = load_checkpoint(out / NETWORK, model)
        if found != epoch:
            raise ValueError(
                f"{out / NETWORK}: expected the network of epoch {epoch}, got that of epoch {found}, which was written "
                "before the run was cut off and continued differently; start over"
            )
    if processes is not None:
        model.load_state_dict(processes.broadcast(model.state_dict()))


def _line(line: dict[str, Any], recipe: Recipe) -> str:
    """Return an epoch's metrics as one line of text."""
    val = f", val acc {line['val_accuracy']:.3f}" if "val_accuracy" in line else ""
    figures = f"loss {line['train_loss']:.3f}, acc {line['train_accuracy']:.3f}{val}"
    return f"epoch {line['epoch']}/{recipe.epochs}: {figures}, {line['seconds']:.1f} s"


def best_epoch(metrics: list[dict]) -> int:
    """Return the first epoch with the best validation accuracy, counted from 1."""
    return max(metrics, key=lambda line: line["val_accuracy"])["epoch"]


def kept_epoch(metrics: list[dict], recipe: Recipe) -> int:
    """Return the epoch whose network the recipe keeps, counted from 1."""
    return best_epoch(metrics) if recipe.keeps_best else len(metrics)


def is_stopped(metrics: list[dict], recipe: Recipe) -> bool:
    """Return whether the validation accuracy has not improved for as many epochs as the recipe waits."""
    return bool(recipe.early_stopping and metrics and len(metrics) - best_epoch(metrics) >= recipe.early_stopping)


def restore(
    out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, extra: dict[str, Tensor] | None = None
) -> tuple[int, list[dict]]:
    """Return the finished epochs and their metrics; none if the run stopped before its first checkpoint."""
    if not (out / CHECKPOINT).exists() and not ((out / METRICS).exists() and (out / METRICS).read_text()):
        return 0, []
    done = load_checkpoint(out / CHECKPOINT, model, optimizer, extra)
    try:
        text = (out / METRICS).read_text() if done or (out / METRICS).exists() else ""
        metrics = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{out / METRICS}: expected the metrics of a run to resume, got {error}") from error
    if len(metrics) < done:
        raise ValueError(f"{out / METRICS}: expected at least {done} lines, got {len(metrics)}")
    return done, metrics[:done]


def check_no_run(out: Path, resume: bool) -> None:
    """Raise ValueError if the folder has a run, unless resuming."""
    if not resume and _has_run(out):
        raise ValueError(f"out: expected a folder without a run, got {out}; resume its run or name another")


def _has_run(out: Path) -> bool:
    """Return whether the folder has a run with an epoch; one that failed before may be begun again."""
    metrics = out / METRICS
    return metrics.stat().st_size > 0 if metrics.is_file() else (out / CHECKPOINT).exists()


def _write_metrics(out: Path, metrics: list[dict]) -> None:
    with replacing(out / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in metrics))
