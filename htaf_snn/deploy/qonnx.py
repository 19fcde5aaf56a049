"""Export of packed networks to QONNX, the ONNX dialect of Brevitas, FINN and hls4ml for few bits."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .._files import replacing
from .._packages import needs
from ..nn.quantizing import INPUT_STEP
from . import steps
from .network import PackedNetwork
from .products import Product, smallest_type
from .values import Geometry, check_shape, geometry

if TYPE_CHECKING:
    import onnx

DOMAIN, OPSET = "qonnx.custom_op.general", 18
_BY_ELEMENT = {"Add", "BipolarQuant", "Div", "Mul", "Neg", "Quant", "Relu", "Sub"}
_MOST = 2**23
"""Whole numbers below it have halves between them in float32. Sums of Heaviside layers do not reach it."""


def export_qonnx(network: PackedNetwork, path: str | PathLike, shape: Sequence[int], batch: int = 1) -> None:
    """Write a packed network to a QONNX file, with bipolar weights and activations as `BipolarQuant`.

    Integer weights, of Heaviside layers, and an image's levels are `Quant` nodes. Sums are whole numbers, compared with
    thresholds half way between them, so that `qonnx` computes the packed network's bits:

        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        model = ModelWrapper("net.onnx")
        scores = execute_onnx(model, {"x": images})[model.graph.output[0].name]

    `images` is a NumPy array of float32, (batch, *shape). The number of images is fixed in the file, at 1 unless
    `batch` says otherwise.

    Args:
        network: from `pack` or `load`, on the CPU; its layers in floating point among Linear, Conv2d with zero padding,
            BatchNorm, ReLU, adaptive pools to one pixel, means, additions and concatenations.
        path: file to write; an existing one is replaced.
        shape: of one image, (C, H, W) or (features,).
        batch: number of images that the file takes at once.

    Raises:
        ImportError: if onnx is not installed.
        TypeError: if the network is not packed.
        ValueError: if a layer cannot be written, the network is a spiking one, or it does not take the shape.

    Example:
        >>> import pathlib, tempfile
        >>> from htaf_snn import deploy, models
        >>> packed = deploy.pack(models.BinaryMLP(64, [32], 10).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_qonnx(packed, pathlib.Path(folder, "net.onnx"), (1, 8, 8))
        ...     pathlib.Path(folder, "net.onnx").exists()
        True
    """
    onnx = require_onnx()
    if not isinstance(network, PackedNetwork):
        raise TypeError(f"network: expected a packed network, got {type(network).__name__}; see deploy.pack")
    if network.is_over_time:
        raise ValueError("network: expected a network of images for QONNX, got a spiking one; see export_c")
    if type(batch) is not int or batch < 1:
        raise ValueError(f"batch: expected an integer >= 1, got {batch!r}")
    check_shape(shape)
    with torch.no_grad():
        x = torch.full((batch, *shape), network.image_range()[0])
        scores = network(x)
        graph = Graph(network, [tuple(value.shape) for value in network.values(x)])
    kind = onnx.TensorProto.FLOAT
    helper = onnx.helper
    start = helper.make_tensor_value_info("x", kind, x.shape)
    end = helper.make_tensor_value_info(graph.scores, kind, scores.shape)
    # qonnx runs a file only if it has the shape of every value.
    between = [
        helper.make_tensor_value_info(name, kind, graph.shapes[name])
        for node in graph.nodes for name in node.output if name != graph.scores
    ]  # fmt: skip
    made = helper.make_graph(graph.nodes, "htaf_snn", [start], [end], graph.constants, value_info=between)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(made, opset_imports=opsets, producer_name="htaf_snn", ir_version=9)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(model.SerializeToString())


def require_onnx() -> ModuleType:
    """Return onnx; raise ImportError with the remedy if it is not installed."""
    with needs("qonnx"):
        import onnx
    return onnx


class Graph:
    """The nodes and constants of a network; each value has a name.

    Args:
        network: from `pack` or `load`.
        shapes: of the network's values, with the batch.

    Attributes:
        nodes, constants: of the graph.
        shapes: of all values and constants, by their names.
        scores: the name of the result.
    """

    def __init__(self, network: PackedNetwork, shapes: Sequence[tuple[int, ...]]):
        self._of_values, self.shapes = shapes, {"x": shapes[0]}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        names, levels = {0: "x"}, set[int]()
        for i, (step, inputs) in enumerate(zip(network.steps, network.inputs, strict=True)):
            self._i, self._layer = i, network.names[i]
            keeps = isinstance(step, (steps.BinaryProduct, steps.Flatten))
            scaled = {number for number in inputs if number in levels and not keeps}
            given = [
                self._of_one("Mul", names[number], INPUT_STEP) if number in scaled else names[number]
                for number in inputs
            ]
            if isinstance(step, steps.Quantize) or (isinstance(step, steps.Flatten) and inputs[0] in levels):
                levels.add(i + 1)
            names[i + 1] = self._step(step, given)
        self.scores = names[network.output]
        if network.output in levels:
            self.scores = self._of_one("Mul", self.scores, INPUT_STEP)

    def _constant(self, values: Tensor | float | Sequence[int], kind: type = np.float32) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        array: np.ndarray = np.asarray(values.detach().numpy() if isinstance(values, Tensor) else values, kind)
        self.constants.append(numpy_helper.from_array(array, name))
        self.shapes[name] = array.shape
        return name

    def _add(self, kind: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its result."""
        from onnx import helper

        name = f"value_{len(self.nodes)}"
        title = f"step_{self._i}_{name}"
        self.nodes.append(helper.make_node(kind, [*inputs], [name], title, domain=domain, **attributes))
        shape = self._of_values[self._i + 1]
        if kind in _BY_ELEMENT:
            shape = tuple(torch.broadcast_shapes(*(self.shapes[own] for own in inputs)))
        self.shapes[name] = shape
        return name

    def _of_one(self, kind: str, value: str, other: Tensor | float) -> str:
        return self._add(kind, [value, self._constant(other)])

    def _bipolar(self, value: str) -> str:
        """-1 below 0, and 1 from 0 on."""
        return self._add("BipolarQuant", [value, self._constant(1.0)], DOMAIN)

    def _above(self, value: str, limit: Tensor | float) -> str:
        """1 above a limit, otherwise -1: not where the limit minus the value is 0 or more."""
        return self._add("Neg", [self._bipolar(self._add("Sub", [self._constant(limit), value]))])

    def _quant(self, value: str, bits: int, signed: bool) -> str:
        inputs = [value, *(self._constant(number) for number in (1.0, 0.0, float(bits)))]
        return self._add("Quant", inputs, DOMAIN, signed=int(signed), narrow=0, rounding_mode="ROUND")

    def _with_levels(self, bipolar: str, levels: tuple[int, int]) -> str:
        if levels == (-1, 1):
            return bipolar
        return self._of_one("Add", self._of_one("Mul", bipolar, 0.5), 0.5)

    def _step(self, step: nn.Module, given: list[str]) -> str:
        if isinstance(step, steps.Quantize):
            x, low, high = given[0], step.quantize.low, step.quantize.high
            if (low, high) != (0.0, 1.0):
                x = self._of_one("Div", self._of_one("Sub", x, low), high - low)
            return self._quant(self._of_one("Mul", x, 255.0), 8, signed=False)
        if isinstance(step, steps.Threshold):
            by_channel = (1, -1) if len(self._of_values[self._i + 1]) == 2 else (1, -1, 1, 1)
            shift = 0.0 if step.shift is None else step.shift.view(by_channel)
            return self._with_levels(self._above(given[0], shift), step.levels)
        if isinstance(step, (steps.BinaryProduct, steps.HeavisideProduct)):
            return self._product(step, *given)
        if isinstance(step, steps.MaxPool):
            pads = [*step.padding, *step.padding]
            return self._add(
                "MaxPool", given, kernel_shape=step.window, strides=step.stride, pads=pads, dilations=step.dilation,
                ceil_mode=int(step.ceil_mode),
            )  # fmt: skip
        return self._floats(step, given)

    def _product(self, step: Product, value: str) -> str:
        if isinstance(step, steps.BinaryProduct):
            signs = step.signs()
            most = signs[0].numel() * 255  # of an image's levels
            if most >= _MOST:
                raise ValueError(f"{self._layer}: expected sums below 2**23 for QONNX, got up to {most}")
            weight = self._bipolar(self._constant(signs if step.where is not None else signs.T.contiguous()))
        else:
            assert isinstance(step, steps.HeavisideProduct)
            bits = {torch.int8: 8, torch.int16: 16, torch.int32: 25}[smallest_type(step.weight)]
            integers = step.weight.float()
            plain = integers if step.where is not None else integers.T.contiguous()
            weight = self._quant(self._constant(plain), bits, signed=True)
        if step.where is None:
            sums, shape = self._add("MatMul", [value, weight]), [1, -1]
        else:
            sums, shape = self._convolved(value, weight, step.where), [1, -1, 1, 1]
        if step.thresholds is not None:
            half = self._constant(step.thresholds.float().view(shape) + 0.5)
            return self._with_levels(self._bipolar(self._add("Sub", [sums, half])), step.out_levels)
        if step.factor is not None:
            sums = self._of_one("Mul", sums, step.factor.view(shape))
        return sums if step.bias is None else self._of_one("Add", sums, step.bias.view(shape))

    def _convolved(self, value: str, weight: str, where: Geometry) -> str:
        return self._add(
            "Conv", [value, weight], kernel_shape=where.window, strides=where.stride,
            pads=[*where.padding, *where.padding], dilations=where.dilation, group=where.groups,
        )  # fmt: skip

    def _floats(self, step: nn.Module, given: list[str]) -> str:
        if isinstance(step, steps.Add):
            return self._add("Add", given)
        if isinstance(step, steps.Cat):
            return self._add("Concat", given, axis=1)
        if isinstance(step, steps.Flatten):
            return self._add("Flatten", given, axis=1)
        if isinstance(step, steps.Mean):
            return self._add("ReduceMean", [*given, self._constant(step.dims, np.int64)], keepdims=int(step.keepdim))
        if isinstance(step, nn.ReLU):
            return self._add("Relu", given)
        if isinstance(step, nn.Linear):
            product = self._add("MatMul", [*given, self._constant(step.weight.T.contiguous())])
            return product if step.bias is None else self._of_one("Add", product, step.bias)
        if isinstance(step, nn.Conv2d) and step.padding_mode == "zeros" and not isinstance(step.padding, str):
            where = geometry(step.kernel_size, step.stride, step.padding, step.dilation, step.groups)
            product = self._convolved(given[0], self._constant(step.weight), where)
            return product if step.bias is None else self._of_one("Add", product, step.bias.view(1, -1, 1, 1))
        if isinstance(step, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert step.running_mean is not None and step.running_var is not None
            ones = torch.ones(step.num_features)
            own = [ones, 0 * ones] if step.weight is None else [step.weight, step.bias]
            values = [self._constant(value) for value in (*own, step.running_mean, step.running_var)]
            return self._add("BatchNormalization", [*given, *values], epsilon=step.eps)
        if isinstance(step, nn.AdaptiveAvgPool2d) and self._of_values[self._i + 1][2:] == (1, 1):
            return self._add("GlobalAveragePool", given)
        remedy = ""
        if isinstance(step, nn.MaxPool2d):
            remedy = "; move it behind the activation, where it is of bits"
        raise ValueError(f"{self._layer}: {step} cannot be written in QONNX{remedy}")
