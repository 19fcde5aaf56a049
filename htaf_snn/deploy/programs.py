"""Runs of steps that one call computes, one sample after another, where that is faster than step by step."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._checks import is_readable
from ..kernels import _dispatch
from ..kernels.bit_program import numba_cpu as kernels
from ..nn.quantizing import check_range
from .assembler import PRELUS, Assembler, Held, UnsuitedError, reach_of
from .steps import Add, BinaryProduct, Bits, Flatten, MaxPool, Quantize, Threshold, Value, _Product

_PER_CHANNEL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, hnn.RPReLU)
"""Modules whose results depend on a value and its channel alone, so that a table replaces them after a product."""
_LONGEST_TABLE = 2**19
_TRIALS = 3
_IS_TENSOR: Callable[[Any], Any] = partial(operator.is_not, None)
_VERSION = operator.attrgetter("_version")


class Program:
    """Consecutive steps that one call computes.

    Args:
        first: the index of the first.
        steps: of the network, from the first on; those that only look a value up are merged with the product before.
        inputs: the numbers of the values that each takes.
        wanted: the numbers of the results that later steps take.
    """

    def __init__(self, first: int, steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], wanted: Sequence[int]):
        self.first, self.last, self.steps = first, first + len(steps) - 1, [*steps]
        self._inputs, self._wanted = [[*own] for own in inputs], [*wanted]
        own = range(first + 1, self.last + 2)
        self._given = sorted({number for numbers in inputs for number in numbers} - {*own})
        self._last_use = {number: first + i for i, numbers in enumerate(inputs) for number in numbers}
        self._last_use |= dict.fromkeys(wanted, self.last + 1)
        self._made: dict[tuple, tuple[Assembler, kernels.Program] | None] = {}
        self._is_faster: dict[tuple, bool] = {}
        self._state = [own for step in steps for own in (step._parameters, step._buffers) if own]
        self._hooks = [own for step in steps for own in (step._forward_hooks, step._forward_pre_hooks)]
        self._tensors: list[Tensor] = []
        self._versions: list[int] = []

    def __call__(
        self, values: Mapping[int, Value], by_steps: Callable[[Mapping[int, Value]], dict[int, Value]]
    ) -> dict[int, Value] | None:
        """Return the wanted results by their numbers; None if they have to be computed step by step.

        Args:
            values: those that the steps take.
            by_steps: computes the same results step by step, for a measurement of which is faster.
        """
        given = [values[number] for number in self._given]
        tensors = [value.words if isinstance(value, Bits) else value for value in given]
        samples = {len(x) if x.ndim in (2, 4) else 0 for x in tensors}
        if any(self._hooks) or len(samples) != 1 or 0 in samples or not all(map(is_readable, tensors)):
            return None
        if any(x.dtype not in (torch.float32, torch.int64) for x in tensors):
            return None
        if _dispatch.choose("auto", tensors[0].device, torch.float32) != "numba" or not self._is_current():
            return None
        shapes = tuple((type(value), tuple(value.shape[1:])) for value in given)
        if shapes not in self._made:
            self._made[shapes] = self._assembled(given)
        if (made := self._made[shapes]) is None:
            return None
        key = (shapes, samples.pop().bit_length(), torch.get_num_threads())
        if key not in self._is_faster:
            self._is_faster[key] = _seconds(lambda: self._run(given, *made)) <= _seconds(lambda: by_steps(values))
        return self._run(given, *made) if self._is_faster[key] else None

    def _is_current(self) -> bool:
        """Whether tensors have versions; those that changed are read anew."""
        tensors: list[Any] = [*filter(_IS_TENSOR, chain.from_iterable(own.values() for own in self._state))]
        is_same = len(tensors) == len(self._tensors) and all(map(operator.is_, tensors, self._tensors))
        if not is_same and any(tensor.is_inference() for tensor in tensors):
            return False
        versions = [*map(_VERSION, tensors)]
        if not is_same or versions != self._versions:
            self._tensors, self._versions = tensors, versions
            self._made.clear()
        return True

    def _assembled(self, given: Sequence[Value]) -> tuple[Assembler, kernels.Program] | None:
        assembler = Assembler(self._last_use, self._wanted)
        at = {"image": 0, "input bits": 0}
        try:
            for number, value in zip(self._given, given, strict=True):
                kind = "input bits" if isinstance(value, Bits) else "image"
                levels = value.levels if isinstance(value, Bits) else (0, 1)
                held = Held(kind, at[kind], tuple(value.shape[1:]), levels)
                at[kind] += held.size
                assembler.hold(number, held)
            i = 0
            while i < len(self.steps):
                after = _looked_up(self.steps[i:], self._inputs[i:], self.first + i, self._single_uses())
                last = i + len(after)
                assembler.step(self.first + last, self.steps[i], after, self._inputs[i], self.first + last + 1)
                i = last + 1
        except UnsuitedError:
            return None
        return assembler, assembler.program()

    def _single_uses(self) -> set[int]:
        uses = [number for numbers in self._inputs for number in numbers] + self._wanted
        return {number for number in uses if uses.count(number) == 1}

    def _run(self, given: Sequence[Value], assembler: Assembler, program: kernels.Program) -> dict[int, Value]:
        images = [value.flatten(1) for value in given if isinstance(value, Tensor)]
        words = [value.words.flatten(1) for value in given if isinstance(value, Bits)]
        samples = len(given[0].words if isinstance(given[0], Bits) else given[0])
        image, bits = _side_by_side(images, samples, torch.float32), _side_by_side(words, samples, torch.int64)
        sizes = assembler.results["floats"], assembler.results["bits"]
        floats, out_words, is_outside = kernels.run_program(
            program, image.numpy(), bits.numpy().view(np.uint64), *sizes
        )
        if is_outside:
            self._refuse_ranges(images)
        results: dict[int, Value] = {}
        for number, held in assembler.outputs.items():
            source = floats if held.kind == "floats" else out_words.view(np.int64)
            own = torch.from_numpy(source[:, held.at : held.at + held.size])
            if held.kind == "floats":
                results[number] = own.reshape(samples, *held.shape)
            else:
                axis = -3 if len(held.shape) == 3 else -1
                sides = held.sides if axis == -3 else ()
                results[number] = Bits(own.reshape(samples, *sides, held.words), held.channels, held.levels, axis)
        return results

    def _refuse_ranges(self, images: Sequence[Tensor]) -> None:
        for step in self.steps:
            if isinstance(step, Quantize):
                (image,) = images
                check_range(image, step.quantize.low, step.quantize.high, step.quantize.text)


def _side_by_side(parts: Sequence[Tensor], samples: int, dtype: torch.dtype) -> Tensor:
    if not parts:
        return torch.empty(samples, 0, dtype=dtype)
    return parts[0].contiguous() if len(parts) == 1 else torch.cat([*parts], 1)


def _seconds(compute: Callable[[], Any]) -> float:
    """Return the time of the quickest of some calls, after one that compiles."""
    compute()
    times = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        compute()
        times.append(time.perf_counter() - start)
    return min(times)


def _looked_up(
    steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], first: int, single: set[int]
) -> list[nn.Module]:
    """Return the modules after a binary product, up to the end of its run, that a table of its sums replaces."""
    product = steps[0]
    is_small = isinstance(product, BinaryProduct) and (2 * reach_of(product) + 1) * product.shape[0] <= _LONGEST_TABLE
    if not is_small or product.thresholds is not None:
        return []
    after = []
    for i, step in enumerate(steps[1:], 1):
        if not isinstance(step, _PER_CHANNEL) or [*inputs[i]] != [first + i] or first + i not in single:
            break
        after.append(step)
    return after


def programs(steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], output: int) -> dict[int, Program]:
    """Return the programs of a packed network, by the indices of their first steps."""
    uses = [number for own in inputs for number in own] + [output]
    single = {number for number in uses if uses.count(number) == 1}
    kinds = ["floats"]  # of each value
    for step, own in zip(steps, inputs, strict=True):
        kinds.append(_kind(step, [kinds[number] for number in own]))
    by_first, i = {}, 0
    while i < len(steps):
        end = i
        while end < len(steps) and _is_taken(steps[end], [kinds[number] for number in inputs[end]], steps[end + 1 :]):
            end += 1 + len(_looked_up(steps[end:], inputs[end:], end, single))
        if any(isinstance(step, _Product) for step in steps[i:end]) and end > i + 1:
            later = {number for own in inputs[end:] for number in own} | {output}
            wanted = sorted(later & {*range(i + 1, end + 1)})
            by_first[i] = Program(i, steps[i:end], inputs[i:end], wanted)
        i = max(end, i + 1)
    return by_first


def _kind(step: nn.Module, sources: Sequence[str]) -> str:
    if isinstance(step, Quantize):
        return "levels"
    if isinstance(step, (MaxPool, Threshold)) or (isinstance(step, _Product) and step.thresholds is not None):
        return "bits"
    return sources[0] if isinstance(step, Flatten) else "floats"


def _is_taken(step: nn.Module, sources: Sequence[str], later: Sequence[nn.Module]) -> bool:
    """Whether programs compute a step."""
    if isinstance(step, Flatten):
        return sources[0] != "floats" or bool(later and isinstance(later[0], Quantize))
    return isinstance(step, (_Product, MaxPool, Threshold, Add, Quantize, *PRELUS))
