"""Export of packed networks to C99: one file without dependencies, for microcontrollers too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from .._files import replacing
from ..neurons import NEURONS
from ..nn.quantizing import INPUT_STEP
from . import c_bodies, c_neurons, steps
from .c_bodies import BYTES, HELPERS, Array, c_type, packed, words
from .c_names import is_of_c
from .network import PackedNetwork, is_image
from .products import Product, smallest_type
from .values import Geometry, check_shape

_RESERVED = {*HELPERS, "image", "frame", "scores", "time_steps"}
_NO_SCORES = "    if (!scores) return -1;"


def export_c(network: PackedNetwork, path: str | PathLike, shape: Sequence[int]) -> dict[str, int]:
    """Write a packed network to a file of C99 that needs no library and allocates nothing.

    The file has one function, `int NAME(const uint8_t *image, float *scores)`, named as the file: it takes an image's
    bytes in the order (C, H, W), of which 0 and 255 are the ends of the range of `nn.QuantizeInput` or, without it, 0
    and 1; it writes the class scores, and returns the number of the highest. It is not reentrant, as its memory is
    static. Layers on bits compute in integers, with the results of the packed network. Layers in floating point may be
    rounded otherwise than torch does; then an activation whose input lies on its threshold may flip.

    A spiking network has two functions, and takes one frame at a time, as events come in: `void NAME_reset(void)`
    begins a sequence, and `int NAME_step(const float *frame, float *scores)` takes the next frame in the order
    (C, H, W). It writes the class scores of the frames since, those of the packed network after the last one, or, of a
    chain of spiking layers, this time step's values; it returns the number of the highest. With a null pointer for the
    scores it returns -1 and leaves the readout out. Neurons are computed by the operations of their own kernels.

    Args:
        network: from `pack` or `load`, on the CPU; its layers in floating point among Linear, Conv2d with zero padding,
            BatchNorm, ReLU, ReLU6, LeakyReLU, Hardtanh, PReLU, RPReLU, pools, means over images and additions; its
            neurons among those of plain arithmetic, without exponentials.
        path: file to write, NAME.c; an existing one is replaced.
        shape: of one image or frame, (C, H, W) or (features,).

    Returns:
        {"flash": bytes of the constant data, "ram": bytes of the static memory}; the program itself comes on top.

    Raises:
        TypeError: if the network is not packed.
        ValueError: if the name is not one of C, a layer cannot be written, or the network does not take the shape.

    Example:
        >>> import pathlib, tempfile
        >>> from htaf_snn import deploy, models
        >>> packed = deploy.pack(models.BinaryMLP(64, [32], 10).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_c(packed, pathlib.Path(folder, "net.c"), (1, 8, 8))["ram"]
        44
    """
    if not isinstance(network, PackedNetwork):
        raise TypeError(f"network: expected a packed network, got {type(network).__name__}; see deploy.pack")
    for key, value in network.named_buffers():
        if value.device.type != "cpu":
            raise ValueError(f"{key}: expected it on the CPU, got it on {value.device}")
    path = Path(path)
    name = path.stem
    is_free = name.isidentifier() and name.isascii() and name not in _RESERVED and not is_of_c(name)
    if path.suffix != ".c" or not is_free:
        expected = "NAME.c with a name for a function of C that C does not use itself, such as net.c"
        raise ValueError(f"path: expected {expected}, got {path.name!r}")
    check_shape(shape)
    source = Source(network, tuple(shape))
    with replacing(path) as temporary:
        temporary.write_text(source.text(name))
    return {"flash": source.flash, "ram": source.ram}


def check_quantized_first(taken: Sequence[tuple[nn.Module, Sequence[int]]], names: Sequence[str]) -> None:
    """Raise ValueError unless all of QuantizeInput among steps take the image itself, whose bytes are its levels."""
    for (step, inputs), name in zip(taken, names, strict=True):
        if isinstance(step, steps.Quantize) and not is_image(taken, inputs[0]):
            raise ValueError(f"{name}: expected QuantizeInput first for C, got it behind another layer")


class Source:
    """The parts of a file: constants, static memory, and a function for each step."""

    def __init__(self, network: PackedNetwork, shape: tuple[int, ...]):
        self.flash, self.shape = 0, shape
        self._constants: list[str] = []
        self._functions: list[str] = []
        self._calls: list[str] = []
        self._memory: dict[str, tuple[str, int]] = {}
        self._free: list[str] = []
        self._states: dict[str, int] = {}
        self._resets: list[str] = []
        self.is_over_time = network.is_over_time
        with torch.no_grad():
            check_quantized_first([*zip(network.steps, network.inputs, strict=True)], network.names)
            self._range = network.image_range()
            sample = (1, 1, *shape) if self.is_over_time else (1, *shape)
            results = network.values(torch.full(sample, self._range[0]))
            arrays = {0: Array("frame", "float", shape) if self.is_over_time else Array("image", "uint8_t", shape)}
            for i, (step, inputs) in enumerate(zip(network.steps, network.inputs, strict=True)):
                self._i, self._layer, out_shape = i, network.names[i], tuple(results[i + 1].shape[1:])
                arrays[i + 1] = self._step(step, [arrays[number] for number in inputs], out_shape)
                self._release({arrays[number].name for number in network.used_after(i) if number in arrays})
            self.scores = self._as_float(arrays[network.output])

    @property
    def ram(self) -> int:
        """Bytes of static memory."""
        own = sum(BYTES[kind] * length for kind, length in self._memory.values())
        return own + 4 * sum(self._states.values()) + (4 if self.is_over_time else 0)  # and the number of time steps

    def _about(self, name: str) -> str:
        size, classes = math.prod(self.shape), self.scores.length
        low, high = self._range
        does = f"""{name} takes the {size} bytes of an image {self.shape},
   writes {classes} scores and returns the number of the highest. It is not reentrant.
   The byte 0 is the value {low:g} of the network's input, and 255 is {high:g}, evenly spaced. A network that takes
   standardised images needs a BatchNorm (affine=False) in front, which standardises them."""
        if self.is_over_time:
            does = f"""{name}_reset begins a sequence, also the first. {name}_step
   takes its next frame, {size} floats {self.shape}, writes {classes} scores of the frames so far, and returns the
   number of the highest; or -1, without any, if scores is a null pointer. Neither is reentrant."""
        return (
            f"/* A network of htaf-snn. {does}\n"
            f"   Constant data: {self.flash} bytes. Static memory: {self.ram} bytes.\n"
            f"   Compile with -std=c99 or -ffp-contract=off: fused operations round the scores otherwise. */"
        )

    def text(self, name: str) -> str:
        """Return the file."""
        prototypes = [f"int {name}(const uint8_t *image, float *scores)"]
        if self.is_over_time:
            prototypes = [f"void {name}_reset(void)", f"int {name}_step(const float *frame, float *scores)"]
        helpers: list[str] = []
        needed = "\n".join(self._functions)
        for helper in reversed(HELPERS):
            if f"{helper}(" in needed:
                helpers.insert(0, HELPERS[helper])
                needed += HELPERS[helper].split("\n", 1)[1]
        wide = '#if INT_MAX < 2147483647\n#error "expected an int of 32 bits"\n#endif'
        start = [self._about(name), f"#include <limits.h>\n#include <stdint.h>\n#include <string.h>\n\n{wide}"]
        declared = "\n".join(f"{prototype};" for prototype in prototypes)
        bodies = [self._reset(), self._run()] if self.is_over_time else [self._run()]
        public = [f"{prototype}\n{{\n{body}\n}}" for prototype, body in zip(prototypes, bodies, strict=True)]
        parts = [*start, declared, *helpers, *self._constants, self._variables(), *self._functions, *public]
        return "\n\n".join(filter(None, parts)) + "\n"

    def _variables(self) -> str:
        lines = [f"static {kind} {own}[{length}];" for own, (kind, length) in self._memory.items()]
        lines += [f"static float {own}[{length}];" for own, length in self._states.items()]
        return "\n".join([*lines, "static int32_t time_steps;"] if self.is_over_time else lines)

    def _reset(self) -> str:
        return "\n".join([*self._resets, "    time_steps = 0;"])

    def _run(self) -> str:
        """Return the body of the function that computes the scores."""
        classes, calls = self.scores.length, self._calls
        if self.is_over_time:
            calls = ["    time_steps++;", *calls, *([] if _NO_SCORES in calls else [_NO_SCORES])]
        return "\n".join([
            *calls, f"    memcpy(scores, {self.scores.name}, sizeof(float) * {classes});",
            "    int best = 0;", f"    for (int i = 1; i < {classes}; i++)",
            "        if (scores[i] > scores[best]) best = i;", "    return best;",
        ])  # fmt: skip

    def _new(self, kind: str, shape: tuple[int, ...], levels: tuple[int, int] = (0, 1)) -> Array:
        """Return an array in memory that no other value needs any more, or in new memory."""
        length = Array("", kind, shape).length
        free = [name for name in self._free if self._memory[name][0] == kind]
        name = min(free, key=lambda own: abs(self._memory[own][1] - length), default=f"memory_{len(self._memory)}")
        if free:
            self._free.remove(name)
        self._memory[name] = (kind, max(length, self._memory.get(name, (kind, 0))[1]))
        return Array(name, kind, shape, levels)

    def _release(self, used: set[str]) -> None:
        """Make the memory free that no later step uses."""
        self._free = [name for name in self._memory if name not in used]

    def _constant(self, name: str, values: np.ndarray | Tensor) -> str:
        """Add a constant array of this step, once, and return its name."""
        title, name = f"{self._layer}: {name}", f"{name}_{self._i}"
        array = values.detach().numpy() if isinstance(values, Tensor) else values
        text = c_bodies.constant(name, array, title)
        if text not in self._constants:
            self._constants.append(text)
            self.flash += array.size * BYTES[c_type(array)]
        return name

    def _call(self, name: str, body: str, given: Sequence[Array], out: Array) -> Array:
        """Add a function with this body and its call, and return its result."""
        inputs = ", ".join(f"const {array.kind} *x{n}" for n, array in enumerate(given))
        self._functions.append(f"static void {name}({inputs}, {out.kind} *out)\n{{\n{c_bodies.indented(body)}\n}}")
        self._calls.append(f"    {name}({', '.join(array.name for array in given)}, {out.name});")
        return out

    def _as_float(self, array: Array) -> Array:
        if array.kind == "float":
            return array
        out = self._new("float", array.shape)
        return self._call(
            f"floats_{len(self._functions)}", c_bodies.as_float(array, INPUT_STEP, *self._range), [array], out
        )

    def _step(self, step: nn.Module, given: list[Array], shape: tuple[int, ...]) -> Array:
        """Add the functions of a step, and return its value."""
        name = f"step_{self._i}"
        if isinstance(step, steps.Quantize):
            return given[0]._replace(levels=(0, 255))
        if isinstance(step, steps.Flatten):
            return self._flatten(name, given[0], shape)
        if isinstance(step, (steps.BinaryProduct, steps.HeavisideProduct)):
            return self._product(name, step, given[0], shape)
        if isinstance(step, steps.MaxPool):
            return self._max_pool(name, step, given[0], shape)
        if isinstance(step, (steps.ToRows, steps.FromRows)):
            return given[0]  # the row of one time step
        if isinstance(step, steps.Neurons):
            return self._neurons(name, step, given[0], shape)
        if isinstance(step, steps.MeanOverTime):
            return self._mean_over_time(name, given[0], shape)
        floats = [self._as_float(array) for array in given]
        if isinstance(step, steps.Threshold):
            shift = "0.0f" if step.shift is None else f"{self._constant('shift', step.shift)}[c]"
            out = self._new("uint32_t", shape, step.levels)
            return self._call(name, c_bodies.threshold(floats[0], out, shift), floats, out)
        body = c_bodies.of_floats(step, floats, shape, self._constant)
        if body is None:
            remedy = (
                "; the highest score is the same without it" if isinstance(step, (nn.Softmax, nn.LogSoftmax)) else ""
            )
            raise ValueError(f"{self._layer}: {step} cannot be written in C{remedy}")
        result = self._call(name, body, floats, self._new("float", shape))
        if isinstance(step, steps.Cat) and step.levels is not None:
            out = self._new("uint32_t", shape, step.levels)
            return self._call(f"{name}_bits", c_bodies.threshold(result, out, "0.0f"), [result], out)
        return result

    def _state(self, name: str, length: int, rest: str) -> str:
        """Add an array that keeps its values from one time step to the next, and return its name."""
        name = f"{name}_{self._i}"
        self._states[name] = length
        self._resets.append(f"    for (int at = 0; at < {length}; at++) {name}[at] = {rest};")
        return name

    def _per_neuron(self, name: str, value: Tensor, shape: tuple[int, ...]) -> str:
        """Return the value of a parameter for the neuron `at`; those that differ become a constant array."""
        try:
            numbers, index = c_neurons.per_neuron(name, value, shape)
        except ValueError as error:
            raise ValueError(f"{self._layer}: {error}") from None
        one = numbers.numel() == 1
        return c_bodies.literal(numbers.item(), "float") if one else f"{self._constant(name, numbers)}[{index}]"

    def _neurons(self, name: str, step: steps.Neurons, array: Array, shape: tuple[int, ...]) -> Array:
        values = {own: self._per_neuron(own, value, shape) for own, value in step.prepared().items()}
        states = {}
        for own, rest in NEURONS[step.kind].states.items():
            given = getattr(step, rest) if isinstance(rest, str) else torch.tensor(rest)
            states[own] = self._state(own, math.prod(shape), self._per_neuron(f"rest_{own}", given, shape))
        x = self._as_float(array)
        out = self._new("uint32_t" if step.is_packed else "float", shape)
        try:
            body = c_neurons.neurons(step, out, states, values)
        except ValueError as error:
            raise ValueError(f"{self._layer}: {step.kind} cannot be written in C: it has {error}") from None
        return self._call(name, body, [x], out)

    def _mean_over_time(self, name: str, array: Array, shape: tuple[int, ...]) -> Array:
        x, sums = self._as_float(array), self._state("sum", math.prod(shape), "0.0f")
        out = self._new("float", shape)
        each = f"{sums}[at] += x0[at];\n    out[at] = {sums}[at] / (float)time_steps;"
        self._call(name, f"for (int at = 0; at < {out.length}; at++) {{\n    {each}\n}}", [x], out)
        self._calls.append(_NO_SCORES)  # the readout follows
        return out

    def _flatten(self, name: str, array: Array, shape: tuple[int, ...]) -> Array:
        if array.kind != "uint32_t" or array.pixels == 1:
            return array._replace(shape=shape)
        out = self._new("uint32_t", shape, array.levels)
        return self._call(name, c_bodies.moved_bits(array, out, f"out, c * {array.pixels} + i"), [array], out)

    def _product(self, name: str, step: Product, array: Array, shape: tuple[int, ...]) -> Array:
        if array.kind == "float" or len(array.shape) != (1 if step.where is None else 3):
            raise ValueError(f"{self._layer}: expected bits of a vector or an image for C, got {array.shape}")
        where = step.where or Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1)
        place, pixel, group = "", array.words, f"o / {shape[0] // where.groups}"
        if array.kind == "uint8_t":
            place, pixel = f" + {group} * {step.shape[1] * array.pixels}", 1
        elif where.groups > 1:  # each group of channels begins with a word of its own
            own = words(step.shape[1])
            grouped = self._new("uint32_t", (32 * own * where.groups, *array.shape[1:]), array.levels)
            to = f"out + i * {grouped.words} + c / {step.shape[1]} * {own}, c % {step.shape[1]}"
            array = self._call(f"{name}_groups", c_bodies.moved_bits(array, grouped, to), [array], grouped)
            place, pixel = f" + {group} * {own}", array.words
        dot = self._dot(step, array, f"x0 + (y * {array.image[2]} + z) * {pixel}{place}")
        out = self._new("float" if step.thresholds is None else "uint32_t", shape, step.out_levels)
        windows = c_bodies.each_window(
            where, array, shape, "int32_t sum = 0;", f"sum += {dot};", self._finish(step, out)
        )
        zero = "" if step.thresholds is None else f"memset(out, 0, sizeof(uint32_t) * {out.length});\n"
        body = f"{zero}for (int o = 0; o < {shape[0]}; o++)\n{c_bodies.indented(windows)}"
        return self._call(name, body, [array], out)

    def _dot(self, step: Product, array: Array, x: str) -> str:
        """Add the weight, and return the sum at one tap, (r, s) of output o."""
        size, taps = step.shape[1], math.prod(step.shape[2:])
        tap = "o" if step.where is None else f"(o * {taps} + r * {step.shape[3]} + s)"
        weight = step.signs() if isinstance(step, steps.BinaryProduct) else cast(steps.HeavisideProduct, step).weight
        rows = weight.reshape(len(weight), size, -1).movedim(1, -1).contiguous()  # (O, taps, size)
        if isinstance(step, steps.BinaryProduct):
            name = self._constant("weight", packed((rows > 0).numpy()))
            if array.kind == "uint8_t":
                return f"sum_of_levels({x}, {array.pixels}, {name} + {tap} * {words(size)}, {size})"
            kind = "signs" if array.levels == (-1, 1) else "ones"
            return f"sum_of_{kind}({x}, {name} + {tap} * {words(size)}, {size})"
        integers = rows.to(smallest_type(weight)).numpy()
        name = self._constant("weight", integers)
        dot = f"sum_at_ones_{c_type(integers)}({x}, {name} + {tap} * {size}, {size})"
        if array.levels == (0, 1):
            return dot
        return f"2 * {dot} - {self._constant('total', rows.sum(-1, dtype=torch.int32))}[{tap}]"

    def _finish(self, step: Product, out: Array) -> str:
        """Return what is done with the sum of output o at pixel i."""
        if step.thresholds is not None:
            return f"if (sum > {self._constant('threshold', step.thresholds)}[o]) set(out + i * {out.words}, o);"
        lines = ["float v = (float)sum;"]
        if step.factor is not None:
            lines.append(f"v *= {self._constant('factor', step.factor)}[o];")
        if step.bias is not None:
            lines.append(f"v += {self._constant('bias', step.bias)}[o];")
        return "\n    ".join([*lines, f"out[o * {out.pixels} + i] = v;"])

    def _max_pool(self, name: str, step: steps.MaxPool, array: Array, shape: tuple[int, ...]) -> Array:
        out, loop = self._new("uint32_t", shape, array.levels), f"for (int k = 0; k < {array.words}; k++)"
        where = Geometry(step.window, step.stride, step.padding, step.dilation, 1)
        start = f"{loop} out[i * {array.words} + k] = 0;"
        each = f"{loop} out[i * {array.words} + k] |= x0[(y * {array.image[2]} + z) * {array.words} + k];"
        return self._call(name, c_bodies.each_window(where, array, shape, start, each, ""), [array], out)
