"""Elementwise expressions as a graph in which each appears once, and torch's operators in its terms."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, Union

Argument = Union["Node", float]


class Node:
    """An operation on other nodes and numbers, or an input; equal ones are the same object."""

    __slots__ = ("args", "op")

    def __init__(self, op: str, args: tuple):
        self.op, self.args = op, args

    @property
    def nodes(self) -> list[Node]:
        """The arguments that are nodes."""
        return [arg for arg in self.args if isinstance(arg, Node)]


_FOLDED: dict[str, Callable] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "neg": operator.neg,
    "gt": operator.gt, "lt": operator.lt, "ge": operator.ge, "le": operator.le, "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


class Graph:
    """Makes nodes; `graph("add", a, b)` returns the same node for the same operation."""

    def __init__(self) -> None:
        self._made: dict[tuple, Node] = {}

    def input(self, name: str) -> Node:
        """Return the input of that name."""
        return self._intern("input", (name,))

    def __call__(self, op: str, *args: Any) -> Any:
        """Return the node of an operation, or what it simplifies to without another rounding."""
        if op in _FOLDED and not any(isinstance(arg, Node) for arg in args):
            return float(_FOLDED[op](*args))
        a, b = (*args, None, None)[:2]
        if op in ("mul", "div") and _is(b, 1):
            return a
        if (op == "mul" and _is(a, 1)) or (op == "add" and _is(a, 0)):
            return b
        if op in ("add", "sub") and _is(b, 0):
            return a
        if op == "where" and args[1] is args[2]:
            return args[1]
        if op == "neg" and isinstance(a, Node) and a.op == "neg":
            return a.args[0]
        if op in ("add", "sub") and isinstance(b, Node) and b.op == "neg":
            return self("sub" if op == "add" else "add", a, b.args[0])
        if op == "add" and isinstance(a, Node) and a.op == "neg":
            return self("sub", b, a.args[0])
        return self._intern(op, args)

    def _intern(self, op: str, args: tuple) -> Node:
        key = (op, *(id(arg) if isinstance(arg, Node) else (str(arg), type(arg)) for arg in args))
        if key not in self._made:
            self._made[key] = Node(op, args)
        return self._made[key]

    def substituted(
        self, node: Argument, values: dict[Node, Argument], done: dict[Any, Argument] | None = None
    ) -> Argument:
        """Return an expression with other nodes in place of some."""
        done = dict(values) if done is None else done
        if not isinstance(node, Node) or node.op == "input":
            return done.get(node, node)
        if node not in done:
            done[node] = self(node.op, *(self.substituted(arg, values, done) for arg in node.args))
        return done[node]


def _is(value: Any, number: float) -> bool:
    return not isinstance(value, Node) and value == number and math.copysign(1, value) == 1


def in_order(outputs: Iterable[Argument]) -> list[Node]:
    """Return all nodes that the outputs depend on, each after those that it depends on."""
    order: dict[Node, None] = {}

    def visit(node: Argument) -> None:
        if isinstance(node, Node) and node not in order:
            for arg in node.args:
                visit(arg)
            order[node] = None

    for output in outputs:
        visit(output)
    return list(order)


# Torch's operators in terms of the graph's. Those with a name of `surrogate.vocabulary`, a comparison, or an arithmetic
# operation are printed as they are; see `statements.py`.


def _scaled(graph: Graph, value: Argument, alpha: float) -> Argument:
    return value if alpha == 1 else graph("mul", value, alpha)


def _clamp(graph: Graph, x: Argument, low: Argument | None = None, high: Argument | None = None) -> Argument:
    # The comparisons let NaN through; where the bounds cross, torch takes the upper one.
    if low is not None:
        x = graph("where", graph("lt", x, low), low, x)
    return x if high is None else graph("where", graph("gt", x, high), high, x)


def _larger(op: str) -> Callable:
    # As in torch, NaN in either is NaN in the result: a comparison with NaN takes b.
    def convert(graph: Graph, a: Argument, b: Argument) -> Argument:
        chosen = graph("where", graph(op, a, b), a, b)
        return graph("where", graph("eq", a, a), chosen, a)

    return convert


def _power(graph: Graph, x: Argument, exponent: float) -> Argument:
    if exponent == 0.5:
        return graph("sqrt", x)
    if exponent < 0:
        return graph("div", 1.0, _power(graph, x, -exponent))
    if exponent != int(exponent) or exponent > 8:
        raise KeyError(f"pow with the exponent {exponent}; only 0.5, -0.5 and whole numbers from -8 to 8 are known")
    power: Argument = 1.0
    for _ in range(int(exponent)):
        power = graph("mul", power, x)
    return power


def _sigmoid(graph: Graph, x: Argument) -> Argument:
    e = graph("exp", graph("neg", graph("abs", x)))
    return graph("div", graph("where", graph("lt", x, 0.0), e, 1.0), graph("add", 1.0, e))


def _sign(graph: Graph, x: Argument) -> Argument:
    return graph("where", graph("gt", x, 0.0), 1.0, graph("where", graph("lt", x, 0.0), -1.0, graph("mul", x, 0.0)))


def _same(op: str) -> Callable:
    return lambda graph, *args: graph(op, *args)


def _constant(value: float) -> Callable:
    return lambda graph, *_, **__: value


def _cast(graph: Graph, x: Argument, dtype: Any = None, **_: Any) -> Argument:
    if dtype is not None and not dtype.is_floating_point:
        raise KeyError(f"a cast to {dtype}")
    return as_number(graph, x)


def is_condition(node: object) -> bool:
    """Whether a node is true or false."""
    return isinstance(node, Node) and node.op in CONDITIONS


def as_number(graph: Graph, node: Argument) -> Argument:
    """Return 1 and 0 for true and false."""
    return graph("where", node, 1.0, 0.0) if is_condition(node) else node


def _arithmetic(op: str) -> Callable:
    def convert(graph: Graph, a: Argument, b: Argument, alpha: float = 1) -> Argument:
        if is_condition(a) and is_condition(b):
            raise KeyError(f"{op} of two conditions; write & or |")
        return graph(op, as_number(graph, a), _scaled(graph, as_number(graph, b), alpha))

    return convert


def _reversed(graph: Graph, a: Argument, b: Argument, alpha: float = 1) -> Argument:
    return graph("sub", b, _scaled(graph, as_number(graph, a), alpha))


CONDITIONS = {"gt", "lt", "ge", "le", "eq", "ne", "and", "or", "not"}

TORCH: dict[str, Callable] = {
    **{f"{name}.{kind}": _arithmetic(name) for name in ("add", "sub", "mul", "div") for kind in ("Tensor", "Scalar")},
    **{f"{op}.{kind}": _same(op) for op in ("gt", "lt", "ge", "le", "eq", "ne") for kind in ("Tensor", "Scalar")},
    **{f"{op}.default": _same(op) for op in ("neg", "exp", "log", "sqrt", "abs", "tanh", "atan", "erfc", "floor")},
    "sin.default": _same("sin"),
    "cos.default": _same("cos"),
    **{f"{name}.default": lambda graph, x: x for name in ("alias", "detach", "view_as", "lift_fresh_copy")},
    "clone.default": lambda graph, x, **_: x,
    **{f"{name}_{op}.default": _same(op) for name in ("logical", "bitwise") for op in ("and", "or", "not")},
    **{f"bitwise_{op}.Tensor": _same(op) for op in ("and", "or")},
    "logical_and_.default": _same("and"),
    **{f"{name}.default": _constant(0.0) for name in ("zeros_like", "zeros")},
    **{f"{name}.default": _constant(1.0) for name in ("ones_like", "ones")},
    "rsub.Scalar": _reversed,
    "rsub.Tensor": _reversed,
    "full_like.default": lambda graph, _, value, **__: float(value),
    "full.default": lambda graph, _, value, **__: float(value),
    "scalar_tensor.default": lambda graph, value, **_: float(value),
    "where.self": lambda graph, c, a, b: graph("where", c, as_number(graph, a), as_number(graph, b)),
    "where.ScalarOther": _same("where"),
    "where.ScalarSelf": _same("where"),
    "where.Scalar": _same("where"),
    "masked_fill.Scalar": lambda graph, x, mask, value: graph("where", mask, float(value), x),
    "relu.default": lambda graph, x: graph("where", graph("lt", x, 0.0), 0.0, x),
    "threshold_backward.default": lambda graph, grad, x, at: graph("where", graph("le", x, at), 0.0, grad),
    "clamp.default": _clamp,
    "clamp.Tensor": _clamp,
    "clamp_min.default": lambda graph, x, low: _clamp(graph, x, low),
    "clamp_max.default": lambda graph, x, high: _clamp(graph, x, None, high),
    "maximum.default": _larger("gt"),
    "minimum.default": _larger("lt"),
    "reciprocal.default": lambda graph, x: graph("div", 1.0, x),
    "rsqrt.default": lambda graph, x: graph("div", 1.0, graph("sqrt", x)),
    "square.default": lambda graph, x: graph("mul", x, x),
    "pow.Tensor_Scalar": _power,
    "sigmoid.default": _sigmoid,
    "sigmoid_backward.default": lambda graph, grad, y: graph("mul", grad, graph("mul", graph("sub", 1.0, y), y)),
    "tanh_backward.default": lambda graph, grad, y: graph("mul", grad, graph("sub", 1.0, graph("mul", y, y))),
    "sgn.default": _sign,
    "sign.default": _sign,
    "_to_copy.default": _cast,
}
