"""The C of single steps: text for constants, helpers, and the bodies of functions that read x0, x1, … and write out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..nn import RPReLU
from .steps import Add, Cat, Mean
from .values import Geometry, geometry

BYTES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "uint32_t": 4, "float": 4}


class Array(NamedTuple):
    """A value of the network in C.

    Attributes:
        name: of the array.
        kind: "uint8_t" levels of an image, "uint32_t" words of bits, or "float".
        shape: (features,) or (C, H, W), without the batch. Floats and levels lie in this order; bits along features or
            channels, a whole number of words for each pixel.
        levels: the values of a 0 and a 1 in bits.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    levels: tuple[int, int] = (0, 1)

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape with a height and a width."""
        channels, height, width = (*self.shape, 1, 1)[:3]
        return channels, height, width

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return math.prod(self.shape[1:])

    @property
    def words(self) -> int:
        """Words per pixel."""
        return words(self.shape[0])

    @property
    def length(self) -> int:
        """Elements."""
        return self.pixels * (self.words if self.kind == "uint32_t" else self.shape[0])


def words(size: int) -> int:
    """Return the number of words of so many bits."""
    return -(-size // 32)


def c_type(values: np.ndarray) -> str:
    """Return the C type of an array's elements."""
    return "float" if values.dtype == np.float32 else f"{values.dtype}_t"


def packed(bits: np.ndarray) -> np.ndarray:
    """Return the words of bits along the last dimension, the first bit lowest."""
    padded = np.pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, -bits.shape[-1] % 32)])
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4").astype(np.uint32)


def literal(value: float, kind: str) -> str:
    """Return a number as C has it, exactly."""
    if kind == "uint32_t":
        return f"0x{value:08x}u"
    return f"{float(value).hex()}f" if kind == "float" else str(value)


def constant(name: str, values: np.ndarray, title: str) -> str:
    """Return the definition of a constant array; its title is for messages.

    Raises:
        ValueError: if a number is not finite.
    """
    kind, flat = c_type(values), values.reshape(-1)
    if kind == "float" and not np.isfinite(flat).all():
        raise ValueError(f"{title}: expected finite numbers for C, got infinity or NaN")
    digits, per_line = [literal(value, kind) for value in flat], {"uint32_t": 9, "float": 5}.get(kind, 20)
    lines = [", ".join(digits[i : i + per_line]) for i in range(0, len(digits), per_line)]
    return f"static const {kind} {name}[{len(flat)}] = {{\n    " + ",\n    ".join(lines) + "\n};"


_AT_ONES = """static int32_t sum_at_ones_{kind}(const uint32_t *x, const {kind} *weight, int n)
{{
    int32_t sum = 0;
    for (int i = 0; i < n; i++)
        if (get(x, i)) sum += weight[i];
    return sum;
}}"""

HELPERS = {
    "get": """static uint32_t get(const uint32_t *words, int i)
{
    return (words[i / 32] >> (i % 32)) & 1u;
}""",
    "set": """static void set(uint32_t *words, int i)
{
    words[i / 32] |= (uint32_t)1 << (i % 32);
}""",
    "count": """static int32_t count(uint32_t word)
{
    word -= (word >> 1) & 0x55555555u;
    word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
    return (int32_t)((((word + (word >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24);
}""",
    "sum_of_signs": """static int32_t sum_of_signs(const uint32_t *x, const uint32_t *weight, int n)
{
    int32_t different = 0;
    for (int k = 0; k < (n + 31) / 32; k++) different += count(x[k] ^ weight[k]);
    return n - 2 * different;
}""",
    "sum_of_ones": """static int32_t sum_of_ones(const uint32_t *x, const uint32_t *weight, int n)
{
    int32_t sum = 0;
    for (int k = 0; k < (n + 31) / 32; k++) sum += 2 * count(x[k] & weight[k]) - count(x[k]);
    return sum;
}""",
    "sum_of_levels": """static int32_t sum_of_levels(const uint8_t *x, int step, const uint32_t *weight, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += get(weight, i) ? x[i * step] : -x[i * step];
    return sum;
}""",
    **{f"sum_at_ones_{kind}": _AT_ONES.format(kind=kind) for kind in ("int8_t", "int16_t", "int32_t")},
}
"""Functions by their names; each needs only earlier ones."""


def each_window(where: Geometry, given: Array, shape: tuple[int, ...], start: str, each: str, end: str) -> str:
    """Return a loop over the pixels i of the result that does `each` at the pixel (y, z) under each tap (r, s)."""
    _, in_height, in_width = given.image
    _, height, width = (*shape, 1, 1)[:3]
    down, right, up, left, apart, aside = (*where.stride, *where.padding, *where.dilation)
    return f"""for (int i = 0; i < {height * width}; i++) {{
    {start}
    for (int r = 0; r < {where.window[0]}; r++)
        for (int s = 0; s < {where.window[1]}; s++) {{
            const int y = i / {width} * {down} + r * {apart} - {up}, z = i % {width} * {right} + s * {aside} - {left};
            if (y < 0 || y >= {in_height} || z < 0 || z >= {in_width}) continue;
            {each}
        }}
    {end}
}}"""


def indented(text: str) -> str:
    """Return lines moved to the right."""
    return "\n".join(f"    {line}" if line else "" for line in text.split("\n"))


def threshold(given: Array, out: Array, shift: str) -> str:
    """Return a body that sets the bits of values above a shift."""
    return f"""memset(out, 0, sizeof(uint32_t) * {out.length});
for (int c = 0; c < {given.shape[0]}; c++)
    for (int i = 0; i < {given.pixels}; i++)
        if (x0[c * {given.pixels} + i] - {shift} > 0.0f) set(out + i * {out.words}, c);"""


def as_float(given: Array, step: float, low: float, high: float) -> str:
    """Return a body that writes bits or the bytes of an image as floats.

    Args:
        given: the bits or bytes.
        step: of quantized images.
        low, high: the range of others.
    """
    if given.kind == "uint8_t":
        value = f"(float)x0[i] * {literal(step, 'float')}" if given.levels == (0, 255) else "(float)x0[i] / 255.0f"
        if given.levels != (0, 255) and (low, high) != (0.0, 1.0):
            value = f"{literal(low, 'float')} + {value} * {literal(high - low, 'float')}"
        return f"for (int i = 0; i < {given.length}; i++) out[i] = {value};"
    lower, upper = (f"{level}.0f" for level in given.levels)
    return f"""for (int c = 0; c < {given.shape[0]}; c++)
    for (int i = 0; i < {given.pixels}; i++)
        out[c * {given.pixels} + i] = get(x0 + i * {given.words}, c) ? {upper} : {lower};"""


def moved_bits(given: Array, out: Array, place: str) -> str:
    """Return a body that copies bits, those of channel c at pixel i to a place."""
    return f"""memset(out, 0, sizeof(uint32_t) * {out.length});
for (int c = 0; c < {given.shape[0]}; c++)
    for (int i = 0; i < {given.pixels}; i++)
        if (get(x0 + i * {given.words}, c)) set({place});"""


_UNITS = {
    nn.ReLU: "v > 0.0f ? v : 0.0f",
    nn.ReLU6: "v > 6.0f ? 6.0f : v > 0.0f ? v : 0.0f",
    nn.LeakyReLU: "v > 0.0f ? v : v * {negative_slope}",
    nn.Hardtanh: "v > {max_val} ? {max_val} : v < {min_val} ? {min_val} : v",
}
"""Activations of one value v."""


def of_floats(
    step: nn.Module, given: Sequence[Array], shape: tuple[int, ...], constant: Callable[[str, Tensor], str]
) -> str | None:
    """Return the body of a step in floating point; None if it has none.

    Args:
        step: of `modules.MODULES`, or an `Add`, `Cat` or `Mean`.
        given: its values.
        shape: of the result.
        constant: adds an array of a name and values, and returns its name in C.
    """
    x, length = given[0], math.prod(shape)
    if isinstance(step, Add):
        if any(array.shape != shape for array in given):
            return None
        return f"for (int i = 0; i < {length}; i++) out[i] = x0[i] + x1[i];"
    if isinstance(step, Cat):
        starts = [sum(array.length for array in given[:n]) for n in range(len(given))]
        copies = (f"memcpy(out + {start}, x{n}, sizeof(float) * {given[n].length});" for n, start in enumerate(starts))
        return "\n".join(copies)
    if isinstance(step, (nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU, RPReLU)):
        value = _by_channel(step, shape[0], constant)
        return f"""for (int c = 0; c < {shape[0]}; c++)
    for (int n = c * {x.pixels}; n < (c + 1) * {x.pixels}; n++) {{
        float v = x0[n];
        {value}
        out[n] = v;
    }}"""
    if type(step) in _UNITS:
        numbers = {
            name: literal(value, "float") for name, value in vars(step).items() if isinstance(value, (int, float))
        }
        unit = _UNITS[type(step)].format(**numbers)
        return f"for (int i = 0; i < {length}; i++) {{\n    const float v = x0[i];\n    out[i] = {unit};\n}}"
    if isinstance(step, nn.Linear):
        if len(x.shape) > 1:
            return None
        bias = "0.0f" if step.bias is None else f"{constant('bias', step.bias)}[o]"
        weight = f"{constant('weight', step.weight)}[o * {step.in_features} + i]"
        return f"""for (int o = 0; o < {shape[0]}; o++) {{
    float sum = 0.0f;
    for (int i = 0; i < {step.in_features}; i++) sum += x0[i] * {weight};
    out[o] = sum + {bias};
}}"""
    if isinstance(step, nn.Conv2d):
        return _convolution(step, x, shape, constant)
    return _pool(step, x, shape)


def _by_channel(step: nn.Module, channels: int, constant: Callable[[str, Tensor], str]) -> str:
    """Return what changes a value v of channel c."""
    if isinstance(step, (nn.BatchNorm1d, nn.BatchNorm2d)):
        assert step.running_mean is not None and step.running_var is not None
        one = torch.ones(channels)
        scale = (1 / (step.running_var + step.eps).sqrt()) * (one if step.weight is None else step.weight)
        bias = (0 * one if step.bias is None else step.bias) - step.running_mean * scale
        return f"v *= {constant('scale', scale)}[c];\n        v += {constant('bias', bias)}[c];"
    assert isinstance(step, (nn.PReLU, RPReLU))
    slope = step.weight if isinstance(step, nn.PReLU) else step.slope
    lines = [f"v = v > 0.0f ? v : v * {constant('slope', slope.expand(channels))}[c];"]
    if isinstance(step, RPReLU):
        lines = [f"v -= {constant('before', step.before)}[c];", *lines, f"v += {constant('after', step.after)}[c];"]
    return "\n        ".join(lines)


def _convolution(
    step: nn.Conv2d, x: Array, shape: tuple[int, ...], constant: Callable[[str, Tensor], str]
) -> str | None:
    if step.padding_mode != "zeros" or isinstance(step.padding, str):
        return None
    where = geometry(step.kernel_size, step.stride, step.padding, step.dilation, step.groups)
    _, height, width = x.image
    taps, own, first = math.prod(where.window), step.in_channels // step.groups, "c"
    if step.groups > 1:
        first = f"(o / {step.out_channels // step.groups} * {own} + c)"
    weight = f"{constant('weight', step.weight)}[(o * {own} + c) * {taps} + r * {where.window[1]} + s]"
    value = f"x0[({first} * {height} + y) * {width} + z]"
    each = f"for (int c = 0; c < {own}; c++) sum += {value} * {weight};"
    bias = "0.0f" if step.bias is None else f"{constant('bias', step.bias)}[o]"
    end = f"out[o * {shape[1] * shape[2]} + i] = sum + {bias};"
    return f"for (int o = 0; o < {shape[0]}; o++)\n" + indented(
        each_window(where, x, shape, "float sum = 0.0f;", each, end)
    )


def _pool(step: nn.Module, x: Array, shape: tuple[int, ...]) -> str | None:
    """Return the body of a pool or mean over an image."""
    channels, height, width = x.image
    if isinstance(step, (nn.MaxPool2d, nn.AvgPool2d)):
        dilation = step.dilation if isinstance(step, nn.MaxPool2d) else 1
        where = geometry(step.kernel_size, step.stride, step.padding, dilation, 1)
        value, end = f"x0[(o * {height} + y) * {width} + z]", "out[o * {} + i] = {};"
        if isinstance(step, nn.MaxPool2d):
            parts = "float best = -3.402823466e38f;", f"if ({value} > best) best = {value};", "best"
        else:
            parts = "float sum = 0.0f; int taps = 0;", f"sum += {value}; taps++;", "sum / (float)taps"
            if step.divisor_override or step.count_include_pad:
                parts = "float sum = 0.0f;", f"sum += {value};", f"sum / {_divisor(step, where, x, shape)}"
        windows = each_window(where, x, shape, *parts[:2], end.format(math.prod(shape[1:]), parts[2]))
        return f"for (int o = 0; o < {channels}; o++)\n" + indented(windows)
    is_mean = isinstance(step, Mean) and len(x.shape) == 3 and {dim % 4 for dim in step.dims} == {2, 3}
    if is_mean or (isinstance(step, nn.AdaptiveAvgPool2d) and math.prod(shape[1:]) == 1 and len(x.shape) == 3):
        return f"""for (int c = 0; c < {channels}; c++) {{
    float sum = 0.0f;
    for (int i = 0; i < {x.pixels}; i++) sum += x0[c * {x.pixels} + i];
    out[c] = sum / {x.pixels}.0f;
}}"""
    return None


def _divisor(step: nn.AvgPool2d, where: Geometry, x: Array, shape: tuple[int, ...]) -> str:
    """Return what divides the sum of window i: a number, or the taps within the padded image where it juts out."""
    if step.divisor_override or not step.ceil_mode:
        return f"{step.divisor_override or math.prod(where.window)}.0f"
    taps, first = [], (f"i / {shape[2]}", f"i % {shape[2]}")
    for axis, (window, stride, padding) in enumerate(zip(where.window, where.stride, where.padding, strict=True)):
        left = f"{x.image[axis + 1] + 2 * padding} - {first[axis]} * {stride}"
        taps.append(f"({left} < {window} ? {left} : {window})")
    return f"(float)({' * '.join(taps)})"
