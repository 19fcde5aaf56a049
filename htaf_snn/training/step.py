"""One step of a training: the gradients of batches, and the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .. import hardening
from ..configuration import Recipe
from ..models import SpikingNet
from ..nn import detached
from ..nn._batches import Batch, check_labels, check_scores, device_of, explained, mean_over_time, scores_of, sent
from ..surrogate import AdaptiveWidth
from .augmenting import augmented
from .processes import Processes

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A model, its optimizer and what a recipe does in a step.

    Attributes:
        model: what is trained.
        network: the model, or what wraps it for several processes or compiles it.
        optimizer, scaler: of float16; disabled in other precisions.
        average: the model with averaged weights, if the recipe averages them.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        before_step: Callable[[int, torch.optim.Optimizer], None],
        penalty: Callable[[], Tensor] | None,
    ):
        self.model, self.recipe = model, recipe
        self.processes: Processes | None = None  # until `share`
        self._before_step, self._penalty = before_step, penalty
        self.optimizer = optimizer_of(model, recipe)
        self.scaler = torch.amp.GradScaler(device_of(model).type, enabled=recipe.precision == "fp16")
        self.average: AveragedModel | None = None
        if recipe.ema is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
        self.network: Any = torch.compile(model) if recipe.compiled else model
        self._width = AdaptiveWidth(model) if recipe.anneal == "width" else None
        self._samples, self._first = 0.0, 0.0

    @property
    def has_network(self) -> bool:
        """Whether the network that is tested is another than that of the last step."""
        return self.average is not None or self.recipe.keeps_best

    def share(self, processes: Processes) -> None:
        """Train with other processes from now on, from the main one's state."""
        self.processes = processes
        self.optimizer.load_state_dict(processes.broadcast(self.optimizer.state_dict()))
        for name, value in processes.broadcast(self.extra()).items():
            self.extra()[name].copy_(value)
        self.network = processes.setup(self.model)
        if self.recipe.compiled:
            self.network = torch.compile(self.network)

    def extra(self) -> dict[str, Tensor]:
        """Return what a checkpoint holds besides the model and the optimizer, and is restored into."""
        found = {}
        if self.average is not None:
            found = {f"average.{name}": value for name, value in self.average.state_dict().items() if _is_tensor(value)}
        if self.scaler.is_enabled():
            if self.scaler._scale is None:
                self.scaler._lazy_init_scale_growth_tracker(device_of(self.model))
            found |= {"scale": self.scaler._scale, "growth": self.scaler._growth_tracker}
        return found

    def begin(self, number: int, batch: Batch) -> None:
        """Prepare the optimizer's step of that number, whose first batch this is."""
        self._before_step(number, self.optimizer)
        if self._width is not None:
            with self._width.measuring(None if self.processes is None else self.processes.sum):
                scores_of(self.model, batch)
        self.optimizer.zero_grad()
        self._samples = 0.0

    def add_gradients(self, batch: Batch) -> tuple[Tensor, float]:
        """Add a batch's gradients; return its mean loss and correct answers, and its samples, over all processes."""
        batch = augmented(batch, self.recipe.augment)
        count, own, share = float(len(batch.labels)), len(batch.labels), 1.0
        if self.processes is not None:
            (count,) = self.processes.sum(count)
            share = self.processes.world_size * own / count
        scale = 1.0
        if self.recipe.accumulate > 1:  # `update` divides by the samples of all its batches
            # In units of the first batch, so that float16 does not overflow.
            self._first = self._first or count
            scale = count / self._first
            self._samples += scale
        loss, scores, labels = self._backward(batch, share, scale)
        figures = torch.stack([loss, (scores.argmax(1) == labels).sum().to(loss.dtype)])
        if self.processes is not None:
            own_loss, own_right = figures.tolist()
            total_loss, total_right = self.processes.sum(own_loss * own, own_right)
            figures = figures.new_tensor([total_loss / count, total_right], dtype=torch.float64)
        return figures, count

    def _backward(self, batch: Batch, share: float, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Propagate back, in parts of the sequence if it is truncated; return loss, scores (B, n_classes) and labels.

        The gradient is that of scale * (share * loss + penalty).
        """
        dtype = _DTYPES[self.recipe.precision]
        losses, means, state = [], [], None
        for part, weight in parts_of(batch, self.recipe.tbptt):
            with torch.autocast(device_of(self.model).type, dtype, enabled=dtype != torch.float32):
                scores, state = self._scores(part, detached(state))
            scores = scores.float()
            labels = sent(batch.labels, scores.device)
            # A process whose shard is empty still takes part in averaging the gradients.
            loss = weight * loss_of(scores, labels, part.lengths, self.recipe) if len(labels) else scores.sum()
            penalty = 0.0 if self._penalty is None else weight * self._penalty()
            self.scaler.scale(scale * (share * loss + penalty)).backward()
            losses.append(loss.detach())
            means.append(weight * mean_over_time(scores.detach(), part.lengths))
        return torch.stack(losses).sum(), torch.stack(means).sum(0), labels

    def _scores(self, batch: Batch, state: Any) -> tuple[Tensor, Any]:
        """Return checked scores, of every time step where the recipe needs them, and the state to go on from."""
        if self.recipe.tbptt is not None or (self.recipe.loss == "tet" and hasattr(self.model, "stream")):
            if not hasattr(self.model, "stream"):
                got = type(self.model).__name__
                raise TypeError(
                    f"model: expected one with stream(frames, state) for tbptt, as hnn.Sequential, got {got}"
                )
            if batch.lengths is not None and isinstance(self.model, SpikingNet):
                self.model.check_lengths(batch.lengths, batch.x)
            with explained(self.model, batch.x):
                scores, state = self.network.stream(sent(batch.x, device_of(self.model)), state)
            check_scores(scores, batch)
        else:
            scores = scores_of(self.model, batch, self.network)
        check_labels(batch.labels, scores.shape[-1])
        if self.recipe.loss == "tet" and scores.ndim == 2:
            raise ValueError("model: expected the scores of every time step (T, B, n_classes) for loss='tet'")
        return scores, state

    def update(self) -> None:
        """Make the optimizer's step."""
        if self._samples:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_div_(gradients, self._samples)
        if self.recipe.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradient)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def check_scale(self, before: float, updates: int, when: str) -> None:
        """Raise FloatingPointError if float16 left out every step since its scale was `before`, or nearly every one."""
        # It halves with every step that is left out.
        if self.scaler.is_enabled() and self.scaler.get_scale() <= max(before / 2**updates, 0.5):
            raise FloatingPointError(
                f"precision: expected bf16 or fp32, as nearly every gradient in fp16 was NaN or infinite {when}"
            )

    @contextmanager
    def tested_weights(self, train_loader: Iterable) -> Iterator[None]:
        """Within the block the model has the averaged weights, if any, and BatchNorm's statistics for them."""
        if self.average is None:
            yield
            return
        own = {name: value.clone() for name, value in self.model.state_dict().items() if _is_tensor(value)}
        with torch.no_grad():
            for mine, averaged in zip(self.model.parameters(), self.average.module.parameters(), strict=True):
                mine.copy_(averaged)
        try:
            if hardening.is_hard(self.model):
                hardening.recalibrate(self.model, train_loader, processes=self.processes)
            yield
        finally:
            self.model.load_state_dict(own, strict=False)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def parts_of(batch: Batch, steps: int | None) -> Iterator[tuple[Batch, float]]:
    """Yield the parts of a sequence of at most so many time steps, each with its share of the time."""
    if steps is None or len(batch.x) <= steps:
        yield batch, 1.0
        return
    if batch.lengths is not None:
        raise ValueError("tbptt: expected sequences of one length, got a loader of (frames, labels, lengths)")
    for part in batch.x.split(steps):
        yield Batch(part, batch.labels, None), len(part) / len(batch.x)


def loss_of(scores: Tensor, labels: Tensor, lengths: Tensor | None, recipe: Recipe) -> Tensor:
    """Return the loss of scores (B, n_classes), or (T, B, n_classes) of every time step.

    Args:
        scores: floating-point.
        labels: int64 (B,).
        lengths: time steps (B,) of each sample that count; None for all.
        recipe: its `loss` and `label_smoothing` are used.

    Example:
        >>> scores = torch.zeros(5, 2, 4)
        >>> round(loss_of(scores, torch.tensor([0, 3]), None, Recipe(loss="tet")).exp().item(), 4)
        4.0
    """
    if recipe.loss == "tet":
        steps, batch, _ = scores.shape
        losses = cross_entropy(
            scores.flatten(0, 1), labels.repeat(steps), reduction="none", label_smoothing=recipe.label_smoothing
        )
        return mean_over_time(losses.view(steps, batch, 1), lengths).mean()
    mean = mean_over_time(scores, lengths)
    if recipe.loss == "mse":
        return mse_loss(mean, one_hot(labels, mean.shape[1]).to(mean))
    return cross_entropy(mean, labels, label_smoothing=recipe.label_smoothing)


def _is_dense(tensor: Tensor) -> bool:
    """Whether the fused optimizers can walk through a parameter's memory as through its gradient's."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.is_contiguous() or last


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return a recipe's optimizer, fused where it can be: it then takes a tenth of the time on a CPU."""
    parameters = list(model.parameters())
    # A fused SGD whose first step the scaler of float16 leaves out goes on with momenta that were never written.
    skips = recipe.optimizer == "sgd" and recipe.precision == "fp16"
    fused = not skips and all(
        _is_dense(p) and p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters
    )
    options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": fused}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **options)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, **options)
