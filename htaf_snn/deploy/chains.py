"""Runs of linear steps on bits, computed in one call where that is faster than step by step."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from .._checks import is_readable
from ..kernels import _dispatch
from ..kernels.bit_chain import numba_cpu as kernels
from ..nn.quantizing import check_range, within
from .steps import BinaryProduct, Bits, HeavisideProduct, Quantize, Value, _Product

_MOST_WORK, _MANY_SAMPLES = 2**18, 32
"""Of fewer samples with more work, each layer's outputs are shared among the threads; step by step is then faster."""


class Chain:
    """Steps that follow each other, of which each takes the one before alone.

    Args:
        steps: linear products, maybe after the conversion of images to levels.
    """

    def __init__(self, steps: Sequence[nn.Module]):
        self.steps = steps
        self._image = steps[0] if isinstance(steps[0], Quantize) else None
        self._products = [step for step in steps if isinstance(step, _Product)]
        self._layers: kernels.Layers | None = None
        self._buffers: list[Tensor] = []
        self._versions: list[int] = []

    def __call__(self, value: Value) -> Value | None:
        """Return the last step's result; None if it has to be computed step by step."""
        x = value.words if isinstance(value, Bits) else value
        size = self._products[0].shape[1]
        is_taken = isinstance(value, Bits) != (self._image is not None) and x.ndim == 2 and value.shape[1] == size
        is_watched = any(step._forward_hooks or step._forward_pre_hooks for step in self.steps)
        if not is_taken or is_watched or not is_readable(x) or not len(x):
            return None
        if _dispatch.choose("auto", x.device, torch.float32) != "numba":
            return None
        layers = self._current()
        if layers is None or (len(x) < _MANY_SAMPLES and kernels.work(layers) > _MOST_WORK):
            return None
        return self._run(x.contiguous(), layers)

    def _run(self, x: Tensor, layers: kernels.Layers) -> Value | None:
        last, empty = self._products[-1], np.empty((len(x), 0), np.uint64)
        if self._image is None:
            result, _ = kernels.chain(empty.view(np.float32), x.numpy().view(np.uint64), layers, (0.0, 1.0, 0.0, 1.0))
        else:
            quantize = self._image.quantize
            bounds = (quantize.low, quantize.high, *within(quantize.low, quantize.high))
            result, is_outside = kernels.chain(x.numpy(), empty, layers, bounds)
            if is_outside:
                check_range(x, quantize.low, quantize.high, quantize.text)
        if layers.to_floats:
            return torch.from_numpy(result)
        return Bits(torch.from_numpy(result.view(np.int64)), last.shape[0], last.out_levels, -1)

    def _current(self) -> kernels.Layers | None:
        """Return the layers' arrays, made anew after a change of the tensors; None for those without versions."""
        buffers = [buffer for step in self._products for buffer in step._buffers.values() if buffer is not None]
        if any(buffer.is_inference() for buffer in buffers):
            return None
        versions = [buffer._version for buffer in buffers]
        is_same = len(buffers) == len(self._buffers) and all(map(operator.is_, buffers, self._buffers))
        if self._layers is None or not is_same or versions != self._versions:
            self._layers = _layers(self._products, self._image is not None)
            self._buffers, self._versions = buffers, versions
        return self._layers


def chains(steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], output: int) -> dict[int, Chain]:
    """Return the chains of two steps or more in a packed network, by the indices of their first steps."""
    users = [number for own in inputs for number in own] + [output]
    by_first, i = {}, 0
    while i < len(steps):
        end = i + 1
        while (
            end < len(steps)
            and [*inputs[end]] == [end]
            and users.count(end) == 1
            and _follows(*steps[end - 1 : end + 1])
        ):
            end += 1
        if end > i + 1:
            by_first[i] = Chain(steps[i:end])
        i = end
    return by_first


def _follows(first: nn.Module, second: nn.Module) -> bool:
    """Return whether the kernel computes two steps one after the other."""
    if not _is_linear(second):
        return False
    if isinstance(first, Quantize):
        return isinstance(second, BinaryProduct)
    return _is_linear(first) and first.thresholds is not None and first.shape[0] == second.shape[1]


def _is_linear(step: nn.Module) -> TypeGuard[_Product]:
    return isinstance(step, _Product) and step.where is None


def _layers(products: Sequence[_Product], is_image: bool) -> kernels.Layers:
    """Return the arrays of layers for the kernel."""
    table: list[list[int]] = []
    words: list[np.ndarray] = []
    rows: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    thresholds: list[np.ndarray] = []
    for i, step in enumerate(products):
        outputs, size = step.shape
        if isinstance(step, HeavisideProduct):
            kind = kernels.INTEGERS
            start, factor = sum(map(len, rows)), 2 if step.levels[0] else 1
            total = step.weight.sum(1, dtype=torch.int32).numpy()
            offset = -total if step.levels[0] else np.zeros(outputs, np.int32)
            rows.append(np.pad(step.rows_0.numpy(), ((0, 0), (0, -outputs % 64))).reshape(-1))
        else:
            assert isinstance(step, BinaryProduct)
            weight = step._weight(0)
            kind = kernels.LEVELS if is_image and i == 0 else kernels.SIGNS
            start, factor = sum(map(len, words)), 2 if step.levels[0] else 1
            ones = weight.ones.numpy()
            offset = 255 * ones if kind == kernels.LEVELS else np.full_like(ones, size) if step.levels[0] else ones
            words.append(weight.words.numpy().view(np.uint64).reshape(-1))
        table.append([kind, -(-size // 64), outputs, start, sum(map(len, offsets)), factor])
        offsets.append(_padded(offset, 0))
        none = np.zeros(outputs, np.int32)
        thresholds.append(_padded(none if step.thresholds is None else step.thresholds.numpy(), np.iinfo(np.int32).max))
    last = products[-1]
    scale, bias = np.ones(last.shape[0], np.float32), np.zeros(last.shape[0], np.float32)
    return kernels.Layers(
        np.array(table, np.int64), _joined(words, np.uint64), _joined(rows, np.int32), _joined(offsets, np.int32),
        _joined(thresholds, np.int32), scale if last.factor is None else last.factor.numpy(),
        bias if last.bias is None else last.bias.detach().numpy(), last.thresholds is None,
    )  # fmt: skip


def _padded(values: np.ndarray, value: int) -> np.ndarray:
    return np.pad(values.astype(np.int32), (0, -len(values) % 64), constant_values=value)


def _joined(arrays: Sequence[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(arrays).astype(kind) if arrays else np.empty(0, kind)
