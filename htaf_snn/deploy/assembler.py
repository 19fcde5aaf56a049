"""The operations of consecutive steps of a packed network, for samples of given shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from .. import nn as hnn
from ..kernels.binary_linear.autograd import transposed
from ..kernels.binary_linear.reference import pack
from ..kernels.bit_program import program as kernels
from ..nn.quantizing import within
from .products import BinaryProduct, HeavisideProduct, Product
from .steps import Add, Flatten, MaxPool, Quantize, Threshold
from .values import Geometry, Value

_WORD = 64
PRELUS = (nn.PReLU, hnn.RPReLU)
_READS_OTHERS = (kernels.PRODUCT, kernels.POOL, kernels.FLATTEN)
"""Operations of which a thread reads more than the pixels whose results it computes."""
_WRITES_OTHERS = (kernels.QUANTIZE, kernels.FLATTEN)
"""Operations whose results are not shared by pixels."""
_LINEAR = Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1)


class Held(NamedTuple):
    """Where a value lies while a program runs.

    Attributes:
        kind: "image" or "input bits", which the program is given, or "floats", "bits" or "levels" in its memory.
        at: where it begins.
        shape: of a sample, (n,) or (C, H, W).
        levels: the values of a bit.
    """

    kind: str
    at: int
    shape: tuple[int, ...]
    levels: tuple[int, int] = (0, 1)

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def sides(self) -> tuple[int, int]:
        return (self.shape[1], self.shape[2]) if len(self.shape) == 3 else (1, 1)

    @property
    def words(self) -> int:
        """Of a pixel, if the value is packed."""
        return -(-self.channels // _WORD)

    @property
    def size(self) -> int:
        """Words or numbers of all pixels."""
        return (self.words if "bits" in self.kind else self.channels) * math.prod(self.sides)


class _Access(NamedTuple):
    """Numbers or words in a memory, of which each thread takes its own of so many pixels; of 0, any."""

    kind: str
    at: int
    size: int
    pixels: int


def _access(value: Held, is_by_pixels: bool) -> _Access:
    return _Access(value.kind, value.at, value.size, math.prod(value.sides) if is_by_pixels else 0)


def _conflict(one: _Access, other: _Access) -> bool:
    """Return whether a thread may access what another one accesses, too."""
    overlap = one.kind == other.kind and one.at < other.at + other.size and other.at < one.at + one.size
    return overlap and not (one == other and one.pixels)


class UnsuitedError(Exception):
    """A program cannot compute these shapes; step by step they are computed or refused with a message."""


class _Memory:
    """Places for values of one type, of which those given back are used again, but for a number of spare ones."""

    def __init__(self, spare: int = 0) -> None:
        self.size, self._spare = 0, spare
        self._free: dict[int, list[int]] = {}

    def take(self, size: int) -> int:
        if len(self._free.get(size, [])) > self._spare:
            return self._free[size].pop(0)
        self.size += size
        return self.size - size

    def give_back(self, at: int, size: int) -> None:
        self._free.setdefault(size, []).append(at)


class _Parameters:
    """Arrays one after another."""

    def __init__(self, kind: type):
        self._kind, self.size = kind, 0
        self._arrays: list[np.ndarray] = [np.empty(0, kind)]

    def add(self, *arrays: np.ndarray | Tensor) -> int:
        """Append arrays; return where the first begins."""
        first = self.size
        for array in arrays:
            values = array.detach().numpy() if isinstance(array, Tensor) else array
            self._arrays.append(values.reshape(-1).astype(self._kind))
            self.size += values.size
        return first

    def joined(self) -> np.ndarray:
        return np.concatenate(self._arrays)


class Assembler:
    """Writes the operations of steps for samples of given shapes."""

    def __init__(self, last_use: Mapping[int, int], wanted: Sequence[int]):
        self.operations: list[dict[str, int]] = []
        self.words, self.integers, self.numbers = map(_Parameters, (np.uint64, np.int32, np.float32))
        # With a spare place, threads do not wait before they write bits until others have read those before.
        self.memory = {"floats": _Memory(), "bits": _Memory(spare=1), "levels": _Memory()}
        self.patch, self.taps, self.strip, self.runs, self.work = 1, 1, 1, 1, 0
        self.outputs: dict[int, Held] = {}  # where they lie in a sample's results
        self.results = {"floats": 0, "bits": 0}
        self._values: dict[int, Held] = {}
        self._last_use, self._wanted = last_use, wanted
        self._loaded: dict[Held, Held] = {}
        self._shared: set[tuple[str, int]] = set()  # what two numbers stand for
        self._read, self._written = set[_Access](), set[_Access]()  # since threads last waited for each other

    def hold(self, number: int, value: Held) -> None:
        """Take a value that an earlier step computed, or the program is given, and write it if it is wanted."""
        self._values[number] = value
        if number in self._wanted:
            if value.kind not in self.results:
                raise UnsuitedError
            at = self.results[value.kind]
            kind = kernels.STORE if value.kind == "floats" else kernels.STORE_BITS
            self._add(kind, value, None, out=at)
            self.outputs[number] = value._replace(at=at)
            self.results[value.kind] += value.size

    def _add(self, kind: int, value: Held, new: Held | None, other: Held | None = None, /, **fields: int) -> None:
        """Append an operation on one or two values, with its result if that lies in the program's memory."""
        rows, columns = value.sides
        own = {"kind": kind, "source": value.at, "rows": rows, "columns": columns, "channels": value.channels}
        own |= {"words": value.words} | ({} if other is None else {"other": other.at}) | fields
        if new is not None:
            own["out"] = new.at
        reads = {_access(held, kind not in _READS_OTHERS) for held in (value, other) if held is not None}
        writes = set() if new is None else {_access(new, kind not in _WRITES_OTHERS and not own.get("is_by_blocks"))}
        self.operations.append(own | {"waits": self._waits(reads, writes)})

    def _waits(self, reads: set[_Access], writes: set[_Access]) -> int:
        """Return whether an operation needs the parts that other threads computed since they last waited."""
        waits = not self.operations or any(
            _conflict(one, other)
            for ours, theirs in ((writes, self._read | self._written), (reads, self._written))
            for one in ours
            for other in theirs
        )
        if waits:
            self._read, self._written = set(), set()
        self._read, self._written = self._read | reads, self._written | writes
        return int(waits)

    def _new(self, kind: str, shape: tuple[int, ...], levels: tuple[int, int] = (0, 1)) -> Held:
        value = Held(kind, 0, shape, levels)
        return value._replace(at=self.memory[kind].take(value.size))

    def _as(self, kind: str, value: Held) -> Held:
        """Return a value as floats or bits in the program's memory."""
        value = self._loaded.get(value, value)
        if value.kind == kind:
            return value
        if (value.kind, kind) not in (("image", "floats"), ("input bits", "bits"), ("bits", "floats")):
            if (value.kind, kind) == ("input bits", "floats"):
                return self._as("floats", self._as("bits", value))
            raise UnsuitedError
        new = self._new(kind, value.shape, value.levels)
        if value.kind == "image":
            self._add(kernels.LOAD, value, new)
        elif value.kind == "input bits":
            self._add(kernels.LOAD_BITS, value, new)
        else:
            self._add(kernels.TO_FLOATS, value, new, numbers=self.numbers.add(np.array(value.levels)))
        if value.kind != "bits":
            self._loaded[value] = new
        return new

    def step(self, step: nn.Module, after: Sequence[nn.Module], sources: Sequence[int], number: int) -> None:
        """Write a step, whose result has the given number, with the modules after it that a table replaces."""
        taken = [self._values[source] for source in sources]
        if isinstance(step, Product):
            result = self._product(step, after, taken[0])
        elif isinstance(step, Add):
            result = self._add_values(*taken)
        elif isinstance(step, PRELUS):
            result = self._prelu(step, taken[0])
        elif isinstance(step, Quantize):
            result = self._quantize(step, taken[0])
        elif isinstance(step, Threshold):
            result = self._threshold(step, taken[0])
        elif isinstance(step, MaxPool):
            result = self._pool(step, taken[0])
        else:
            result = self._flatten(cast(Flatten, step), taken[0])
        self.hold(number, result)
        for source in {*sources}:
            if self._last_use[source] <= number and self._values[source].kind in self.memory:
                held = self._values[source]
                if (held.kind, held.at) not in self._shared:
                    self.memory[held.kind].give_back(held.at, held.size)

    def _quantize(self, step: Quantize, value: Held) -> Held:
        if value.kind != "image":
            raise UnsuitedError
        quantize = step.quantize
        bounds = (quantize.low, quantize.high - quantize.low, *_inner(quantize.low, quantize.high))
        new = Held("levels", 0, value.shape)
        new = new._replace(at=self.memory["levels"].take(math.prod(value.shape)))
        self._add(kernels.QUANTIZE, value, new, numbers=self.numbers.add(np.array(bounds)))
        return new

    def _threshold(self, step: Threshold, value: Held) -> Held:
        value = self._as("floats", value)
        new = self._new("bits", value.shape, step.levels)
        shift = torch.zeros(value.channels) if step.shift is None else step.shift
        if shift.shape != (value.channels,):
            raise UnsuitedError
        self._add(kernels.THRESHOLD, value, new, numbers=self.numbers.add(shift))
        return new

    def _flatten(self, step: Flatten, value: Held) -> Held:
        shape = (math.prod(value.shape),)
        if step.features not in (None, *shape):
            raise UnsuitedError
        if value.kind in ("image", "levels") or len(value.shape) == 1:
            self._shared.add((value.kind, value.at))
            return value._replace(shape=shape)
        value = self._as("bits", value)
        new = self._new("bits", shape, value.levels)
        self._add(kernels.FLATTEN, value, new, out_words=new.words)
        return new

    def _pool(self, step: MaxPool, value: Held) -> Held:
        value = self._as("bits", value)
        if len(value.shape) != 3 or max(step.dilation) > 1:
            raise UnsuitedError
        sides = tuple(step._fit(axis, value.sides[axis])[0] for axis in (0, 1))
        if min(sides) < 1:
            raise UnsuitedError
        new = self._new("bits", (value.channels, *sides), value.levels)
        where = Geometry(step.window, step.stride, step.padding, step.dilation, 1)
        self._add(kernels.POOL, value, new, **_window(where, new))
        self.work += new.size * math.prod(step.window)
        return new

    def _add_values(self, first: Held, second: Held) -> Held:
        if first.shape != second.shape:
            raise UnsuitedError
        first, second = self._as("floats", first), self._as("floats", second)
        new = self._new("floats", first.shape)
        self._add(kernels.ADD, first, new, second)
        self.work += new.size // 8
        return new

    def _prelu(self, step: nn.PReLU | hnn.RPReLU, value: Held) -> Held:
        value = self._as("floats", value)
        none = torch.zeros(value.channels)
        parameters: list[Any]
        if isinstance(step, hnn.RPReLU):
            parameters = [step.before, step.slope, step.after]
        else:
            parameters = [none, step.weight, -none]  # x - 0.0 and x + -0.0 are x, also if x is -0.0
        if parameters[1].numel() not in (1, value.channels):
            raise UnsuitedError
        before, slope, after = (own.expand(value.channels) for own in parameters)
        new = self._new("floats", value.shape)
        self._add(kernels.PRELU, value, new, numbers=self.numbers.add(before, slope, after))
        self.work += new.size // 4
        return new

    def _product(self, step: Product, after: Sequence[nn.Module], value: Held) -> Held:
        is_levels = value.kind == "levels"
        if is_levels and (after or isinstance(step, HeavisideProduct) or 255 * reach_of(step) >= 2**31):
            raise UnsuitedError
        value = value if is_levels else self._as("bits", value)
        where = step.where or _LINEAR
        if len(value.shape) != (3 if step.where else 1) or value.channels != step.shape[1] * where.groups:
            raise UnsuitedError
        sides = [
            (length + 2 * padding - spread * (window - 1) - 1) // stride + 1
            for length, window, stride, padding, spread in zip(value.sides, *where[:4], strict=True)
        ]
        if min(sides) < 1:
            raise UnsuitedError
        shape = (step.shape[0], *(sides if step.where else ()))
        is_bits = step.thresholds is not None
        new = self._new("bits" if is_bits else "floats", shape, step.out_levels)
        fields = self._weights(step, where, is_levels) | self._results(step, after)
        is_by_blocks = math.prod(sides) == where.groups == 1  # the words of several groups may be the same
        self._add(kernels.PRODUCT, value, new, is_by_blocks=is_by_blocks, **_window(where, new), **fields)
        run = -(-step.shape[1] * where.window[1] // _WORD)
        patch = -(-math.prod(step.shape[1:]) // _WORD) if is_levels else where.window[0] * run
        rows, columns = (length + 2 * padding for length, padding in zip(value.sides, where.padding, strict=True))
        self.patch, self.taps = max(self.patch, patch), max(self.taps, math.prod(where.window))
        self.strip = max(self.strip, rows * (-(-columns * step.shape[1] // _WORD) + 1))
        self.runs = max(self.runs, rows * sides[1] * run)
        blocks = -(-step.shape[0] // where.groups // 16) * 16 * where.groups
        self.work += math.prod(sides) * blocks * patch * (8 if is_levels else 1)
        return new

    def _weights(self, step: Product, where: Geometry, is_levels: bool) -> dict[str, int]:
        """Append the weights of a product and what corrects their counts."""
        weight = step.signs() if isinstance(step, BinaryProduct) else cast(HeavisideProduct, step).weight
        is_signed = bool(step.levels[0])
        taps = weight.reshape(*weight.shape[:2], -1).movedim(1, -1)  # (O, taps, n)
        sums = taps.long().sum(2)
        total, outside = sums.sum(1), -1
        # Outside the image the bits are 0, which counts as -1: correct for it.
        if is_signed and not is_levels and any(where.padding):
            outside = self.integers.add(*(_by_blocks(tap, where.groups) for tap in sums.T))
        window = taps if is_levels else _in_whole_words(taps, where.window)
        rows, inputs = window.flatten(1).chunk(where.groups), math.prod(step.shape[1:])
        if isinstance(step, HeavisideProduct):
            kind, factor, offset = kernels.INTEGERS, 2 if is_signed else 1, -total if is_signed else 0 * total
            begin = self.integers.add(*map(_rows, rows))
        elif is_levels and len(rows[0]) <= _WORD and where.dilation[1] == 1:
            kind, factor, offset, begin = kernels.LEVELS, 1, 0 * total, self.integers.add(*map(_rows, rows))
        else:
            # Of bits that differ, each takes 2 from the size, or 1 from the number of weights +1.
            ones = (total + inputs) // 2
            kind, factor = (kernels.PLANES, -1) if is_levels else (kernels.SIGNS, -2 if is_signed else -1)
            offset = 255 * ones if is_levels else torch.full_like(ones, inputs) if is_signed else ones
            begin = self.words.add(*(transposed(pack(own)).numpy().view(np.uint64) for own in rows))
        at = self.integers.add(_by_blocks(offset, where.groups))
        return {"product": kind, "factor": factor, "weight": begin, "offset": at, "outside": outside}

    def _results(self, step: Product, after: Sequence[nn.Module]) -> dict[str, int]:
        """Append what a product's sums become bits or floats by."""
        groups, outputs = step.groups, step.shape[0]
        largest = torch.full((outputs,), torch.iinfo(torch.int32).max)
        thresholds = largest if step.thresholds is None else step.thresholds
        at = self.integers.add(_by_blocks(thresholds, groups, int(largest[0])))
        if step.thresholds is not None:
            return {"result": kernels.TO_BITS, "thresholds": at}
        if after:
            reach = reach_of(step)
            begin = self.numbers.add(_table(step, after, reach))
            return {"result": kernels.LOOKED_UP, "thresholds": at, "reach": reach, "numbers": begin}
        factor = torch.ones(outputs) if step.factor is None else step.factor
        bias = torch.full((outputs,), -0.0) if step.bias is None else step.bias  # x + -0.0 is x, also if x is -0.0
        return {"result": kernels.SCALED, "thresholds": at, "numbers": self.numbers.add(factor, bias)}

    def program(self) -> kernels.Program:
        operations = np.zeros(len(self.operations), kernels.OPERATION)
        for operation, fields in zip(operations, self.operations, strict=True):
            for name, value in fields.items():
                operation[name] = value
        # One more, as a word at the end is read and written with the one after it.
        floats, bits, levels = (self.memory[kind].size + 1 for kind in ("floats", "bits", "levels"))
        arrays = self.words.joined(), self.integers.joined(), self.numbers.joined()
        return kernels.Program(
            operations, *arrays, (floats, bits, levels, self.patch, self.taps, self.strip, self.runs), self.work
        )


def _inner(low: float, high: float) -> tuple[np.float32, np.float32]:
    """Return the outermost float32 that lie within a range, so that the kernel need not compare in float64."""
    least, greatest = within(low, high)
    first, last = np.float32(least), np.float32(greatest)
    return (
        first if first >= least else np.nextafter(first, np.float32(np.inf)),
        last if last <= greatest else np.nextafter(last, np.float32(-np.inf)),
    )


def _window(where: Geometry, out: Held) -> dict[str, int]:
    """Return the fields of a window and of what it makes."""
    names = "window_rows", "window_columns", "down", "right", "up", "left", "spread_rows", "spread_columns"
    fields = dict(zip(names, chain.from_iterable(where[:4]), strict=True))
    rows, columns = out.sides
    sizes = {"out_rows": rows, "out_columns": columns, "outputs": out.channels, "out_words": out.words}
    return fields | sizes | {"groups": where.groups}


def _in_whole_words(taps: Tensor, window: tuple[int, int]) -> Tensor:
    """Return weights (O, taps, n) as (O, rows, n), each row of a window filled up to whole words with weights of 0."""
    rows = taps.unflatten(1, window).flatten(2)
    return nn.functional.pad(rows, (0, -rows.shape[2] % _WORD))


def _rows(weight: Tensor) -> Tensor:
    """Return integer weights (O, n) by input, those of each followed by zeros up to a multiple of 64."""
    return nn.functional.pad(weight, (0, 0, 0, -len(weight) % _WORD)).T


def _by_blocks(values: Tensor, groups: int, value: int = 0) -> np.ndarray:
    """Return a number for each output, those of each group followed by others up to a multiple of 64."""
    own = values.numpy().reshape(groups, -1)
    return np.pad(own, ((0, 0), (0, -own.shape[1] % _WORD)), constant_values=value)


def reach_of(step: nn.Module) -> int:
    """Return the largest magnitude of a binary product's sums."""
    return math.prod(step.shape[1:]) if isinstance(step, BinaryProduct) else 2**31


def _table(step: Product, after: Sequence[nn.Module], reach: int) -> Tensor:
    """Return for each sum and output (2 * reach + 1, O) what the modules after a product make of it."""
    sums = torch.arange(-reach, reach + 1, dtype=torch.int32)[:, None].expand(-1, step.shape[0])
    # As an image has them, since the rounding of torch's kernels may depend on the shape.
    x: Value = step._finished(sums[None, :, None] if step.where else sums)
    for module in after:
        x = module(x)
    return cast(Tensor, x)[0, :, :, 0].T if step.where else cast(Tensor, x)
