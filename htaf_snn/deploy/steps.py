"""The steps of a packed network other than its products, and all of them in `STEPS`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from .. import nn as hnn
from .._checks import is_plain
from ..functional.bits import windows
from ..functional.sequences import run
from ..kernels import _dispatch
from ..kernels.neuron import fused
from ..models.spiking import check_frames
from ..neurons import NEURONS
from ..nn.binary import by_channel
from ..nn.quantizing import check_range
from .products import BinaryProduct, HeavisideProduct
from .values import Bits, Geometry, Pair, Step, Value, along, as_float, as_new, check_window, of_levels, packed, pair


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

    def in_floats(self, *values: Value) -> Tensor:
        return torch.cat([as_float(value) for value in values], 1)

    def forward(self, *values: Value) -> Value:
        x = self.in_floats(*values)
        return x if self.levels is None else packed(x, self.levels, -3 if x.ndim == 4 else -1)


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
        return value if value.words.ndim == 2 else packed(as_float(value).flatten(1), value.levels, -1)


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
        y = self._spikes(x)
        return packed(y, (0, 1), -3 if y.ndim == 4 else -1) if self.is_packed else y

    def in_floats(self, rows: Tensor, frames: Tensor) -> Tensor:
        y = self._spikes(_over_time(rows, frames))
        return as_new(y) if self.is_packed else y

    def _spikes(self, x: Tensor) -> Tensor:
        given: dict[str, Any] = self.choices | self._buffers
        return run(NEURONS[self.kind], x, **given)[0].flatten(0, 1)

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
        x = self._shifted(value)
        return packed(x, self.levels, -3 if x.ndim == 4 else -1)

    def in_floats(self, value: Tensor) -> Tensor:
        return as_new(of_levels(self._shifted(value) > 0, self.levels))

    def _shifted(self, value: Value) -> Tensor:
        x = as_float(value)
        return x if self.shift is None else x - by_channel(self.shift, x)

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
        value = along(value, -3)
        words = value.words if value.words.ndim == 4 else value.words[None]
        if any(self.padding) and max(self.dilation) > 1:
            self._check_windows(words)
        out = reduce(torch.bitwise_or, self._taps(words).unbind(-2))
        return Bits(out.view(*value.words.shape[:-3], *out.shape[1:]), value.size, value.levels, -3)

    def in_floats(self, value: Tensor) -> Tensor:
        return max_pool2d(value, self.window, self.stride, self.padding, self.dilation, self.ceil_mode)

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


STEPS: tuple[type[Step], ...] = (
    Add, BinaryProduct, Cat, Flatten, FromRows, HeavisideProduct, MaxPool, Mean, MeanOverTime, Neurons, Quantize,
    Threshold, ToRows,
)  # fmt: skip
ON_BITS = (BinaryProduct, HeavisideProduct, MaxPool, Neurons, Threshold)
"""The steps whose inputs or results are bits; the others pass values on or compute in floating point."""
