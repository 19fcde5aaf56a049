"""An update and its derivatives as expressions: torch differentiates it, `graph.TORCH` says what its operators mean."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...neurons.base import Neuron, Sum
from .graph import TORCH, Argument, Graph, Node, as_number, in_order

torch.library.define("htaf_snn::fire", "(Tensor u, bool hard) -> Tensor")
torch.library.define("htaf_snn::fire_backward", "(Tensor grad, Tensor u) -> Tensor")
torch.library.impl("htaf_snn::fire", "CompositeExplicitAutograd", lambda u, hard: (u > 0).to(u.dtype))
torch.library.impl("htaf_snn::fire_backward", "CompositeExplicitAutograd", lambda grad, u: torch.ones_like(u))

INPUT, FEEDBACK = "x", "feedback"


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(u, hard):
        return torch.ops.htaf_snn.fire(u, hard)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return torch.ops.htaf_snn.fire_backward(grad, *ctx.saved_tensors), None


class _Spike:
    """An update's `spike`, as operators that stand for the surrogate."""

    def __init__(self, is_hard: bool):
        self._is_hard = is_hard

    def __call__(self, u: Tensor) -> Tensor:
        return _Fire.apply(u, self._is_hard)

    def hard(self, u: Tensor) -> Tensor:
        return _Fire.apply(u, True)


@dataclass(frozen=True)
class Traced:
    """The expressions of one time step.

    Attributes:
        graph: makes more nodes.
        output, states: what the update returns.
        gradients: with respect to each input, by its name.
        fired: for each place where a gradient enters a spike, that gradient and the potential above threshold.
        softened: the spikes that are smooth in the output below hardness 1.
    """

    graph: Graph
    output: Argument
    states: dict[str, Argument]
    gradients: dict[str, Argument]
    fired: list[tuple[Argument, Node]]
    softened: set[Node]


class UnsupportedError(ValueError):
    """An update that cannot be turned into a kernel."""


def cotangent(name: str) -> str:
    """Return the name of the gradient of the output or of a state after the time step."""
    return f"grad_{name}"


def trace(neuron: Neuron, options: Mapping[str, Any], is_recurrent: bool, is_smooth: bool) -> Traced:
    """Trace an update.

    Args:
        neuron: whose update it is.
        options: a value for each of its options.
        is_recurrent: whether it has a second input, `feedback`.
        is_smooth: whether the output is that of a surrogate below hardness 1.

    Raises:
        UnsupportedError: if the update cannot be turned into a kernel; the message names the operator and the line.
    """
    once = _traced(neuron, options, is_recurrent, False)
    for node in once.softened:
        if once.softened & set(in_order(node.nodes)):
            raise ValueError(
                f"{neuron.name}: expected spike.hard for a reset that comes before the output, got spike, which is "
                "smooth in the output below hardness 1"
            )
    if not is_smooth or not once.softened:
        return once
    if once.output in once.softened:
        # The gradients do not depend on the value of the output itself.
        return replace(once, output=once.graph("soft", once.output.args[0]))
    return _traced(neuron, options, is_recurrent, True)


def _traced(neuron: Neuron, options: Mapping[str, Any], is_recurrent: bool, twice: bool) -> Traced:
    names = (INPUT, FEEDBACK) if is_recurrent else (INPUT,)
    names = (*names, *neuron.states, *neuron.prepared)

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(names, values, strict=True))
        x = Sum(given[INPUT], given[FEEDBACK]) if is_recurrent else given[INPUT]
        keywords = {name: given[name] for name in neuron.prepared} | dict(options)

        def update(is_hard: bool) -> tuple[Tensor, ...]:
            spike: dict[str, Any] = {"spike": _Spike(is_hard)} if neuron.spikes else {}
            return neuron.update(x, *(given[name] for name in neuron.states), **keywords, **spike)

        return (update(False)[0], *update(True)[1:]) if twice else update(False)

    def joint(values: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple:
        differentiated: Any = torch.func.vjp(step, *values)
        outputs, gradients = differentiated
        return outputs, gradients(cotangents)

    def traced(size: int, dtype: torch.dtype) -> torch.fx.GraphModule:
        values = tuple(torch.full((size,), 0.5, dtype=dtype) for _ in names)
        _check(neuron, step, values)
        cotangents = tuple(value.clone() for value in values[: 1 + len(neuron.states)])
        return _make_fx(joint)(values, cotangents)

    def both() -> torch.fx.GraphModule:
        graph, other = traced(1, torch.float64), traced(3, torch.float32)
        if [_signature(node) for node in graph.graph.nodes] != [_signature(node) for node in other.graph.nodes]:
            raise UnsupportedError(
                f"{neuron.name}: expected an update that is the same for every shape and dtype, got one that reads "
                "them; backend='torch' computes it"
            )
        return graph

    # In a thread of its own there are none of the caller's modes: fake tensors, transforms, autocast, no_grad.
    with _lock, ThreadPoolExecutor(1) as thread:
        graph = thread.submit(both).result()
    return _converted(neuron, names, graph, twice)


# Tracing patches torch for the whole process.
_lock = Lock()


def _signature(node: torch.fx.Node) -> str:
    given = {name: value for name, value in node.kwargs.items() if name != "dtype"}
    return f"{node.name} {node.target} {node.args} {given}"


def _make_fx(function: Callable) -> Callable:
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx(function)


def _converted(neuron: Neuron, names: tuple[str, ...], traced: torch.fx.GraphModule, is_soft: bool) -> Traced:
    graph = Graph()
    fired: list[tuple[Argument, Node]] = []
    softened: set[Node] = set()

    def spike(graph: Graph, u: Argument, hard: bool) -> Argument:
        node: Node = graph("soft" if is_soft and not hard else "hard", u)
        if not hard:
            softened.add(node)
        return node

    def spike_backward(graph: Graph, grad: Argument, u: Node) -> Argument:
        fired.append((grad, u))
        return graph("mul", grad, graph("slope", u))

    meanings: dict[str, Callable] = {**TORCH, "fire.default": spike, "fire_backward.default": spike_backward}
    given = iter([*names, *map(cotangent, ("output", *neuron.states))])
    made: dict[torch.fx.Node, Any] = {}
    results: tuple = ()
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            made[node] = graph.input(next(given))
        elif node.op == "output":
            results = torch.fx.node.map_arg(node.args[0], made.__getitem__)
        else:
            name = str(node.target).split(".", 1)[1]
            args = torch.fx.node.map_arg(node.args, made.__getitem__)
            args = tuple(float(arg) if type(arg) is int else arg for arg in args)
            try:
                made[node] = meanings[name](graph, *args, **torch.fx.node.map_arg(node.kwargs, made.__getitem__))
            except KeyError as error:
                raise UnsupportedError(
                    f"{neuron.name}: expected an update whose gradient kernels know, got the operator {error}; "
                    "backend='torch' computes it"
                ) from None
    flat = [as_number(graph, value) for value in torch.utils._pytree.tree_leaves(results)]
    count = 1 + len(neuron.states)
    return Traced(
        graph, flat[0], dict(zip(neuron.states, flat[1:count], strict=True)),
        dict(zip(names, flat[count:], strict=True)), fired, softened,
    )  # fmt: skip


class _Checked(TorchDispatchMode):
    """Refuses, where it is called, what no kernel can compute."""

    def __init__(self, own: tuple[Tensor, ...]):
        super().__init__()
        self._known = list(own)  # kept alive, so that no other tensor takes over an id

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).split(".", 1)[1]
        if function is torch.ops.aten._local_scalar_dense.default:
            raise UnsupportedError("control flow or a number that depends on a tensor's values; write torch.where")
        if name not in TORCH and not name.startswith("fire"):
            raise UnsupportedError(f"the operator {name.split('.')[0]}, which kernels lack")
        self._refuse_other_types(name, args, kwargs or {})
        if name in TORCH:
            symbolic = torch.utils._pytree.tree_map_only(Tensor, lambda _: Graph().input(INPUT), (args, kwargs or {}))
            try:
                TORCH[name](Graph(), *symbolic[0], **symbolic[1])
            except KeyError as error:
                raise UnsupportedError(f"the operator {error.args[0]}") from None
        ids = {id(tensor) for tensor in self._known}
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor) and id(value) not in ids and value.numel():
                raise UnsupportedError("a tensor from outside of the update; make it a parameter, or write a number")
        result = function(*args, **kwargs or {})
        self._known.append(result)
        # A number as an argument of torch.where becomes a tensor without dimensions.
        if result.shape != self._known[0].shape and function is not torch.ops.aten.scalar_tensor.default:
            raise UnsupportedError(f"the operator {name.split('.')[0]}, which changes the shape")
        return result

    def _refuse_other_types(self, name: str, args: tuple, kwargs: dict) -> None:
        own, given = self._known[0].dtype, [arg for arg in args if isinstance(arg, Tensor)]
        if name == "_to_copy.default" and kwargs.get("dtype", own) != own:
            raise UnsupportedError(f"a cast to {kwargs['dtype']}")
        arithmetic = name.split(".")[0] in ("add", "sub", "mul", "div")
        if arithmetic and len(given) == 2 and all(tensor.dtype == torch.bool for tensor in given):
            raise UnsupportedError("arithmetic of two conditions; write & or |")


def _check(neuron: Neuron, step: Callable, values: tuple[Tensor, ...]) -> None:
    """Raise UnsupportedError unless kernels know all that the update does; its derivatives are seen when converted."""
    try:
        with torch.no_grad(), _Checked(values):
            results = step(*values)
    except UnsupportedError as error:
        line = _line(neuron, error.__traceback__)
        message = f"{neuron.name}: expected an update of plain arithmetic, got {error}; backend='torch' computes it"
        raise UnsupportedError(f"{message}\n    {line}" if line else message) from None
    expected = 1 + len(neuron.states)
    results = results if isinstance(results, tuple) else (results,)
    if len(results) != expected:
        wanted = ", ".join(("output", *neuron.states))
        raise UnsupportedError(f"{neuron.name}: expected an update that returns {wanted}, got {len(results)} values")
    for name, result in zip(("output", *neuron.states), results, strict=True):
        if not isinstance(result, Tensor) or result.dtype != values[0].dtype:
            got = result.dtype if isinstance(result, Tensor) else type(result).__name__
            remedy = "spikes are spike(u), other numbers are cast by .to(x.dtype)"
            raise UnsupportedError(f"{neuron.name}: expected {name} in the dtype of the input, got {got}; {remedy}")


def _line(neuron: Neuron, where: TracebackType | None) -> str:
    """Return the update's line at which an error was raised."""
    file = neuron.update.__code__.co_filename
    lines = [frame for frame in traceback.extract_tb(where) if frame.filename == file]
    return f"{lines[-1].filename}:{lines[-1].lineno}: {lines[-1].line}" if lines else ""
