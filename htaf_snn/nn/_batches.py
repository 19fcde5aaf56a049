"""A loader's batches and a network's scores for them, with their checks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable
from itertools import chain
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from .._checks import check_floating
from ._modes import in_eval


class Batch(NamedTuple):
    """A loader's batch: inputs, labels int64 (B,), and the lengths (B,) of padded frames."""

    x: Tensor
    labels: Tensor
    lengths: Tensor | None


def inputs_of(batch: object) -> tuple[Tensor, Tensor | None]:
    """Return the inputs of a batch, and their lengths or None, without checking its labels."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        got = f"{len(batch)} items" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"loader: expected batches (inputs, labels) or (frames, labels, lengths), got {got}")
    x, lengths = batch[0], batch[2] if len(batch) == 3 else None
    if not isinstance(x, Tensor):
        check_floating("inputs", x)
    return x, lengths


def unpack(batch: Any) -> Batch:
    """Return a checked batch; TypeError and ValueError say what to write instead."""
    x, lengths = inputs_of(batch)
    labels = batch[1]
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a tensor, int64 (B,), got {type(labels).__name__}")
    integer = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.ndim != 1 or not integer:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        remedy = ".argmax(1)" if one_hot else ".squeeze(1)" if labels.ndim == 2 else ""
        remedy += "" if integer or one_hot else ".long()"
        raise ValueError(
            f"labels: expected class numbers, int64 (B,), got {labels.dtype} {tuple(labels.shape)}"
            + (f"; write labels{remedy}" if remedy else "")
        )
    return Batch(x, labels.long(), lengths)


def check_in_order(loader: object, use: str) -> None:
    """Raise ValueError if a loader shuffles its samples; `use` says what needs the order of the data."""
    # A user's batch sampler is not in `loader.sampler`, but may hold a sampler.
    for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
        sampler = getattr(sampler, "sampler", sampler)
        random = isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler))
        if random or hasattr(sampler, "set_epoch"):
            raise ValueError(
                f"loader: expected samples in the order of the data for {use}, got a loader that draws them with "
                f"{type(sampler).__name__}; write DataLoader(loader.dataset, batch_size)"
            )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters, or else of its buffers; the CPU if it has neither."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a copy to a GPU from pinned memory goes on while the program does."""
    return x.to(device, non_blocking=device.type == "cuda")


def apply(model: nn.Module, x: Tensor, lengths: Tensor | None, network: nn.Module | None = None) -> Any:
    """Return a model's output for a batch, on its device; `network`, if given, wraps the model and is called instead.

    Raises:
        TypeError: if the model does not take lengths, or fails on 8-bit or boolean inputs.
    """
    device = device_of(model)
    options = {}
    if lengths is not None:
        _check_takes_lengths(model)
        options["lengths"] = sent(lengths, device)
    try:
        return (model if network is None else network)(sent(x, device), **options)
    except (RuntimeError, TypeError) as error:
        # For a model that does not convert or embed them itself; other errors are not about the type of the inputs.
        if x.dtype in (torch.uint8, torch.bool) and re.search("type|Byte|Bool|floating", str(error)):
            check_floating("inputs", x)
        raise


def class_scores(model: nn.Module, batch: Batch, network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Return class scores (B, n_classes) and labels (B,), on the model's device; `network` as in `apply`.

    Raises:
        TypeError, ValueError: if the model returns anything else, a label is out of range, or the model does not take
            lengths.
    """
    scores = apply(model, batch.x, batch.lengths, network)
    _check_scores(scores, batch)
    check_labels(batch.labels, scores.shape[1])
    return scores, sent(batch.labels, scores.device)


class Shards(Protocol):
    """Processes that share a loader's batches, see `training.Processes`."""

    def shard(self, loader) -> Iterable: ...

    def sum(self, *values: float) -> list[float]: ...


def loss_and_accuracy(model: nn.Module, loader: Iterable, processes: Shards | None = None) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the accuracy of a classifier in eval mode, see `training.evaluate`."""
    figures, count = [], 0.0
    with torch.no_grad(), in_eval(model):
        for batch in loader if processes is None else processes.shard(loader):
            scores, labels = class_scores(model, unpack(batch))
            figures.append((cross_entropy(scores, labels, reduction="sum"), (scores.argmax(1) == labels).sum()))
            count += len(labels)
    # Read at the end, as reading waits for a GPU.
    loss, correct = sum(one.item() for one, _ in figures), float(sum(right.item() for _, right in figures))
    if processes is not None:
        loss, correct, count = processes.sum(loss, correct, count)
    if not count:
        raise ValueError("loader: expected at least one sample, got none")
    if math.isnan(loss):
        raise FloatingPointError("the loss is nan, as the model gives scores of NaN or infinity")
    return loss / count, correct / count


def _check_takes_lengths(model: nn.Module) -> None:
    parameters = inspect.signature(model.forward).parameters.values()
    if not any(p.name == "lengths" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise TypeError(
            "model: expected forward(frames, lengths) for a loader of (frames, labels, lengths), so that padding does "
            f"not count, got {type(model).__name__} without lengths; add the argument, or give the loader n_time_bins "
            "instead of time_window"
        )


def _check_scores(scores: object, batch: Batch) -> None:
    samples, shape = len(batch.labels), tuple(batch.x.shape)
    expected = f"model: expected class scores ({samples}, n_classes) for inputs {shape}"
    if isinstance(scores, tuple):
        raise TypeError(
            f"{expected}, got a tuple of {len(scores)}, such as a neuron's spikes and state; return the mean over "
            "time, spikes.mean(0)"
        )
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"{expected}, got {scores.dtype if isinstance(scores, Tensor) else type(scores).__name__}")
    if scores.ndim == 2 and len(scores) == samples:
        return
    remedy = ""
    if scores.ndim == 3:
        remedy = "; for a sequence (T, B, n_classes) return the mean over time, scores.mean(0)"
    elif len(shape) > 2 and shape[0] == samples:
        remedy = "; if it takes frames (T, B, …), write frames.transpose(0, 1)"
    raise ValueError(f"{expected}, got {tuple(scores.shape)}{remedy}")


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise ValueError unless all labels are from 0 to n_classes - 1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"labels: expected 0 to {n_classes - 1}, got {labels.min()} to {labels.max()}; the network has {n_classes} "
            "classes, counted from 0"
        )
