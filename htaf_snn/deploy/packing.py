"""Packing of trained networks: the layers between two packed ones become thresholds, by the network's graph."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from .. import nn as hnn
from .._checks import describe
from ..nn._graphs import VIEWS, changed_in_place, has_hooks
from ..nn.binary import LEVELS, adds_exactly, exact_grid
from ..nn.quantizing import INPUT_STEP
from . import modules, steps
from .functions import as_modules, bound
from .network import PackedNetwork
from .over_time import NEURONS, graph_over_time, layers_on
from .reasons import NORMS, check_layer, check_model, graph_of, not_of_two_levels, unknown_function
from .values import Geometry, geometry

_Convolution = hnn.BinaryConv2d | nn.Conv2d
_Binary = hnn.BinaryLinear | hnn.BinaryConv2d
_Heaviside = hnn.HeavisideLinear | hnn.HeavisideConv2d
_Real = nn.Linear | nn.Conv2d  # Heaviside layers are some
_Product = _Binary | _Real
MONOTONE = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
_INPUT_LEVELS = (0, 255)


def pack(model: nn.Module) -> PackedNetwork:
    """Pack a trained network, so that its binary and Heaviside layers compute on bits.

    Hidden bits equal the network's own bit for bit, where sums are exact (they are in float32, not under autocast):
    BatchNorm, scales, biases and shifts between two packed layers become one integer threshold per output, found with
    the network's own modules. Layers that are not binary stay in floating point; a `torch.nn.MaxPool2d` of bits is
    their OR. The packed network shares no tensors with the model. `check` says before a training what can be packed.

    In a spiking network, the spikes of `nn.Leaky` and other neurons of `htaf_snn.nn` that are not recurrent are bits,
    of all time steps at once, for linear layers and convolutions after them, whose weights and biases `round_weights`
    has rounded to multiples of a power of two. Their sums are then exact in both networks, so that all spikes are
    equal, too. Without it these layers stay in floating point, as do the first one, on frames, the neurons' potentials
    and the readout.

    Args:
        model: a network in eval mode, on the CPU, in float32, that `torch.fx` can trace; of modules, functions such as
            `torch.nn.functional.relu` that compute what a module does, additions, concatenations of features, means,
            and views of all of a sample's values; or `models.SpikingMLP`, `models.SpikingCNN`, or another spiking
            chain of neurons and layers without time in `nn.Sequential`.

    Returns:
        A `PackedNetwork` on the CPU with the same outputs, for the input shapes that the layers take; where BatchNorm
        or shifts are folded, only (B, n) and (B, C, H, W). The model is not changed.

    Raises:
        TypeError: if the model is not a module.
        ValueError: if it is in training mode, not float32 on the CPU, has a NaN, or a layer that cannot be packed; the
            layer is named with the reason.

    Example:
        >>> from htaf_snn import models
        >>> net = models.DeepHeavisideNet(64, [32, 32], 10).eval()
        >>> pack(net)(torch.rand(2, 64)).shape
        torch.Size([2, 10])
        >>> from htaf_snn.deploy import round_weights
        >>> spiking = models.SpikingMLP(64, [32, 32], 10, lambda: hnn.Leaky(beta=0.9)).eval()
        >>> round_weights(spiking, lambda net: 1.0)
        {'layers.1': 8}
        >>> frames = torch.rand(9, 2, 64)
        >>> torch.equal(pack(spiking)(frames), spiking(frames))
        True
    """
    require_ready(model)
    with torch.no_grad():
        return Packing(model).network()


def require_ready(model: nn.Module) -> None:
    """Raise TypeError or ValueError unless the model is in eval mode, on the CPU, in float32, without NaN."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {describe(model)}")
    for name, module in model.named_modules():
        if module.training:
            raise ValueError(f"{name or 'model'}: expected eval mode, got training mode; call model.eval()")
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.device.type != "cpu" or (value.is_floating_point() and value.dtype != torch.float32):
            remedy = "call model.cpu()" if value.device.type != "cpu" else "call model.float()"
            raise ValueError(f"{name}: expected float32 on the CPU, got {value.dtype} on {value.device}; {remedy}")
        if value.isnan().any():
            raise ValueError(f"{name}: expected numbers, got NaN")


class Packing:
    """One pass over a model's graph; each value has the number of the step that computes it, the input is 0.

    Raises:
        ValueError: if the model cannot be traced or has hooks.
    """

    def __init__(self, model: nn.Module):
        check_model(model)
        if has_hooks(model):
            raise ValueError("model: cannot be packed: hooks would be lost; remove them first")
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.graph = graph_over_time(model, self.modules) or graph_of(model, self.modules)
        self._reasons = as_modules(self.graph, self.modules)
        for node, user in changed_in_place(self.graph, self.modules, (*VIEWS, nn.Flatten, steps.Flatten)):
            name, expected = node.name, "a function that returns a new tensor"
            if node.op == "call_module":
                name, expected = str(node.target), "inplace=False"
            self._reasons[node] = (
                f"{name}: cannot be packed: it changes the input of {user.name} in place; expected {expected}"
            )
        self.steps: list[tuple[nn.Module, list[int]]] = []
        self._names: list[str] = []
        self._numbers: dict[fx.Node, int] = {}
        self._levels: dict[fx.Node, tuple[int, int]] = {}
        self._folded: set[fx.Node] = set()

    def network(self) -> PackedNetwork:
        for node in self.graph.nodes:
            if node.op == "output":
                if not isinstance(node.args[0], fx.Node):
                    raise ValueError("model: expected one tensor as its output")
                return PackedNetwork(self.steps, self._numbers[node.args[0]], self._names)
            self.add(node)
        raise ValueError("model: expected an output, got none")

    def add(self, node: fx.Node) -> None:
        """Add the step of a node, unless it is folded into an earlier one.

        Raises:
            ValueError: if it cannot be packed.
        """
        if node in self._reasons:
            raise ValueError(self._reasons[node])
        if node.op == "placeholder":
            if self._numbers:
                raise ValueError(f"{node.target}: expected a network with one input")
            self._numbers[node] = 0
        elif node.op == "call_module":
            check_layer(str(node.target), self.modules[str(node.target)])
            if node not in self._folded:
                self._add_module(node, str(node.target), self.modules[str(node.target)])
        elif node.target in _ADDITIONS and all(isinstance(arg, fx.Node) for arg in node.args) and not node.kwargs:
            self._append(node, steps.Add(), sources=cast(Sequence[fx.Node], node.args))
        elif node.target in _CONCATENATIONS and (own := bound(node, lambda tensors, dim=0: None))["dim"] == 1:
            sources = cast(Sequence[fx.Node], own["tensors"])
            known = {self._levels.get(source) for source in sources}
            levels = known.pop() if len(known) == 1 and known != {_INPUT_LEVELS} else None
            self._append(node, steps.Cat(levels), sources=sources)
            if levels is not None:
                self._levels[node] = levels
        else:
            raise ValueError(unknown_function(node))

    def add_nothing(self, node: fx.Node) -> None:
        """Go on after a node that cannot be packed, as if it did nothing."""
        self._numbers[node] = self._numbers.get(node.all_input_nodes[0], 0) if node.all_input_nodes else 0
        module = self.modules.get(str(node.target))
        if isinstance(module, hnn.BinaryActivation):
            self._levels[node] = module.levels

    def levels_of(self, node: fx.Node) -> tuple[int, int] | None:
        """Return the two values of what a node gives; None if it gives others."""
        return self._levels.get(node)

    def is_in_bits(self, node: fx.Node) -> bool:
        """Whether a node that was added, or its successor that it is folded into, computes on bits."""
        if node in self._folded or node not in self._numbers:
            return True
        number = self._numbers[node]
        step = self.steps[number - 1][0] if number else None
        passes_bits_on = isinstance(step, (steps.Flatten, steps.Cat)) and self._levels.get(node) in LEVELS
        return passes_bits_on or (isinstance(step, steps.ON_BITS) and getattr(step, "is_packed", True))

    def _append(
        self, node: fx.Node, step: nn.Module, last: fx.Node | None = None, sources: Sequence[fx.Node] | None = None
    ) -> None:
        """Add a step for a node and those folded into it, up to the last."""
        self.steps.append((step, [self._numbers[source] for source in sources or node.all_input_nodes]))
        self._names.append(str(node.target) if node.op == "call_module" else node.name)
        self._numbers[last or node] = len(self.steps)

    def _add_module(self, node: fx.Node, name: str, module: nn.Module) -> None:
        source = node.all_input_nodes[0]
        levels = self._levels.get(source)
        if isinstance(module, VIEWS):
            self._numbers[node] = self._numbers[source]
            if levels is not None:
                self._levels[node] = levels
        elif isinstance(module, (nn.Flatten, steps.Flatten)):
            self._append(node, steps.Flatten() if isinstance(module, nn.Flatten) else module)
            if levels is not None:
                self._levels[node] = levels
        elif isinstance(module, (steps.Mean, steps.ToRows, steps.FromRows, steps.MeanOverTime)):
            self._append(node, module)
        elif isinstance(module, NEURONS):
            self._add_neurons(node, module)
        elif isinstance(module, hnn.QuantizeInput):
            self._append(node, steps.Quantize(module.low, module.high))
            self._levels[node] = _INPUT_LEVELS
        elif isinstance(module, hnn.BinaryActivation):
            self._append(node, steps.Threshold(module.levels, _copy(module.shift)))
            self._levels[node] = module.levels
        elif isinstance(module, _Binary | _Heaviside) or (levels in LEVELS and _is_exact(module)):
            self._add_product(node, name, cast(_Product, module))
        elif isinstance(module, nn.MaxPool2d) and levels is not None and levels != _INPUT_LEVELS:
            where = (module.kernel_size, module.stride, module.padding, module.dilation)
            self._append(node, steps.MaxPool(*where, module.ceil_mode))
            self._levels[node] = levels
        else:
            self._append(node, _own_copy(name, module))

    def _add_neurons(self, node: fx.Node, module: hnn.NeuronLayer) -> None:
        definition = module.definition
        parameters = {name: getattr(module, name).detach().clone() for name in definition.parameters}
        is_packed = definition.spikes and any(_is_exact(self.modules[name]) for name in layers_on(node, self.modules))
        self._append(node, steps.Neurons(definition.name, module.options, is_packed, **parameters))
        if is_packed:
            self._levels[node] = (0, 1)

    def _add_product(self, node: fx.Node, name: str, module: _Product) -> None:
        source = node.all_input_nodes[0]
        levels = self._levels.get(source)
        if levels is None or (levels == _INPUT_LEVELS and not isinstance(module, _Binary)):
            raise ValueError(not_of_two_levels(name, module, source, self.modules))
        product: type[steps.BinaryProduct | steps.HeavisideProduct]
        if isinstance(module, _Binary):
            product, weight = steps.BinaryProduct, module.binary_weight()
            unit = torch.full((len(weight),), INPUT_STEP if levels == _INPUT_LEVELS else 1.0)
        else:
            product, (weight, unit) = steps.HeavisideProduct, _integers(name, module)
        in_levels = (0, 1) if levels == _INPUT_LEVELS else levels
        chain, activation = self._chain(node, module)
        if activation is None:
            factor, bias = _affine(module, unit)
            step = product(weight, in_levels, batched=False, factor=factor, bias=bias, where=_where(module))
            self._append(node, step)
            return
        bound = int(weight.abs().double().flatten(1).sum(1).max()) * max(map(abs, levels))
        if bound >= 2**31 - 1:
            raise ValueError(f"{name}: cannot be packed: expected sums below 2**31 - 1, for int32, got {bound}")
        signs, thresholds = _thresholds(_firing(module, chain, unit), len(weight), bound)
        weight = weight * signs.view(-1, *[1] * (weight.ndim - 1)).to(weight.dtype)
        out_levels = self._levels[activation]
        batched = any(_has_channels(layer) for layer in chain)
        step = product(
            weight, in_levels, batched=batched, thresholds=thresholds, out_levels=out_levels, where=_where(module)
        )
        self._append(node, step, activation)

    def _chain(self, node: fx.Node, product: _Product) -> tuple[list[nn.Module], fx.Node | None]:
        """Return the modules from a product to an activation, and its node, if only they use the values between."""
        chain: list[nn.Module] = []
        nodes: list[fx.Node] = []
        while len(node.users) == 1:
            node = next(iter(node.users))
            module = self.modules[str(node.target)] if node.op == "call_module" else None
            if module is None or not _acts_per_output(module, product):
                break
            chain.append(module)
            nodes.append(node)
            if isinstance(module, hnn.BinaryActivation):
                self._folded.update(nodes)
                self._levels[node] = module.levels
                return chain, node
        return chain, None


def _acts_per_output(module: nn.Module, product: _Product) -> bool:
    """Return whether a module treats all values of an output of the product alike, so that one threshold suffices."""
    outputs = len(product.weight)
    if isinstance(module, hnn.BinaryActivation):
        return module.shift is None or len(module.shift) == outputs
    norm = nn.BatchNorm2d if isinstance(product, _Convolution) else nn.BatchNorm1d
    if isinstance(module, norm):
        return module.num_features == outputs and module.running_mean is not None
    return isinstance(module, VIEWS) or _is_monotone(module, outputs)


def _is_monotone(module: nn.Module, outputs: int) -> bool:
    """Return whether a module is an activation that never falls, so that the outputs fire above one sum or below it."""
    if isinstance(module, nn.LeakyReLU):
        return module.negative_slope >= 0
    if isinstance(module, nn.PReLU):
        return module.num_parameters in (1, outputs) and bool((module.weight >= 0).all())
    if isinstance(module, hnn.RPReLU):
        return len(module.slope) == outputs and bool((module.slope >= 0).all())
    return isinstance(module, MONOTONE)


def _has_channels(module: nn.Module) -> bool:
    """Return whether a module treats channels apart, for which it needs a batch of them."""
    if isinstance(module, nn.PReLU):
        return module.num_parameters > 1
    return isinstance(module, (*NORMS, hnn.RPReLU)) or getattr(module, "shift", None) is not None


def _own_copy(name: str, module: nn.Module) -> nn.Module:
    """Return a copy of a module of `modules.MODULES`; raise ValueError if its arguments do not rebuild it."""
    cls = type_before_parametrizations(module)
    arguments = modules.options(module, cls)
    fresh = cls(**arguments)
    state = {key: getattr(module, key) for key in fresh.state_dict()}
    changed = [key for key, value in state.items() if value is None or value.shape != fresh.state_dict()[key].shape]
    for key in vars(fresh).keys() - vars(nn.Module()).keys():
        if json.dumps(vars(fresh)[key]) != json.dumps(getattr(module, key), default=operator.index):
            changed.append(key)
    if changed:
        raise ValueError(f"{name}: cannot be packed: {', '.join(sorted(changed))} changed after it was made")
    copied = modules.rebuilt(cls.__name__, arguments, state)
    if "inplace" in vars(copied):
        vars(copied)["inplace"] = False  # a value of a packed network may be used again
    return copied


def _copy(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().clone()


def _where(module: _Product) -> Geometry | None:
    if not isinstance(module, _Convolution):
        return None
    assert not isinstance(module.padding, str)  # HeavisideConv2d refuses it
    return geometry(module.kernel_size, module.stride, module.padding, module.dilation, module.groups)


def _is_exact(module: nn.Module) -> bool:
    """Return whether the sums of bits of a linear layer or convolution are exact, bias included, so that it packs."""
    if isinstance(module, _Binary | _Heaviside):
        return True
    if not isinstance(module, _Real) or not adds_exactly(module.weight, module.bias):
        return False
    return isinstance(module, nn.Linear) or (module.padding_mode == "zeros" and not isinstance(module.padding, str))


def _integers(name: str, module: _Real) -> tuple[Tensor, Tensor]:
    """Return a layer's exact weight as int32 multiples of a power of two per output, and those powers."""
    weight = module.exact_weight() if isinstance(module, _Heaviside) else module.weight
    if not weight.isfinite().all():
        raise ValueError(f"{name}: cannot be packed: expected finite weights, got infinity")
    grid = exact_grid(weight).double() / 2  # as `adds_exactly`
    shape = (-1, *[1] * (weight.ndim - 1))
    integers = torch.round(weight / grid.view(shape)).to(torch.int32)
    # The largest power of two in all weights of an output belongs to its unit, so that rounded weights are small.
    present = torch.tensor([int(np.bitwise_or.reduce(row)) for row in integers.abs().flatten(1).numpy()])
    power = (present & -present).clamp(min=1)
    return integers // power.view(shape).to(torch.int32), (grid * power).float()


def _affine(module: _Product, unit: Tensor) -> tuple[Tensor, Tensor | None]:
    scale = module.output_scale() if isinstance(module, _Binary) else None
    return unit if scale is None else unit * scale.detach(), _copy(module.bias)


def _firing(module: _Product, chain: list[nn.Module], unit: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of integer sums (O,) to whether each output fires, by the network's own modules."""
    shape = (1, -1) if module.weight.ndim == 2 else (1, -1, 1, 1)

    def fires(sums: Tensor) -> Tensor:
        x = (sums.float() * unit).view(shape)
        if isinstance(module, _Binary):
            x = module.finish(x)
        elif module.bias is not None:
            x = x + module.bias.view(shape)
        for layer in chain:
            x = layer(x)
        return x.flatten() > 0.5

    return fires


def _thresholds(fires: Callable[[Tensor], Tensor], outputs: int, bound: int) -> tuple[Tensor, Tensor]:
    """Return for each output the sign of its weights and the sum above which it fires, found by bisection.

    Scale, BatchNorm and shift are monotone, even when rounded, so that an output fires either above one sum or below
    it; in the second case its weights are negated.
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
