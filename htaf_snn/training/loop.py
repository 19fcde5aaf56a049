"""Training over epochs, with metrics and checkpoints; evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, DataLoader

from .. import hardening
from .._checks import check_choice
from .._files import replacing
from ..nn._batches import Batch, class_scores, device_of, loss_and_accuracy, sent, unpack
from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .processes import Processes

if TYPE_CHECKING:
    from tqdm import tqdm

PRECISIONS = ("fp32", "bf16")
METRICS = "metrics.jsonl"


class _SpikeRates:
    """Mean output of each of a model's `neurons`, collected by forward hooks within the block.

    For activations with levels -1 and 1 it is the share of the upper level. In a batch with lengths, outputs
    (T, B, …) beyond them do not count.
    """

    def __init__(self, model: nn.Module):
        self._neurons: list[nn.Module] = list(getattr(model, "neurons", ()))
        self.batch: Batch | None = None

    def __enter__(self) -> _SpikeRates:
        self._sums: list[float | Tensor] = [0.0] * len(self._neurons)
        self._sizes = [0] * len(self._neurons)
        self._hooks = [neuron.register_forward_hook(self._add_to(i)) for i, neuron in enumerate(self._neurons)]
        return self

    def _add_to(self, i: int) -> Callable:
        def hook(module, inputs, output):
            # The neurons of snnTorch and Norse return their spikes and their state.
            output = (output[0] if isinstance(output, tuple) else output).detach()
            size, batch = output.numel(), self.batch
            if batch is not None and batch.lengths is not None and output.shape[:2] == batch.x.shape[:2]:
                size = int(batch.lengths.sum()) * output[0, 0].numel()
                output = _without_padding(output, batch.lengths)
            self._sums[i] = self._sums[i] + output.sum(dtype=torch.float64)
            self._sizes[i] += size

        return hook

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()

    def sums(self) -> Tensor:
        """Return the sums so far, float64, on the device of the outputs."""
        made = [total for total in self._sums if isinstance(total, Tensor)]
        if not made:
            return torch.zeros(len(self._sums), dtype=torch.float64)
        return torch.stack([total if isinstance(total, Tensor) else torch.zeros_like(made[0]) for total in self._sums])

    def sizes(self) -> list[float]:
        return [float(size) for size in self._sizes]

    def mean(self, sums: list[float], sizes: list[float]) -> list[float]:
        """Return the means of sums and sizes, as shares of the upper level."""
        levels = [getattr(neuron, "levels", (0, 1)) for neuron in self._neurons]
        return [
            (s / max(size, 1) - low) / (high - low) for s, size, (low, high) in zip(sums, sizes, levels, strict=True)
        ]


class _Readings:
    """Reads numbers of a step: at once, or from a GPU one step late, so that training never waits for it."""

    def __init__(self, is_late: bool):
        self._is_late = is_late
        self._waiting: list[tuple[torch.cuda.Event, Tensor, Callable]] = []

    def read(self, numbers: Tensor, use: Callable[[list[float]], None]) -> None:
        """Call `use` with the numbers; it may raise."""
        if not self._is_late:
            use(numbers.tolist())
            return
        here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        here.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(numbers.device))
        self._waiting.append((event, here, use))
        if len(self._waiting) > 1:
            self._use_first()

    def finish(self) -> None:
        """Use the numbers that wait."""
        while self._waiting:
            self._use_first()

    def _use_first(self) -> None:
        event, numbers, use = self._waiting.pop(0)
        event.synchronize()
        use(numbers.tolist())


def _without_padding(output: Tensor, lengths: Tensor) -> Tensor:
    """Return outputs (T, B, …) with 0 beyond each sample's length."""
    valid = torch.arange(len(output), device=output.device)[:, None] < sent(lengths, output.device)
    return output.where(valid.view(*valid.shape, *[1] * (output.ndim - 2)), 0)


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
        TypeError: if the inputs are 8-bit and the model does not take them, the scores are no tensor, the model does
            not take lengths, or the loader of several processes is no `DataLoader`.
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
            hardening.recalibrate(model, train_loader)
    return {}


@dataclass
class _Training:
    """What `fit` trains, and how; `network` is the model, possibly wrapped by Fabric and compiled."""

    model: nn.Module
    network: nn.Module
    optimizer: torch.optim.Optimizer
    processes: Processes | None
    precision: str
    before_step: Callable[[int, torch.optim.Optimizer], None]
    penalty: Callable[[], Tensor] | None

    def epoch(self, loader: Iterable, epoch: int, bar: tqdm) -> dict:
        """Train for one epoch and return its metrics."""
        self.model.train()
        total = [0.0, 0.0, 0.0]  # of loss, correct answers and samples
        min_samples = _min_samples(self.model)
        batches = (batch for batch in map(unpack, loader) if len(batch.labels) >= min_samples)
        readings = _Readings(device_of(self.model).type == "cuda" and self.processes is None)
        with _SpikeRates(self.model) as rates:

            def show(figures: list[float], sums: list[float], sizes: list[float]) -> None:
                total[:] = [a + b for a, b in zip(total, figures, strict=True)]
                loss, correct = total[0] / total[2], total[1] / total[2]
                spike_rate = rates.mean(sums, sizes)
                mean_rate = sum(spike_rate) / max(len(spike_rate), 1)
                bar.set_postfix_str(f"loss {loss:.3f}, acc {correct:.3f}, rate {mean_rate:.3f}", refresh=False)
                bar.update()

            try:
                for step, batch in enumerate(batches):
                    rates.batch = batch
                    self._step(batch, epoch * bar.total + step, f"in epoch {epoch}, step {step}", rates, readings, show)
            finally:
                readings.finish()  # an error of the step before explains one of this
        if not total[2]:
            raise ValueError(f"train_loader: expected a batch of {max(min_samples, 1)} samples or more, got none")
        sums, sizes = rates.sums().tolist(), rates.sizes()
        if self.processes is not None:
            self.processes.average_statistics(self.model)
            sums, sizes = self.processes.sum(*sums), self.processes.sum(*sizes)
        loss, correct, count = total
        return {"train_loss": loss / count, "train_accuracy": correct / count, "spike_rate": rates.mean(sums, sizes)}

    def _step(
        self, batch: Batch, number: int, when: str, rates: _SpikeRates, readings: _Readings, show: Callable
    ) -> None:
        """Update the parameters, and show the sums of the loss, correct answers and samples, over all processes."""
        self.before_step(number, self.optimizer)
        with torch.autocast(device_of(self.model).type, torch.bfloat16, enabled=self.precision == "bf16"):
            scores, labels = class_scores(self.model, batch, self.network)
        scores = scores.float()
        # A process whose shard is empty still takes part in averaging the gradients.
        loss = cross_entropy(scores, labels) if len(labels) else scores.sum()
        right, count, share = (scores.argmax(1) == labels).sum(), float(len(labels)), 1.0
        figures = torch.stack([loss.detach(), right.to(loss.dtype)])
        if self.processes is not None:
            own_loss, own_right = figures.tolist()
            total_loss, total_right, count = self.processes.sum(own_loss * count, own_right, count)
            figures = figures.new_tensor([total_loss / count, total_right], dtype=torch.float64)
            share = self.processes.world_size * len(labels) / count
        self.optimizer.zero_grad()
        (loss * share + (0.0 if self.penalty is None else self.penalty())).backward()
        largest, sums, sizes = _largest_gradients(self.model), rates.sums().to(figures.device), rates.sizes()

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
        self.optimizer.step()


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
    norms = torch._foreach_norm([*gradients.values()], math.inf) if gradients else ()
    return dict(zip(gradients, norms, strict=True))


def fit(
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: Iterable | None = None,
    *,
    out: str | PathLike,
    epochs: int,
    lr: float = 1e-3,
    resume: bool = False,
    progress: bool = True,
    label: str = "",
    processes: Processes | None = None,
    precision: str = "fp32",
    compiled: bool = False,
    before_step: Callable[[int, torch.optim.Optimizer], None] = lambda number, optimizer: None,
    penalty: Callable[[], Tensor] | None = None,
) -> list[dict]:
    """Train a classifier with Adam, writing metrics and a checkpoint after every epoch.

    Args:
        model: maps a loader's inputs to class scores (B, n_classes); the mean output of the modules in `model.neurons`
            is recorded as the spike rate, for levels -1 and 1 the share of 1. It is trained on its own device.
        train_loader: batches as in `evaluate`; if its sampler has `set_epoch`, that is called with the number of the
            epoch.
        val_loader: likewise, or None.
        out: existing folder for `metrics.jsonl` and the checkpoint; without those of another run, unless resuming.
        epochs: total, including earlier epochs of a resumed run.
        lr: learning rate, > 0.
        resume: continue from the folder's checkpoint, exactly as if never interrupted.
        progress: show a progress bar on standard error.
        label: text in front of the progress bar.
        processes: the processes from `Processes.launched`, all of which call this and share every batch of
            `train_loader`. The main one's weights are used, and it alone reads and writes the folder.
        precision: "fp32", or "bf16" for mixed precision by autocast.
        compiled: train through `torch.compile`.
        before_step: called with the number of the step, counted from the start of the first epoch, and the optimizer,
            to set what changes during training. It must depend on the number alone, so that resuming is exact.
        penalty: called after each forward pass; its value is added to the loss that is minimised, not to the one that
            is reported.

    Returns:
        The metrics of all epochs, as in `metrics.jsonl`: {"epoch", "train_loss", "train_accuracy", "spike_rate": one
        per module in `model.neurons`, "val_loss", "val_accuracy", "val_smooth_accuracy", "val_hardening_gap",
        "seconds"}. Validation figures are those of `hardening.evaluate`.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`, when resuming.
        ValueError: if the folder has a run and `resume` is False, the precision is unknown, or as `steps_in_epoch`.
        TypeError, ValueError: as `evaluate`, for inputs, labels and scores.
        FloatingPointError: if the loss or a gradient, which is named, becomes NaN or infinite; on a GPU after one more
            step, as training does not wait for it.

    Example:
        >>> import tempfile
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> x = torch.randn(64, 2)
        >>> loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     metrics = fit(nn.Linear(2, 2), loader, out=folder, epochs=3, lr=0.1, progress=False)
        >>> len(metrics), metrics[-1]["train_loss"] < metrics[0]["train_loss"]
        (3, True)
    """
    from tqdm import tqdm

    out, is_main = Path(out), processes is None or processes.is_main
    check_choice("precision", precision, PRECISIONS)
    if is_main:
        check_no_run(out, resume)
    optimizer = adam(model.parameters(), lr)
    done, metrics = restore(out, model, optimizer) if resume and is_main else (0, [])
    network, batches = model, train_loader
    if processes is not None:
        done, metrics, state = processes.broadcast((done, metrics, optimizer.state_dict()))
        optimizer.load_state_dict(state)
        network = processes.setup(model)
        batches = processes.shard(train_loader, _min_samples(model, processes))
    if compiled:
        network = torch.compile(network)  # type: ignore[assignment]  # a module for a module, whatever its stub says
    steps = steps_in_epoch(model, train_loader, processes)
    training = _Training(model, network, optimizer, processes, precision, before_step, penalty)
    if done:  # the settings of the previous step, in all processes
        before_step(done * steps - 1, optimizer)
    if is_main:
        _write_metrics(out, metrics)
        if not done:
            save_checkpoint(out / CHECKPOINT, model, optimizer, 0)
    for epoch in range(done, epochs):
        set_epoch = getattr(getattr(train_loader, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        start = time.perf_counter()
        with tqdm(total=steps, desc=f"{label}epoch {epoch + 1}/{epochs}", disable=not (progress and is_main)) as bar:
            line = {"epoch": epoch, **training.epoch(batches, epoch, bar)}
            line |= validate(model, train_loader, val_loader, processes)
            if val_loader is not None:
                bar.set_postfix_str(f"{bar.postfix}, val acc {line['val_accuracy']:.3f}")
        metrics.append({**line, "seconds": round(time.perf_counter() - start, 3)})
        if is_main:
            _write_metrics(out, metrics)
            save_checkpoint(out / CHECKPOINT, model, optimizer, epoch + 1)
    return metrics


def adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
    """Return an Adam over the parameters, fused where it can be: it then takes a tenth of the time on a CPU."""
    parameters = list(parameters)
    # The fused one walks through memory, whatever the strides, and takes no complex numbers.
    fused = all(p.is_contiguous() and p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=lr, fused=fused)


def restore(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    """Return the finished epochs and their metrics; none if the run stopped before its first checkpoint."""
    if not _has_run(out):
        return 0, []
    done = load_checkpoint(out / CHECKPOINT, model, optimizer)
    try:
        metrics = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
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
    return (out / CHECKPOINT).exists() or (out / METRICS).exists()


def _write_metrics(out: Path, metrics: list[dict]) -> None:
    with replacing(out / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in metrics))
