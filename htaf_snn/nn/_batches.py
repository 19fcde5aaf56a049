"""A loader's batches and a network's scores for them, checked before anything is counted."""

from __future__ import annotations

import inspect
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from ..functional._checks import check_floating

__all__ = ["Batch", "apply", "check_in_order", "check_labels", "class_scores", "device_of", "inputs_of", "unpack"]


class Batch(NamedTuple):
    """What a loader gives: inputs, labels int64 (B,), and of padded frames their lengths (B,)."""

    x: Tensor
    labels: Tensor
    lengths: Tensor | None


def inputs_of(batch) -> tuple[Tensor, Tensor | None]:
    """The inputs of a batch, and their lengths or None; its labels are not looked at."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        got = f"{len(batch)} items" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"loader: expected batches (inputs, labels) or (frames, labels, lengths), got {got}")
    x, lengths = batch[0], batch[2] if len(batch) == 3 else None
    if not isinstance(x, Tensor):
        check_floating("inputs", x)
    return x, lengths


def unpack(batch) -> Batch:
    """A checked batch; TypeError or ValueError says what to write instead."""
    x, lengths = inputs_of(batch)
    labels = batch[1]
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: expected a tensor, int64 (B,), got {type(labels).__name__}")
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if labels.ndim != 1 or not whole:
        one_hot = labels.ndim == 2 and labels.shape[1] > 1
        remedy = ".argmax(1)" if one_hot else ".squeeze(1)" if labels.ndim == 2 else ""
        remedy += "" if whole or one_hot else ".long()"
        raise ValueError(
            f"labels: expected class numbers, int64 (B,), got {labels.dtype} {tuple(labels.shape)}"
            + (f"; write labels{remedy}" if remedy else "")
        )
    return Batch(x, labels.long(), lengths)


def check_in_order(loader, use: str) -> None:
    """Raise ValueError if a loader goes over its samples in an order of its own; `use` says what needs the data's."""
    sampler = getattr(loader, "sampler", None)
    # A batch sampler of one's own is not in `loader.sampler`, but may have one.
    for one in (sampler, getattr(loader, "batch_sampler", None)):
        one = getattr(one, "sampler", one)
        if isinstance(one, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)) or hasattr(one, "set_epoch"):
            raise ValueError(
                f"loader: expected one in the order of its data, for {use}, got one that draws them by "
                f"{type(one).__name__}; write DataLoader(loader.dataset, batch_size)"
            )


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters, or without any of its buffers; the CPU if it has neither."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def apply(model: nn.Module, x: Tensor, lengths: Tensor | None, network: nn.Module | None = None):
    """What a model gives for a batch, on its device; `network` is what runs, the model or around it.

    Raises:
        TypeError: if lengths cannot be passed on, or the model fails on inputs of bytes or booleans.
    """
    device = device_of(model)
    options = {}
    if lengths is not None:
        _check_takes_lengths(model)
        options["lengths"] = lengths.to(device)
    try:
        return (model if network is None else network)(x.to(device), **options)
    except (RuntimeError, TypeError):
        if x.dtype in (torch.uint8, torch.bool):  # unlike a model that converts them, or looks them up
            check_floating("inputs", x)
        raise


def class_scores(model: nn.Module, batch: Batch, network: nn.Module | None = None) -> tuple[Tensor, Tensor]:
    """Class scores (B, classes) and labels (B,), on the model's device; `network` is what runs, the model or around it.

    Raises:
        TypeError, ValueError: if the model gives anything else, a label is no class, or lengths cannot be passed on.
    """
    scores = apply(model, batch.x, batch.lengths, network)
    _check_scores(scores, batch)
    check_labels(batch.labels, scores.shape[1])
    return scores, batch.labels.to(scores.device)


def _check_takes_lengths(model: nn.Module) -> None:
    parameters = inspect.signature(model.forward).parameters.values()
    if not any(one.name == "lengths" or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        raise TypeError(
            "model: expected forward(frames, lengths) for a loader of (frames, labels, lengths), so that padded steps "
            f"do not count, got {type(model).__name__} without lengths; take them, or give the loader n_time_bins in "
            "place of time_window"
        )


def _check_scores(scores, batch: Batch) -> None:
    samples, shape = len(batch.labels), tuple(batch.x.shape)
    expected = f"model: expected class scores ({samples}, classes) for inputs {shape}"
    if isinstance(scores, tuple):
        raise TypeError(
            f"{expected}, got a tuple of {len(scores)}, as neurons give of spikes and state; return the spikes' mean "
            "over time, spikes.mean(0)"
        )
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"{expected}, got {scores.dtype if isinstance(scores, Tensor) else type(scores).__name__}")
    if scores.ndim == 2 and len(scores) == samples:
        return
    remedy = ""
    if scores.ndim == 3:
        remedy = "; of a sequence (T, B, classes) return the mean over time, scores.mean(0)"
    elif len(shape) > 2 and shape[0] == samples:
        remedy = "; if it takes frames (T, B, …), write frames.transpose(0, 1)"
    raise ValueError(f"{expected}, got {tuple(scores.shape)}{remedy}")


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise ValueError unless labels are within 0 to classes - 1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"labels: expected 0 to {classes - 1}, got {labels.min()} to {labels.max()}; the network has {classes} "
            "classes, counted from 0"
        )
