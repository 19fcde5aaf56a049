"""Runs of steps that one call computes, one sample after another, where that is faster than step by step."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from .. import nn as hnn
from .._checks import is_plain
from ..kernels import _dispatch
from ..kernels.bit_program.numba_cpu import run_program
from ..kernels.bit_program.program import Program as Kernel
from .assembler import PRELUS, Assembler, Held, UnsuitedError, reach_of
from .products import BinaryProduct, Product
from .quickest import Quickest
from .steps import Add, Flatten, MaxPool, Quantize, Threshold
from .values import Bits, Value

_PER_CHANNEL = (nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU, nn.PReLU, hnn.RPReLU)
"""Modules whose results depend on a value and its channel alone, so that a table replaces them after a product."""
_LONGEST_TABLE = 2**19
_MOST_SHAPES = 8
Part = tuple[nn.Module, Sequence[nn.Module]]
_VERSION = operator.attrgetter("_version")


class Program:
    """Consecutive steps that one call computes.

    Args:
        first: the index of the first.
        parts: the steps, each with the modules after it that a table of its sums replaces.
        inputs: the numbers of the values that each part takes.
        wanted: the numbers of the results that later steps take.
    """

    def __init__(self, first: int, parts: Sequence[Part], inputs: Sequence[Sequence[int]], wanted: Sequence[int]):
        self.steps = [module for step, after in parts for module in (step, *after)]
        self.first, self.last = first, first + len(self.steps) - 1
        self._parts, self._inputs, self._wanted = [*parts], [[*own] for own in inputs], [*wanted]
        # The numbers of the parts' results.
        self._numbers = [first + end for end in accumulate(1 + len(after) for _, after in parts)]
        self._given = sorted({number for numbers in inputs for number in numbers} - {*self._numbers})
        self._last_use = {number: end for numbers, end in zip(inputs, self._numbers, strict=True) for number in numbers}
        self._last_use |= dict.fromkeys(wanted, self.last + 2)
        self._state = [own for step in self.steps for own in (step._parameters, step._buffers) if own]
        self._hooks = [own for step in self.steps for own in (step._forward_hooks, step._forward_pre_hooks)]
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple, tuple[Assembler, Kernel] | None] = {}
        self._quickest = Quickest()
        self._own: list[Tensor | None] = []
        self._tensors: list[Tensor] = []
        self._versions: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        kept = {"_lock", "_made", "_quickest", "_own", "_tensors", "_versions"}
        return {name: value for name, value in vars(self).items() if name not in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __call__(
        self, values: Mapping[int, Value], by_steps: Callable[[], Mapping[int, Value] | None]
    ) -> Mapping[int, Value] | None:
        """Return the wanted results by their numbers; None if they have to be computed step by step.

        Args:
            values: those that the steps take.
            by_steps: computes the same results, and maybe more, in another way, which is taken if it is faster.
        """
        given = [values[number] for number in self._given]
        if any(self._hooks) or _has_any_global_hook() or not all(map(_is_taken_in, given)):
            return None
        samples = {len(value.words if isinstance(value, Bits) else value) for value in given}
        if len(samples) != 1 or 0 in samples:
            return None
        shapes = tuple((type(value), tuple(value.shape[1:])) for value in given)
        key = (shapes, samples.pop().bit_length(), torch.get_num_threads())
        with self._lock:
            if not self._is_current():
                return None
            if shapes not in self._made:
                while len(self._made) >= _MOST_SHAPES:
                    del self._made[next(iter(self._made))]
                self._made[shapes] = self._assembled(given)
            if (made := self._made[shapes]) is None:
                return None
        return self._quickest(key, [lambda: self._run(given, *made), by_steps])

    def _is_current(self) -> bool:
        """Return whether all tensors have versions and are on the CPU; forget what was made of those that changed."""
        own: list[Tensor | None] = [*chain.from_iterable(state.values() for state in self._state)]
        is_same = len(own) == len(self._own) and all(map(operator.is_, own, self._own))
        if not is_same:
            tensors = [tensor for tensor in own if tensor is not None]
            if any(tensor.is_inference() or tensor.device.type != "cpu" for tensor in tensors):
                return False
            self._own, self._tensors = own, tensors
        versions = [*map(_VERSION, self._tensors)]
        if not is_same or versions != self._versions:
            self._versions = versions
            self._made.clear()
        return True

    def _assembled(self, given: Sequence[Value]) -> tuple[Assembler, Kernel] | None:
        assembler = Assembler(self._last_use, self._wanted)
        at = {"image": 0, "input bits": 0}
        try:
            for number, value in zip(self._given, given, strict=True):
                kind = "input bits" if isinstance(value, Bits) else "image"
                levels = value.levels if isinstance(value, Bits) else (0, 1)
                held = Held(kind, at[kind], tuple(value.shape[1:]), levels)
                at[kind] += held.size
                assembler.hold(number, held)
            with torch.device("cpu"):
                for (step, after), sources, number in zip(self._parts, self._inputs, self._numbers, strict=True):
                    assembler.step(step, after, sources, number)
        except UnsuitedError:
            return None
        return assembler, assembler.program()

    def _run(self, given: Sequence[Value], assembler: Assembler, program: Kernel) -> dict[int, Value] | None:
        """Return the results; None if an image is out of its range, for the steps to say so."""
        images = [value.flatten(1) for value in given if isinstance(value, Tensor)]
        words = [value.words.flatten(1) for value in given if isinstance(value, Bits)]
        samples = len(given[0].words if isinstance(given[0], Bits) else given[0])
        image, bits = _side_by_side(images, samples, np.float32), _side_by_side(words, samples, np.uint64)
        sizes = assembler.results["floats"], assembler.results["bits"]
        floats, out_words, is_outside = run_program(program, image, bits, *sizes)
        if is_outside:
            return None
        results: dict[int, Value] = {}
        for number, held in assembler.outputs.items():
            source = floats if held.kind == "floats" else out_words.view(np.int64)
            # As a new tensor lies: torch's rounding depends on it.
            own = torch.from_numpy(np.ascontiguousarray(source[:, held.at : held.at + held.size]))
            if held.kind == "floats":
                results[number] = own.view(samples, *held.shape)
            else:
                axis = -3 if len(held.shape) == 3 else -1
                sides = held.sides if axis == -3 else ()
                results[number] = Bits(own.view(samples, *sides, held.words), held.channels, held.levels, axis)
        return results


def _is_taken_in(value: Value) -> bool:
    """Whether programs take a value: samples or images, in float32 or bits, on the CPU, that can be read."""
    x = value.words if isinstance(value, Bits) else value
    if x.ndim not in (2, 4) or (isinstance(value, Bits) and value.axis != (-3 if x.ndim == 4 else -1)):
        return False
    if x.dtype not in (torch.float32, torch.int64) or not is_plain(x):
        return False
    return _dispatch.choose("auto", x.device, torch.float32) == "numba"


def _side_by_side(parts: Sequence[Tensor], samples: int, dtype: type) -> np.ndarray:
    if not parts:
        return np.empty((samples, 0), dtype)
    return (parts[0].contiguous() if len(parts) == 1 else torch.cat([*parts], 1)).numpy().view(dtype)


def _looked_up(steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], first: int, single: set[int]) -> int:
    """Return how many modules after a binary product of bits a table of its sums replaces."""
    product = steps[0]
    is_small = isinstance(product, BinaryProduct) and (2 * reach_of(product) + 1) * product.shape[0] <= _LONGEST_TABLE
    if not is_small or product.thresholds is not None:
        return 0
    count = 0
    for step, numbers in zip(steps[1:], inputs[1:], strict=True):
        number = first + count + 1  # of the result before
        if not isinstance(step, _PER_CHANNEL) or [*numbers] != [number] or number not in single:
            break
        count += 1
    return count


def programs(steps: Sequence[nn.Module], inputs: Sequence[Sequence[int]], output: int) -> dict[int, Program]:
    """Return the programs of a packed network, by the indices of their first steps; some begin within others."""
    uses = [number for own in inputs for number in own] + [output]
    single = {number for number in uses if uses.count(number) == 1}
    kinds = ["floats"]  # of each value
    for step, own in zip(steps, inputs, strict=True):
        kinds.append(_kind(step, [kinds[number] for number in own]))
    by_first: dict[int, Program] = {}
    i = 0
    while i < len(steps):
        end, parts, taken = i, list[Part](), list[Sequence[int]]()
        while end < len(steps) and _is_taken(steps[end], [kinds[number] for number in inputs[end]], steps[end + 1 :]):
            is_of_levels = _is_of_levels(steps[end], inputs[end], kinds)
            count = 0 if is_of_levels else _looked_up(steps[end:], inputs[end:], end, single)
            parts.append((steps[end], steps[end + 1 : end + 1 + count]))
            taken.append(inputs[end])
            end += 1 + count
        later = {number for own in inputs[end:] for number in own} | {output}
        # Also what follows a product of levels, which may be quicker by itself.
        for k in [0, *(k + 1 for k, (step, _) in enumerate(parts) if _is_of_levels(step, taken[k], kinds))]:
            if any(isinstance(step, Product) for step, _ in parts[k:]) and len(parts[k:]) > 1:
                first = i + sum(1 + len(after) for _, after in parts[:k])
                wanted = sorted(later & {*range(first + 1, end + 1)})
                by_first[first] = Program(first, parts[k:], taken[k:], wanted)
        i = max(end, i + 1)
    return by_first


def _is_of_levels(step: nn.Module, inputs: Sequence[int], kinds: Sequence[str]) -> bool:
    return isinstance(step, Product) and kinds[inputs[0]] == "levels"


def _kind(step: nn.Module, sources: Sequence[str]) -> str:
    if isinstance(step, Quantize):
        return "levels"
    if isinstance(step, (MaxPool, Threshold)) or (isinstance(step, Product) and step.thresholds is not None):
        return "bits"
    return sources[0] if isinstance(step, Flatten) else "floats"


def _is_taken(step: nn.Module, sources: Sequence[str], later: Sequence[nn.Module]) -> bool:
    """Whether programs compute a step."""
    if isinstance(step, Flatten):
        return sources[0] != "floats" or bool(later and isinstance(later[0], Quantize))
    return isinstance(step, (Product, MaxPool, Threshold, Add, Quantize, *PRELUS))
