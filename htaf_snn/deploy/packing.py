"""From a trained network to bits: its graph is read, and what lies between two packed layers becomes thresholds."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from .. import nn as hnn
from ..nn.binary import INPUT_STEP, exact_grid
from ..surrogate import Surrogate
from .network import PackedNetwork
from .steps import MODULES, BinaryProduct, HeavisideProduct, Quantize, Threshold

__all__ = ["pack"]

_PRODUCTS = (hnn.BinaryLinear, hnn.BinaryConv2d, hnn.HeavisideLinear, hnn.HeavisideConv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_FLATTENINGS = (torch.flatten,)
_INPUT_LEVELS = (0, 255)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        ours = isinstance(module, (*_PRODUCTS, hnn.BinaryActivation, hnn.QuantizeInput, hnn.RPReLU))
        return ours or super().is_leaf_module(module, name)


def pack(model: nn.Module) -> PackedNetwork:
    """A trained network whose binary and Heaviside layers compute in bits.

    Hidden bits equal the network's own bit for bit, where sums are exact (they are in float32, not under autocast):
    BatchNorm, scales, biases and shifts between two packed layers become one integer threshold for each output, found
    with the network's own modules. What is not binary stays in floating point.

    Args:
        model: a network in eval mode, on the CPU, in float32, of modules and additions that `torch.fx` can trace.

    Returns:
        A `PackedNetwork` on the CPU with the same outputs; the model stays as it is.

    Raises:
        TypeError: if it is no module.
        ValueError: if it is in training mode, not float32 on the CPU, has a NaN, or a layer that cannot be packed,
            which is named with the reason.

    Example:
        >>> from htaf_snn import models
        >>> net = models.DeepHeavisideNet(64, [32, 32], 10).eval()
        >>> pack(net)(torch.rand(2, 64)).shape
        torch.Size([2, 10])
    """
    check(model)
    for name, module in model.named_modules():
        if isinstance(module, hnn.BinaryActivation) and not isinstance(module.surrogate, Surrogate):
            raise ValueError(f"{name}: cannot be packed: expected a surrogate of this package, got {module.surrogate}")
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # tracing runs the model's own code
        raise ValueError(f"model: expected a network that torch.fx can trace: {error}") from error
    with torch.no_grad():
        return _Packing(model, graph).network()


def check(model: nn.Module) -> None:
    """Raise unless it is a network in eval mode, on the CPU, in float32, without NaN."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {model!r}")
    if any(module.training for module in model.modules()):
        raise ValueError("model: expected eval mode, got training mode; call model.eval()")
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.device.type != "cpu" or (value.is_floating_point() and value.dtype != torch.float32):
            raise ValueError(f"{name}: expected float32 on the CPU, got {value.dtype} on {value.device}")
        if value.isnan().any():
            raise ValueError(f"{name}: expected numbers, got NaN")


class _Packing:
    """Goes through a graph once; a value of it has the number of the step that makes it, the input is 0."""

    def __init__(self, model: nn.Module, graph: fx.Graph):
        self._modules, self._graph = dict(model.named_modules()), graph
        self._steps: list[tuple[str | nn.Module, list[int]]] = []
        self._numbers: dict[fx.Node, int] = {}
        self._levels: dict[fx.Node, tuple[int, int]] = {}
        self._folded: set[fx.Node] = set()

    def network(self) -> PackedNetwork:
        for node in self._graph.nodes:
            if node.op == "placeholder":
                if self._numbers:
                    raise ValueError(f"{node.target}: expected a network with one input")
                self._numbers[node] = 0
            elif node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise ValueError("model: expected one tensor as its output")
                return PackedNetwork(self._steps, self._numbers[node.args[0]])
            elif node not in self._folded:
                self._add(node)
        raise ValueError("model: expected an output, got none")

    def _add(self, node: fx.Node) -> None:
        if node.op == "call_module":
            self._add_module(node, node.target, self._modules[node.target])
        elif node.target in _ADDITIONS and all(isinstance(arg, fx.Node) for arg in node.args) and not node.kwargs:
            self._append(node, "add")
        elif node.target in (*_FLATTENINGS, "flatten") and self._options(node) in ([1], [1, -1]):
            self._append(node, "flatten")
        else:
            raise ValueError(f"{node.name}: {node.target} cannot be packed; expected modules, additions and flatten(1)")

    @staticmethod
    def _options(node: fx.Node) -> list:
        return [*node.args[1:], *node.kwargs.values()]

    def _append(self, node: fx.Node, step: str | nn.Module, last: fx.Node | None = None) -> None:
        """A step for a node, whose value is that of the last node folded into it."""
        inputs = [self._numbers[source] for source in node.all_input_nodes]
        self._steps.append((step, inputs * (len(node.args) if step == "add" and len(inputs) == 1 else 1)))
        self._numbers[last or node] = len(self._steps)
        source = node.all_input_nodes[0]
        if step == "flatten" and source in self._levels:
            self._levels[node] = self._levels[source]

    def _add_module(self, node: fx.Node, name: str, module: nn.Module) -> None:
        if isinstance(module, _PASSING):
            source = node.all_input_nodes[0]
            self._numbers[node] = self._numbers[source]
            self._levels |= {node: self._levels[source]} if source in self._levels else {}
        elif isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise ValueError(f"{name}: expected Flatten(1), got {module}")
            self._append(node, "flatten")
        elif isinstance(module, hnn.QuantizeInput):
            self._append(node, Quantize())
            self._levels[node] = _INPUT_LEVELS
        elif isinstance(module, hnn.BinaryActivation):
            self._append(node, Threshold(module.levels, None if module.shift is None else module.shift.detach()))
            self._levels[node] = module.levels
        elif isinstance(module, _PRODUCTS):
            self._add_product(node, name, module)
        elif type(module) in MODULES:
            self._append(node, module)
        else:
            raise ValueError(
                f"{name}: {type(module).__name__} cannot be packed; it is not among the modules that are known"
            )

    def _add_product(self, node: fx.Node, name: str, module: nn.Module) -> None:
        source = node.all_input_nodes[0]
        levels = self._levels.get(source)
        binary = isinstance(module, (hnn.BinaryLinear, hnn.BinaryConv2d))
        if levels is None or (levels == _INPUT_LEVELS and not isinstance(module, hnn.BinaryLinear)):
            raise ValueError(
                f"{name}: {type(module).__name__} cannot be packed: its input is not of two levels; expected an "
                f"activation before it, or QuantizeInput before a BinaryLinear, got {source.name}"
            )
        weight, grid = (module.binary_weight(), None) if binary else _integers(module)
        step = INPUT_STEP if levels == _INPUT_LEVELS else 1.0
        unit = torch.full((len(weight),), step) if grid is None else grid
        options = {"levels": (0, 1) if levels == _INPUT_LEVELS else levels, "where": _where(module)}
        chain, activation = self._chain(node)
        if activation is None:
            factor, bias = _affine(module, unit)
            self._append(node, _product(binary, weight, factor=factor, bias=bias, **options))
            return
        bound = int(weight.abs().flatten(1).sum(1).max()) * max(map(abs, levels))
        fires = _firing(module, chain, unit)
        signs, thresholds = _thresholds(fires, len(weight), bound)
        weight = weight * signs.view(-1, *[1] * (weight.ndim - 1)).to(weight.dtype)
        out_levels = self._modules[activation.target].levels
        self._append(
            node, _product(binary, weight, thresholds=thresholds, out_levels=out_levels, **options), activation
        )
        self._levels[activation] = out_levels

    def _chain(self, node: fx.Node) -> tuple[list[nn.Module], fx.Node | None]:
        """The modules behind a product up to an activation, if nothing else uses what lies between."""
        chain, nodes = [], []
        while len(node.users) == 1:
            node = next(iter(node.users))
            module = self._modules.get(node.target) if node.op == "call_module" else None
            if not isinstance(module, (*_NORMS, *_PASSING, hnn.BinaryActivation)):
                break
            chain.append(module)
            nodes.append(node)
            if isinstance(module, hnn.BinaryActivation):
                self._folded.update(nodes)
                return chain, node
        return chain, None


def _product(binary: bool, weight: Tensor, **options) -> nn.Module:
    return BinaryProduct(weight, **options) if binary else HeavisideProduct(weight.to(torch.int32), **options)


def _where(module: nn.Module) -> dict | None:
    if module.weight.ndim == 2:
        return None
    names = ("stride", "padding", "dilation", "groups")
    return {"window": module.kernel_size, **{name: getattr(module, name) for name in names}}


def _integers(module: nn.Module) -> tuple[Tensor, Tensor]:
    """A Heaviside layer's weights as whole multiples of a power of two for each output."""
    grid = exact_grid(module.weight)
    return torch.round(module.weight / grid.view(-1, *[1] * (module.weight.ndim - 1))), grid


def _affine(module: nn.Module, unit: Tensor) -> tuple[Tensor, Tensor | None]:
    scale = module.output_scale() if isinstance(module, (hnn.BinaryLinear, hnn.BinaryConv2d)) else None
    return unit if scale is None else unit * scale.detach(), None if module.bias is None else module.bias.detach()


def _firing(module: nn.Module, chain: list[nn.Module], unit: Tensor) -> Callable[[Tensor], Tensor]:
    """Whether the outputs of integer sums (O,) fire, by the network's own modules."""
    shape = (1, -1) if module.weight.ndim == 2 else (1, -1, 1, 1)

    def fires(sums: Tensor) -> Tensor:
        x = (sums.float() * unit).view(shape)
        if isinstance(module, (hnn.BinaryLinear, hnn.BinaryConv2d)):
            x = module.finish(x)
        elif module.bias is not None:
            x = x + module.bias.view(shape)
        for one in chain:
            x = one(x)
        return x.flatten() > 0.5

    return fires


def _thresholds(fires: Callable[[Tensor], Tensor], outputs: int, bound: int) -> tuple[Tensor, Tensor]:
    """For each output a sign of its weights and the sum above which it fires, found by bisection.

    Scale, BatchNorm and shift are monotone, also as rounded, so that an output fires above one sum, or below it; then
    its weights are negated.
    """
    low = torch.full((outputs,), -bound - 1, dtype=torch.int64)
    high = torch.full((outputs,), bound + 1, dtype=torch.int64)
    below, above = fires(low), fires(high)
    signs = torch.where(below & ~above, -1, 1)
    always = below & above
    never = ~below & ~above
    # Invariant: at signs * low it is quiet, at signs * high it fires.
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        firing = fires(signs * middle)
        low, high = torch.where(firing, low, middle), torch.where(firing, middle, high)
    low = torch.where(always, -bound - 1, torch.where(never, bound + 1, low))
    return signs, low.to(torch.int32)
