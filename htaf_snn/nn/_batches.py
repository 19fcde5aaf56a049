"""A loader's batches and a network's scores for them, with their checks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from .._checks import check_floating, describe
from ._modes import in_eval

_CONVERSIONS = {torch.float32: "float()", torch.float64: "double()", torch.float16: "half()"}


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
        TypeError: if the model does not take lengths, or fails on the type of the inputs.
    """
    device = device_of(model)
    options = {}
    if lengths is not None:
        _check_takes_lengths(model)
        options["lengths"] = sent(lengths, device)
    with explained(model, x):
        return (model if network is None else network)(sent(x, device), **options)


@contextmanager
def explained(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Turn an error of the block, which applies a model to x, into one that names the inputs if it is about their type.

    Only errors are looked at, as a model may convert or embed its inputs itself.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if re.search("type|Byte|Bool|float", str(error)):
            _check_type(model, x)
        raise


def _check_type(model: nn.Module, x: Tensor) -> None:
    """Raise TypeError if inputs are 8-bit or boolean, or floating-point unlike the model's parameters."""
    if x.dtype in (torch.uint8, torch.bool):
        check_floating("inputs", x)
    expected = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
    if x.is_floating_point() and x.dtype != expected:
        write = _CONVERSIONS.get(expected, f"to({expected})")
        raise TypeError(
            f"inputs: expected {expected}, as the network's parameters, got {describe(x)}; write inputs.{write}"
        )


def scores_of(model: nn.Module, batch: Batch, network: nn.Module | None = None) -> Tensor:
    """Return a model's checked class scores (B, n_classes), or (T, B, n_classes) if it gives those of every time step.

    Raises:
        TypeError, ValueError: if the model returns anything else, or does not take lengths.
    """
    # A model that gives the scores of every time step need not know the lengths: they are heeded afterwards.
    lengths = batch.lengths if _takes_lengths(model) else None
    scores = apply(model, batch.x, lengths, network)
    if batch.lengths is not None and not (isinstance(scores, Tensor) and scores.ndim == 3):
        _check_takes_lengths(model)
    check_scores(scores, batch)
    return scores


def class_scores(model: nn.Module, batch: Batch, network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Return class scores (B, n_classes), their mean over time, and labels (B,), on the model's device.

    Raises:
        TypeError, ValueError: as `scores_of`, and if a label is out of range.
    """
    scores = mean_over_time(scores_of(model, batch, network), batch.lengths)
    check_labels(batch.labels, scores.shape[1])
    return scores, sent(batch.labels, scores.device)


def mean_over_time(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean (B, *features) of x (T, B, *features) over each sample's own time steps; x itself without time.

    It is 0 for a sample without time steps, and NaN where a length is out of range: on a GPU lengths are not read, as
    that would stall it.
    """
    if x.ndim == 2:
        return x
    if lengths is None:
        return x.mean(0)
    steps, batch = x.shape[:2]
    features, lengths = [1] * (x.ndim - 2), lengths.to(x.device)
    own = torch.arange(steps, device=x.device)[:, None] < lengths
    counts = lengths.clamp(min=1).to(x).masked_fill((lengths < 0) | (lengths > steps), torch.nan)
    return (x * own.view(steps, batch, *features)).sum(0) / counts.view(batch, *features)


class Shards(Protocol):
    """Processes that share a loader's batches, see `training.Processes`."""

    def shard(self, loader) -> Iterable: ...

    def sum(self, *values: float) -> list[float]: ...

    def average_statistics(self, model: nn.Module) -> None: ...


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


def _takes_lengths(model: nn.Module) -> bool:
    parameters = inspect.signature(model.forward).parameters.values()
    return any(p.name == "lengths" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _check_takes_lengths(model: nn.Module) -> None:
    if not _takes_lengths(model):
        raise TypeError(
            "model: expected forward(frames, lengths) for a loader of (frames, labels, lengths), so that padding does "
            f"not count, got {type(model).__name__} without lengths; add the argument, or give the loader n_time_bins "
            "instead of time_window"
        )


def check_scores(scores: Any, batch: Batch) -> None:
    """Raise TypeError or ValueError unless scores are of a batch's samples, or of its time steps and samples."""
    samples, shape = len(batch.labels), tuple(batch.x.shape)
    expected = f"model: expected class scores ({samples}, n_classes), or (T, {samples}, n_classes), for inputs {shape}"
    if isinstance(scores, tuple):
        raise TypeError(
            f"{expected}, got a tuple of {len(scores)}, such as a neuron's spikes and state; return the mean over "
            "time, spikes.mean(0), or pass htaf_snn.fuse(network) of one that is stepped"
        )
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"{expected}, got {scores.dtype if isinstance(scores, Tensor) else type(scores).__name__}")
    is_sequence = scores.ndim == 3 and len(shape) > 2 and scores.shape[:2] == shape[:2] and shape[1] == samples
    if is_sequence or (scores.ndim == 2 and len(scores) == samples):
        return
    remedy = ""
    if len(shape) > 2 and shape[0] == samples:
        remedy = "; if it takes frames (T, B, …), write frames.transpose(0, 1)"
    raise ValueError(f"{expected}, got {tuple(scores.shape)}{remedy}")


def check_labels(labels: Tensor, n_classes: int) -> None:
    """Raise ValueError unless all labels are from 0 to n_classes - 1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"labels: expected 0 to {n_classes - 1}, got {labels.min()} to {labels.max()}; the network has {n_classes} "
            "classes, counted from 0"
        )
