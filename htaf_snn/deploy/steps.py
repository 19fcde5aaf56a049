"""The steps of a packed network: products of bits, thresholds, pools, and the modules that stay in floating point.

Values between steps are float32 tensors, `Bits`, or the uint8 levels of a quantized input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from .. import nn as hnn
from .._checks import is_plain
from ..functional import BinaryWeight, level_linear, pack_bits, pack_weight, unpack_bits
from ..functional.bits import conv2d_of_bits, heaviside_sums, heaviside_values, linear_of_bits, windows
from ..functional.sequences import run
from ..kernels import _dispatch
from ..kernels.neuron import fused
from ..models.spiking import check_frames
from ..neurons import NEURONS
from ..nn.binary import by_channel
from ..nn.quantizing import INPUT_STEP, check_range


@dataclass(frozen=True)
class Bits:
    """Packed activations.

    Attributes:
        words: int64, with the packed dimension last: (…, K), or (B, H, W, K) for images.
        size: number of features or channels.
        levels: the values of a 0 and a 1.
        axis: the packed dimension of the same values in floating point, -1 or -3.
    """

    words: Tensor
    size: int
    levels: tuple[int, int]
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the same values in floating point."""
        shape = list(self.words.shape[:-1])
        shape.insert(len(shape) + 1 + self.axis, self.size)
        return tuple(shape)


Value = Tensor | Bits
Pair = int | Sequence[int]


def pair(value: Pair) -> tuple[int, int]:
    """Return two integers, as a module or JSON has them, as a tuple."""
    first, second = value if isinstance(value, Sequence) else (value, value)
    return int(first), int(second)


def as_float(value: Value) -> Tensor:
    """Return a value as float32, images as (B, C, H, W)."""
    if not isinstance(value, Bits):
        return value if value.is_floating_point() else value.float() * INPUT_STEP
    low, high = value.levels
    x = unpack_bits(value.words, value.size).float() * (high - low) + low
    return _moved(x, value.axis)


def _moved(x: Tensor, axis: int) -> Tensor:
    """Move the last dimension, with the strides of a new tensor: torch's rounding depends on them."""
    return x if axis == -1 else x.movedim(-1, axis).clone(memory_format=torch.contiguous_format)


def _packed(x: Tensor, levels: tuple[int, int], axis: int) -> Bits:
    x = x.movedim(axis, -1)
    return Bits(pack_bits(x), x.shape[-1], levels, axis)


def _along(value: Bits, axis: int) -> Bits:
    """Return the same bits, repacked along the given dimension if necessary."""
    return value if value.axis == axis else _packed(as_float(value), value.levels, axis)


class Step(nn.Module):
    """A step that computes on packed values."""

    def options(self) -> dict[str, object]:
        """Return the constructor's arguments other than tensors, for JSON."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save."""
        return self.state_dict()


class Add(Step):
    """The sum of two values."""

    def forward(self, first: Value, second: Value) -> Tensor:
        return as_float(first) + as_float(second)


class Cat(Step):
    """Values one after another along features or channels.

    Args:
        levels: those of all values, which are then packed; None for float32.
    """

    def __init__(self, levels: Sequence[int] | None):
        super().__init__()
        self.levels = None if levels is None else pair(levels)

    def options(self) -> dict[str, object]:
        return {"levels": self.levels}

    def forward(self, *values: Value) -> Value:
        x = torch.cat([as_float(value) for value in values], 1)
        return x if self.levels is None else _packed(x, self.levels, -3 if x.ndim == 4 else -1)


class Flatten(Step):
    """All dimensions but the first as one.

    Args:
        features: their number, for which others are refused; None for any.
    """

    def __init__(self, features: int | None = None):
        super().__init__()
        self.features = features

    def options(self) -> dict[str, object]:
        return {"features": self.features}

    def forward(self, value: Value) -> Value:
        if self.features is not None and math.prod(value.shape[1:]) != self.features:
            raise ValueError(f"x: expected {self.features} values per sample at a view, got {tuple(value.shape)}")
        if not isinstance(value, Bits):
            return value.flatten(1)
        return value if value.words.ndim == 2 else _packed(as_float(value).flatten(1), value.levels, -1)


class ToRows(Step):
    """A sequence (T, B, …) as rows (T * B, …), one per time step and sample.

    Args:
        frame_shape: (T, C, H, W) of the training frames, as in `models.SpikingNet`, or None.
    """

    def __init__(self, frame_shape: Sequence[int] | None):
        super().__init__()
        self.frame_shape = None if frame_shape is None else tuple(frame_shape)

    def options(self) -> dict[str, object]:
        return {"frame_shape": self.frame_shape}

    def forward(self, frames: Tensor) -> Tensor:
        check_frames(frames, self.frame_shape)
        if frames.ndim < 3:
            raise ValueError(f"frames: expected (T, B, features, …), got {tuple(frames.shape)}")
        return frames.flatten(0, 1)


def _over_time(rows: Value, frames: Tensor) -> Tensor:
    return as_float(rows).unflatten(0, frames.shape[:2])


class FromRows(Step):
    """Rows (T * B, …) as a sequence (T, B, …); it takes the rows and the frames."""

    def forward(self, rows: Value, frames: Tensor) -> Tensor:
        return _over_time(rows, frames)


class MeanOverTime(Step):
    """The mean of rows (T * B, …) over the time steps, (B, …); it takes the rows and the frames."""

    def forward(self, rows: Value, frames: Tensor) -> Tensor:
        return _over_time(rows, frames).mean(0)


class Neurons(Step):
    """Neurons over time, from rest: they take the rows of their currents and the frames, and give rows.

    Args:
        kind: of `htaf_snn.neurons`, by name.
        choices: its options.
        is_packed: whether the rows are bits; float32 otherwise.
        **parameters: of the neuron, tensors.
    """

    def __init__(self, kind: str, choices: dict[str, Any], is_packed: bool, **parameters: Tensor):
        super().__init__()
        self.kind, self.choices, self.is_packed = kind, choices, is_packed
        for name in NEURONS[kind].parameters:
            self.register_buffer(name, parameters[name])

    def options(self) -> dict[str, object]:
        return {"kind": self.kind, "choices": self.choices, "is_packed": self.is_packed}

    def prepared(self) -> dict[str, Tensor]:
        """Return the parameters of the update."""
        neuron, values = NEURONS[self.kind], {name: getattr(self, name) for name in NEURONS[self.kind].parameters}
        values |= {name: values[name].clamp(low, high) for name, (low, high) in neuron.clamped.items()}
        return neuron.prepare(**values) if neuron.prepare else values

    def forward(self, rows: Value, frames: Tensor) -> Value:
        x = _over_time(rows, frames)
        words = self._words(x) if self.is_packed else None
        if words is not None:
            return Bits(words.flatten(0, 1), x.shape[-1], (0, 1), -1)
        given: dict[str, Any] = self.choices | self._buffers
        y = run(NEURONS[self.kind], x, **given)[0].flatten(0, 1)
        return _packed(y, (0, 1), -3 if y.ndim == 4 else -1) if self.is_packed else y

    def _words(self, x: Tensor) -> Tensor | None:
        """Return the spikes of features as words, by a kernel of their own; None where there is none."""
        if x.ndim != 3 or not x.numel() or not is_plain(x) or _dispatch.choose("auto", x.device, x.dtype) != "numba":
            return None
        neuron = NEURONS[self.kind]
        rest = [getattr(self, own) if isinstance(own, str) else torch.tensor(own) for own in neuron.states.values()]
        return fused.spikes_as_bits(neuron, x, rest, self.prepared(), self.choices)


class Mean(Step):
    """The mean over dimensions.

    Args:
        dims: one or several, not the first.
        keepdim: whether they stay, with length 1.
    """

    def __init__(self, dims: Pair, keepdim: bool):
        super().__init__()
        self.dims, self.keepdim = [dims] if isinstance(dims, int) else list(dims), keepdim

    def options(self) -> dict[str, object]:
        return {"dims": self.dims, "keepdim": self.keepdim}

    def forward(self, value: Value) -> Tensor:
        x = as_float(value)
        if any(dim % x.ndim == 0 for dim in self.dims):
            raise ValueError(f"x: expected more dimensions for a mean over {self.dims}, got {tuple(x.shape)}")
        return x.mean(self.dims, self.keepdim)


class Quantize(Step):
    """Conversion of images to 256 levels.

    Args:
        low, high: the range of the images.
    """

    def __init__(self, low: float, high: float):
        super().__init__()
        self.quantize = hnn.QuantizeInput(low, high)

    def options(self) -> dict[str, object]:
        return {"low": self.quantize.low, "high": self.quantize.high}

    def forward(self, value: Value) -> Tensor:
        x = as_float(value)
        check_range(x, self.quantize.low, self.quantize.high, self.quantize.text)
        return self.quantize.levels_of(x)


class Threshold(Step):
    """Bits that are set where a value is greater than a shift.

    Args:
        levels: the values of a 0 and a 1.
        shift: (channels,), or None for 0.
    """

    shift: Tensor | None

    def __init__(self, levels: Sequence[int], shift: Tensor | None = None):
        super().__init__()
        self.levels = pair(levels)
        self.register_buffer("shift", shift)

    def forward(self, value: Value) -> Bits:
        x = as_float(value)
        if self.shift is not None:
            x = x - by_channel(self.shift, x)
        return _packed(x, self.levels, -3 if x.ndim == 4 else -1)

    def options(self) -> dict[str, object]:
        return {"levels": self.levels}


class MaxPool(Step):
    """The maximum of bits over windows, which is their OR.

    Args:
        window, stride, padding, dilation: for rows and columns.
        ceil_mode: as in `torch.nn.MaxPool2d`.
    """

    def __init__(self, window: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool):
        super().__init__()
        self.window, self.stride = pair(window), pair(stride)
        self.padding, self.dilation, self.ceil_mode = pair(padding), pair(dilation), ceil_mode
        check_window(Geometry(self.window, self.stride, self.padding, self.dilation, 1))

    def options(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("window", "stride", "padding", "dilation", "ceil_mode")}

    def forward(self, value: Bits) -> Bits:
        if len(value.shape) not in (3, 4):
            raise ValueError(f"x: expected (B, C, H, W) or (C, H, W) at MaxPool2d, got {value.shape}")
        value = _along(value, -3)
        words = value.words if value.words.ndim == 4 else value.words[None]
        if any(self.padding) and max(self.dilation) > 1:
            self._check_windows(words)
        out = reduce(torch.bitwise_or, self._taps(words).unbind(-2))
        return Bits(out.view(*value.words.shape[:-3], *out.shape[1:]), value.size, value.levels, -3)

    def _taps(self, words: Tensor) -> Tensor:
        """Return the words under each tap of the windows, (B, H', W', taps, K); outside the image all bits are 0."""
        (rows, below), (columns, right) = (self._fit(axis, words.shape[axis + 1]) for axis in (0, 1))
        up, left = self.padding
        x = torch.nn.functional.pad(words, (0, 0, left, left + right, up, up + below))
        under = windows(x, self.window, self.stride, (0, 0), self.dilation)[:, :rows, :columns]
        return under.unflatten(-1, (-1, words.shape[-1]))

    def _fit(self, axis: int, length: int) -> tuple[int, int]:
        """Return the number of windows, by torch's rule, and how far the last reaches beyond the padding."""
        step, padding = self.stride[axis], self.padding[axis]
        reach = self.dilation[axis] * (self.window[axis] - 1) + 1
        count = (length + 2 * padding - reach + (step - 1 if self.ceil_mode else 0)) // step + 1
        if self.ceil_mode and (count - 1) * step >= length + padding:
            count -= 1  # the last would start in the padding
        return count, max((count - 1) * step + reach - length - 2 * padding, 0)

    def _check_windows(self, words: Tensor) -> None:
        if not self._taps(torch.ones_like(words[:1, ..., :1])).any(-2).all():
            raise ValueError(
                f"x: expected an image that every window of MaxPool2d overlaps, got {tuple(words.shape[1:3])}; "
                f"dilation {self.dilation} skips it"
            )


class Geometry(NamedTuple):
    """A convolution's window and movement, for rows and columns, and its groups."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


def check_window(where: Geometry) -> None:
    """Raise ValueError unless a window, and how it moves, are possible."""
    least = {"window": 1, "stride": 1, "padding": 0, "dilation": 1}
    for name, smallest in least.items():
        if min(getattr(where, name)) < smallest:
            raise ValueError(f"{name}: expected integers >= {smallest}, got {getattr(where, name)}")
    if where.groups < 1:
        raise ValueError(f"groups: expected an integer >= 1, got {where.groups}")


def geometry(window: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Geometry:
    """Return a `Geometry` from values as a module or JSON has them."""
    return Geometry(pair(window), pair(stride), pair(padding), pair(dilation), groups)


class _Product(Step):
    """A linear layer or convolution over bits, up to its thresholds or its real result.

    Args:
        weight: (O, n), or (O, C / groups, kH, kW).
        levels: the values of an input bit.
        batched: whether x has to be (B, n) or (B, C, H, W), as a folded BatchNorm or shift requires; otherwise any
            shape that the layer takes in floating point.
        thresholds: int32 (O,); with them the results are bits.
        out_levels: the values of a resulting bit; None without thresholds.
        factor: float32 (O,), by which the sums are multiplied if there are no thresholds.
        bias: (O,), or None.
        where: the geometry of a convolution; None for a linear layer.
    """

    thresholds: Tensor | None
    factor: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        levels: Sequence[int],
        *,
        batched: bool,
        thresholds: Tensor | None = None,
        out_levels: Sequence[int] | None = None,
        factor: Tensor | None = None,
        bias: Tensor | None = None,
        where: Geometry | None = None,
    ):
        super().__init__()
        self.shape, self.levels, self.out_levels = tuple(weight.shape), pair(levels), pair(out_levels or levels)
        self.batched, self.where = batched, where
        self.groups, self.axis = (1, -1) if where is None else (where.groups, -3)
        if where is not None:
            check_window(where)
            if where.window != self.shape[2:] or len(weight) % where.groups:
                raise ValueError(f"where: expected the window and groups of a weight {self.shape}, got {where}")
        for name, value in {"thresholds": thresholds, "factor": factor, "bias": bias}.items():
            if value is not None and value.shape != weight.shape[:1]:
                raise ValueError(f"{name}: expected one number per output, {len(weight)}, got {tuple(value.shape)}")
            self.register_buffer(name, value)
        self._register_weight(weight)

    def _register_weight(self, weight: Tensor) -> None:
        raise NotImplementedError

    def options(self) -> dict[str, object]:
        where = None if self.where is None else self.where._asdict()
        return {"levels": self.levels, "batched": self.batched, "out_levels": self.out_levels, "where": where}

    def _saved(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        tensors = {"thresholds": self.thresholds, "factor": self.factor, "bias": self.bias, name: weight}
        return {name: value for name, value in tensors.items() if value is not None}

    def _check(self, value: Value) -> None:
        size, shape = self.shape[1] * self.groups, tuple(value.shape)
        if self.where is None:
            fits, expected = len(shape) == 2 or (len(shape) > 0 and not self.batched), f"(B, {size})"
        else:
            fits, expected = len(shape) == 4 or (len(shape) == 3 and not self.batched), f"(B, {size}, H, W)"
        if not fits:
            raise ValueError(f"x: expected {expected} at this layer, got {shape}")
        if shape[self.axis] != size:
            raise ValueError(f"x: expected {size} features or channels at this layer, got {shape[self.axis]}")

    def _finished(self, sums: Tensor) -> Value:
        if self.thresholds is not None:
            return Bits(pack_bits(sums > self.thresholds), sums.shape[-1], self.out_levels, self.axis)
        x = sums.float()
        if self.factor is not None:
            x = x * self.factor
        if self.bias is not None:
            x = x + self.bias
        return _moved(x, self.axis)

    def _parts(self, words: Tensor, size: int) -> list[Tensor]:
        """Return the words of each group."""
        if self.groups == 1:
            return [words]
        return [pack_bits(part) for part in unpack_bits(words, size).chunk(self.groups, -1)]


class BinaryProduct(_Product):
    """A product with the signs of a weight."""

    def _register_weight(self, weight: Tensor) -> None:
        for group, part in enumerate(weight.chunk(self.groups)):
            packed = pack_weight(part)
            for name in ("words", "ones", "tap_sums"):
                self.register_buffer(f"{name}_{group}", getattr(packed, name))

    def options(self) -> dict[str, object]:
        return super().options() | {"shape": self.shape}

    def tensors(self) -> dict[str, Tensor]:
        return self._saved("signs", pack_bits(self.signs().flatten(1)))

    def _weight(self, group: int) -> BinaryWeight:
        words, ones, tap_sums = (getattr(self, f"{name}_{group}") for name in ("words", "ones", "tap_sums"))
        window = None if self.where is None else self.where.window
        return BinaryWeight(words, ones, tap_sums, math.prod(self.shape[1:]), window)

    def signs(self) -> Tensor:
        """Return the weight as -1 and +1, float32."""
        parts = []
        for group in range(self.groups):
            weight = self._weight(group)
            words = weight.words.T[: len(weight.ones)].unflatten(1, (len(weight.tap_sums), -1))
            parts.append(unpack_bits(words, self.shape[1]).movedim(-1, 1).reshape(-1, *self.shape[1:]))
        return torch.cat(parts).float() * 2 - 1

    def forward(self, value: Value) -> Value:
        self._check(value)
        if isinstance(value, Tensor):
            return self._finished(self._level_sums(value))
        value = _along(value, self.axis)
        if self.groups == 1 and self.thresholds is not None:
            words = self._sums(value.words, 0, self.thresholds)
            return Bits(words, self.shape[0], self.out_levels, self.axis)
        parts = self._parts(value.words, value.size)
        return self._finished(torch.cat([self._sums(part, group) for group, part in enumerate(parts)], -1))

    def _level_sums(self, levels: Tensor) -> Tensor:
        if self.where is None:
            return level_linear(levels, self._weight(0))
        _, stride, padding, dilation, groups = self.where
        # Exact: sums of 2**44 levels fit into a double.
        sums = conv2d(levels.double(), self.signs().double(), None, stride, padding, dilation, groups)
        return sums.movedim(-3, -1).to(torch.int32)

    def _sums(self, words: Tensor, group: int, thresholds: Tensor | None = None) -> Tensor:
        weight = self._weight(group)
        if self.where is None:
            return linear_of_bits(words, weight, self.levels, thresholds)
        image = words if words.ndim == 4 else words[None]
        sums = conv2d_of_bits(image, weight, *self.where[1:4], self.levels, thresholds)
        return sums if words.ndim == 4 else sums[0]


class HeavisideProduct(_Product):
    """A product with an integer weight, int32, times `factor`."""

    weight: Tensor
    rows_0: Tensor

    def _register_weight(self, weight: Tensor) -> None:
        self.register_buffer("weight", weight)
        for group, part in enumerate(weight.chunk(self.groups)):
            self.register_buffer(f"rows_{group}", _rows(part).to(smallest_type(weight)))

    def tensors(self) -> dict[str, Tensor]:
        return self._saved("weight", self.weight.to(smallest_type(self.weight)))

    def forward(self, value: Bits) -> Value:
        self._check(value)
        value = _along(value, self.axis)
        words = value.words if self.where is None or value.words.ndim == 4 else value.words[None]
        if self.thresholds is None and self.factor is not None and self.levels == (0, 1) and self.groups == 1:
            words = words if self.where is None else windows(words, *self.where[:4])
            # To add -0.0 changes nothing, not even -0.0.
            bias = torch.full_like(self.factor, -0.0) if self.bias is None else self.bias
            x = heaviside_values(words, self.rows_0, self.factor, bias)
            return _moved(x if x.ndim == value.words.ndim else x[0], self.axis)
        if self.where is None:
            sums = heaviside_sums(words, self.rows_0)
            if self.levels[0]:
                sums = 2 * sums - self.weight.sum(1, dtype=torch.int32)
            return self._finished(sums)
        sums = self._image_sums(words, value.size, self.where)
        return self._finished(sums if value.words.ndim == 4 else sums[0])

    def _image_sums(self, words: Tensor, size: int, where: Geometry) -> Tensor:
        parts = [windows(part, *where[:4]) for part in self._parts(words, size)]
        sums = torch.cat([heaviside_sums(p, getattr(self, f"rows_{group}")) for group, p in enumerate(parts)], -1)
        if self.levels[0]:
            inside = windows(torch.ones_like(words[:1, ..., :1]), *where[:4]).double()
            taps = self.weight.sum(1).flatten(1).T.double()
            sums = 2 * sums - (inside @ taps).to(torch.int32)
        return sums


def smallest_type(weight: Tensor) -> torch.dtype:
    """Return the smallest signed type that holds integers."""
    largest = int(weight.abs().max()) if weight.numel() else 0
    return torch.int8 if largest < 2**7 else torch.int16 if largest < 2**15 else torch.int32


def _rows(weight: Tensor) -> Tensor:
    """Return integer weights by input: (n, O), or (64 * words * taps, O) in the order of the bits of `windows`."""
    if weight.ndim == 2:
        return weight.T.contiguous()
    taps = weight.flatten(2).permute(2, 1, 0)
    return torch.nn.functional.pad(taps, (0, 0, 0, -taps.shape[1] % 64)).flatten(0, 1).contiguous()


STEPS: tuple[type[Step], ...] = (
    Add, BinaryProduct, Cat, Flatten, FromRows, HeavisideProduct, MaxPool, Mean, MeanOverTime, Neurons, Quantize,
    Threshold, ToRows,
)  # fmt: skip
ON_BITS = (BinaryProduct, HeavisideProduct, MaxPool, Neurons, Threshold)
"""The steps whose inputs or results are bits; the others pass values on or compute in floating point."""
