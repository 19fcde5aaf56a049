"""One training: epochs, metrics, checkpoints; evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler, IterableDataset

from .._files import replacing
from ..nn import recalibrate, smooth_activations
from ..nn._batches import Batch, class_scores, device_of, unpack
from ..nn._modes import in_eval
from ..surrogate import Surrogate
from .checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from .processes import Processes

PRECISIONS = ("float32", "bfloat16")
METRICS = "metrics.jsonl"


class _SpikeRates:
    """Mean output of each of a model's `neurons`, gathered by forward hooks while the block runs.

    Of activations of the levels -1 and 1 it is the share of the upper level. Of a batch with lengths the steps beyond
    them do not count in outputs (T, B, …).
    """

    def __init__(self, model: nn.Module):
        self._neurons = list(getattr(model, "neurons", ()))
        self.batch: Batch | None = None

    def __enter__(self):
        self._sums = [0.0] * len(self._neurons)
        self._sizes = [0] * len(self._neurons)
        self._hooks = [neuron.register_forward_hook(self._keep(i)) for i, neuron in enumerate(self._neurons)]
        return self

    def _keep(self, i: int) -> Callable:
        def hook(module, inputs, output):
            # Neurons of snnTorch's and Norse's kind give their spikes and their state.
            output = (output[0] if isinstance(output, tuple) else output).detach()
            if self.batch is not None and self.batch.lengths is not None:
                if output.shape[:2] == self.batch.x.shape[:2]:
                    self._sums[i] = self._sums[i] + self._own_steps(output).sum(dtype=torch.float64)
                    self._sizes[i] += int(self.batch.lengths.sum()) * output[0, 0].numel()
                    return
            self._sums[i] = self._sums[i] + output.sum(dtype=torch.float64)
            self._sizes[i] += output.numel()

        return hook

    def _own_steps(self, output: Tensor) -> Tensor:
        """Outputs (T, B, …) with 0 beyond each sample's length."""
        own = torch.arange(len(output), device=output.device)[:, None] < self.batch.lengths.to(output.device)
        return output.where(own.view(*own.shape, *[1] * (output.ndim - 2)), 0)

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()

    def mean(self, processes: Processes | None = None) -> list[float]:
        sums, sizes = map(float, self._sums), map(float, self._sizes)
        if processes is not None:
            sums, sizes = processes.sum(*sums), processes.sum(*sizes)
        levels = [getattr(neuron, "levels", (0, 1)) for neuron in self._neurons]
        return [
            (s / max(size, 1) - low) / (high - low) for s, size, (low, high) in zip(sums, sizes, levels, strict=True)
        ]


def evaluate(model: nn.Module, loader: Iterable, processes: Processes | None = None) -> dict[str, float]:
    """Mean cross-entropy and accuracy of a classifier over a loader of (inputs, labels).

    Args:
        model: maps inputs to class scores (B, classes); evaluated in eval mode on the device that it is on, its mode is
            restored. For a loader of three items it is called with `lengths=` beside the frames.
        loader: of (inputs, labels (B,) of integers), or of (frames (T, B, …), labels, lengths (B,)), as
            `neuromorphic_datasets.loaders(time_window=…)` gives, where steps beyond a recording's length do not count.
        processes: each evaluates its part of every batch, and all get the whole's figures; None for this one alone.

    Returns:
        {"loss": nats, "accuracy": from 0 to 1}.

    Raises:
        ValueError: if the loader is empty, a label is no class, or the scores are of another shape, such as those of a
            network that ends in a sequence.
        TypeError: if the model takes no 8-bit inputs and gets some, the scores are no tensor, or the model takes no
            lengths.
        FloatingPointError: if a score is NaN.

    Example:
        >>> net = nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.eye(2))
        >>> x, labels = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1, 1, 1])
        >>> evaluate(net, [(x, labels)])["accuracy"]
        0.75
    """
    loss = correct = count = 0
    with torch.no_grad(), in_eval(model):
        for batch in loader if processes is None else processes.part_of(loader):
            scores, labels = class_scores(model, unpack(batch))
            loss += cross_entropy(scores, labels, reduction="sum").item()
            correct += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
    if processes is not None:
        loss, correct, count = processes.sum(loss, correct, count)
    if not count:
        raise ValueError("loader: expected at least one sample, got none")
    if math.isnan(loss):
        raise FloatingPointError("the loss is nan, as the model gives scores of NaN or infinity")
    return {"loss": loss / count, "accuracy": correct / count}


def _smooth_steps(model: nn.Module) -> list[Surrogate]:
    return [module for module in model.modules() if isinstance(module, Surrogate) and module.mode == "smooth"]


@contextmanager
def hardened(model: nn.Module) -> Iterator[None]:
    """Within the block, surrogates in smooth mode are in spike mode.

    Args:
        model: all `htaf_snn.surrogate.Surrogate`s in it are meant, those of neurons too.

    Example:
        >>> from htaf_snn import HTAF
        >>> step = HTAF(mode="smooth")
        >>> with hardened(step):
        ...     step(torch.zeros(1))
        tensor([0.])
        >>> step(torch.zeros(1))
        tensor([0.5000])
    """
    smooth = _smooth_steps(model)
    make_hard(model)
    try:
        yield
    finally:
        for module in smooth:
            module.mode = "smooth"


def make_hard(model: nn.Module) -> None:
    """Put surrogates in smooth mode into spike mode, for good."""
    for module in _smooth_steps(model):
        module.mode = "spike"


def evaluate_hard(model: nn.Module, train_loader, loader, processes: Processes | None = None) -> dict[str, float]:
    """`evaluate` of the network with hard steps, and for one trained with smooth ones the distance between the two.

    The statistics of BatchNorm are measured on the training data for each of the two, and remain those of the hard one.

    Args:
        model: as of `evaluate`.
        train_loader: of the training data, (inputs, labels).
        loader: of the data to evaluate on.
        processes: as of `evaluate`.

    Returns:
        As `evaluate`; for a network with surrogates in smooth mode also {"smooth_accuracy", "hardening_gap": the smooth
        accuracy minus the hard one}.

    Raises:
        ValueError: if the loader is empty.

    Example:
        >>> from htaf_snn.nn import HTAFActivation
        >>> net = nn.Sequential(nn.Linear(2, 8), HTAFActivation(), nn.Linear(8, 2))
        >>> batches = [(torch.randn(50, 2), torch.randint(2, (50,)))]
        >>> found = evaluate_hard(net, batches, batches)
        >>> found["hardening_gap"] == found["smooth_accuracy"] - found["accuracy"]
        True
    """
    if not _smooth_steps(model):
        return evaluate(model, loader, processes)
    with smooth_activations(model):
        recalibrate(model, train_loader)
        smooth = evaluate(model, loader, processes)["accuracy"]
    _calibrate_hard(model, train_loader)
    with hardened(model):
        hard = evaluate(model, loader, processes)
    return {**hard, "smooth_accuracy": smooth, "hardening_gap": smooth - hard["accuracy"]}


def _calibrate_hard(model: nn.Module, train_loader) -> None:
    """Give BatchNorm the statistics of the hard network, if the model is trained with smooth steps."""
    if _smooth_steps(model):
        with hardened(model):
            recalibrate(model, train_loader)


def _train_epoch(
    model: nn.Module, network: nn.Module, optimizer, loader, epoch: int, bar, processes, precision, before_step, penalty
) -> dict:
    """One epoch. `network` is the model, or it compiled, or what keeps its copies in all processes equal."""
    device = device_of(model)
    model.train()
    loss_sum = correct = count = 0
    fewest = _fewest_samples(model)
    usable = (batch for batch in map(unpack, loader) if len(batch.labels) >= fewest)
    with _SpikeRates(model) as rates:
        for step, batch in enumerate(usable):
            before_step(epoch * bar.total + step, optimizer)
            rates.batch = batch
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                scores, labels = class_scores(model, batch, network)
            scores = scores.float()
            loss = cross_entropy(scores, labels) if len(labels) else scores.sum()
            found = loss.item() * len(labels), (scores.argmax(1) == labels).sum().item(), len(labels)
            share = 1.0
            if processes is not None:
                found = processes.sum(*found)
                share = processes.count * len(labels) / found[2]
            if not math.isfinite(found[0]):
                value = found[0] / found[2]
                raise FloatingPointError(f"the loss is {value} in epoch {epoch}, step {step}; try a smaller lr")
            optimizer.zero_grad()
            (loss * share + (0.0 if penalty is None else penalty())).backward()
            _check_gradients(model, f"in epoch {epoch}, step {step}")
            optimizer.step()
            loss_sum, correct, count = loss_sum + found[0], correct + found[1], count + found[2]
            spike_rate = rates.mean()
            mean_rate = sum(spike_rate) / max(len(spike_rate), 1)
            shown = f"loss {loss_sum / count:.3f}, acc {correct / count:.3f}, rate {mean_rate:.3f}"
            bar.set_postfix_str(shown, refresh=False)
            bar.update()
    if not count:
        raise ValueError(f"train_loader: expected a batch of {max(fewest, 1)} samples or more, got none")
    return {"loss": loss_sum / count, "accuracy": correct / count, "spike_rate": rates.mean(processes)}


def _fewest_samples(model: nn.Module, processes: Processes | None = None) -> int:
    """The samples that a batch needs: BatchNorm takes two in each process."""
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return 0
    return 2 * (1 if processes is None else processes.count)


def steps_in_epoch(model: nn.Module, loader, processes: Processes | None = None) -> int:
    """Batches to train on in an epoch: all, but for those too small for BatchNorm, two samples a process.

    `fit` leaves those out as they come. They are not known beforehand of a batch sampler of one's own, whose batches
    are all counted.

    Args:
        model: whose BatchNorm layers matter.
        loader: a `DataLoader`.
        processes: those that share each batch; None for one alone.

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
    fewest, batches = _fewest_samples(model, processes), getattr(loader, "batch_sampler", None)
    if fewest and type(batches) is BatchSampler and not isinstance(loader.dataset, IterableDataset):
        steps -= not batches.drop_last and 0 < len(batches.sampler) % batches.batch_size < fewest
        if batches.batch_size < fewest or not steps:
            raise ValueError(f"batch_size: BatchNorm expects two samples a process, {fewest} in all, got fewer")
    return steps


def _check_gradients(model: nn.Module, when: str) -> None:
    """Raise if a gradient is not finite, naming the parameter nearest to the loss."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if torch.nn.utils.get_total_norm(gradients).isfinite():
        return
    for name, parameter in reversed([*model.named_parameters()]):
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            kind = "NaN" if parameter.grad.isnan().any() else "infinite"
            raise FloatingPointError(f"{name}: {kind} gradient {when}")


def fit(
    model: nn.Module,
    train_loader,
    val_loader=None,
    *,
    out: str | PathLike,
    epochs: int,
    lr: float = 1e-3,
    resume: bool = False,
    progress: bool = True,
    label: str = "",
    processes: Processes | None = None,
    precision: str = "float32",
    compiled: bool = False,
    before_step: Callable[[int, torch.optim.Optimizer], None] = lambda number, optimizer: None,
    penalty: Callable[[], Tensor] | None = None,
) -> list[dict]:
    """Train a classifier with Adam, writing metrics and a checkpoint after every epoch.

    Args:
        model: maps a loader's inputs to class scores (B, classes); modules in `model.neurons` have their mean output
            recorded as the spike rate, those of the levels -1 and 1 the share of 1. Train it on the device that it is
            on.
        train_loader: a `DataLoader` of batches as of `evaluate`; if its sampler has `set_epoch`, that is called with
            the number of the epoch.
        val_loader: likewise, or None.
        out: existing folder for `metrics.jsonl` and the checkpoint; without those of another run, unless resuming.
        epochs: in all, earlier ones of a resumed run included.
        lr: learning rate, > 0.
        resume: continue from the folder's checkpoint, exactly as if never interrupted.
        progress: show a progress bar on standard error.
        label: put before the progress bar.
        processes: those that share the work, from `Processes.launched`, all of which call this; a batch is that of all
            together. The first one's weights are taken, and it alone reads and writes the folder.
        precision: "float32", or "bfloat16" for mixed precision by autocast.
        compiled: train through `torch.compile`.
        before_step: called with the number of the step, counted from the first epoch's start, and the optimizer, to
            set what changes during the training; a function of the number, so that resuming is exact.
        penalty: called after each forward pass; what it gives is added to the loss that is minimised, not to the one
            that is reported.

    Returns:
        The metrics of all epochs, as in `metrics.jsonl`: {"epoch", "train_loss", "train_accuracy", "spike_rate": one
        for each of `model.neurons`, "val_loss" and so on, "seconds"}. Validation figures are those of `evaluate_hard`.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`, when resuming.
        ValueError: if the folder has a run that is not to be resumed, the precision is unknown, or as `steps_in_epoch`.
        TypeError, ValueError: as `evaluate`, of inputs, labels and scores.
        FloatingPointError: if the loss or a gradient, which is named, becomes NaN or infinite.

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

    out, writes, network, batches = Path(out), processes is None or processes.first, model, train_loader
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    if writes:
        check_no_run(out, resume)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    done, metrics = restore(out, model, optimizer) if resume and writes else (0, [])
    if processes is not None:
        done, metrics, state = processes.from_first((done, metrics, optimizer.state_dict()))
        optimizer.load_state_dict(state)
        network = processes.together(model)
        batches = processes.part_of(train_loader, _fewest_samples(model, processes))
    if compiled:
        network = torch.compile(network)
    steps = steps_in_epoch(model, train_loader, processes)
    how = (processes, precision, before_step, penalty)
    if writes:
        _write_metrics(out, metrics)
        if not done:
            save_checkpoint(out / CHECKPOINT, model, optimizer, 0)
    for epoch in range(done, epochs):
        sampler = getattr(train_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        start = time.perf_counter()
        shown = {"desc": f"{label}epoch {epoch + 1}/{epochs}", "disable": not (progress and writes)}
        with tqdm(total=steps, **shown) as bar:
            train_metrics = _train_epoch(model, network, optimizer, batches, epoch, bar, *how)
            if processes is not None:
                processes.share_statistics(model)
            val_metrics = {}
            if val_loader is None:
                _calibrate_hard(model, train_loader)
            else:
                val_metrics = evaluate_hard(model, train_loader, val_loader, processes)
                bar.set_postfix_str(f"{bar.postfix}, val acc {val_metrics['accuracy']:.3f}")
        metrics.append(
            {
                "epoch": epoch,
                **{f"train_{k}" if k != "spike_rate" else k: v for k, v in train_metrics.items()},
                **{f"val_{k}": v for k, v in val_metrics.items()},
                "seconds": round(time.perf_counter() - start, 3),
            }
        )
        if writes:
            _write_metrics(out, metrics)
            save_checkpoint(out / CHECKPOINT, model, optimizer, epoch + 1)
    return metrics


def restore(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, list[dict]]:
    """Finished epochs and their metrics; none of a run that was interrupted before its first checkpoint."""
    if not _has_run(out):
        return 0, []
    done = load_checkpoint(out / CHECKPOINT, model, optimizer)
    metrics = _read_metrics(out)
    if len(metrics) < done:
        raise ValueError(f"{out / 'metrics.jsonl'}: expected at least {done} lines, found {len(metrics)}")
    return done, metrics[:done]


def check_no_run(out: Path, resume: bool) -> None:
    """Raise ValueError if the folder has a run that is not to be resumed."""
    if not resume and _has_run(out):
        raise ValueError(f"out: expected a folder without a run, got {out}; resume its run or name another")


def _has_run(out: Path) -> bool:
    return (out / CHECKPOINT).exists() or (out / METRICS).exists()


def _read_metrics(out: Path) -> list[dict]:
    path = out / METRICS
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected the metrics of a run to resume, got {error}") from error


def _write_metrics(out: Path, metrics: list[dict]) -> None:
    with replacing(out / METRICS) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in metrics))
