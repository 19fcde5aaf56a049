"""The C of neurons: the graph of their update that the kernels are generated from, printed in C."""

from __future__ import annotations

import re

import numpy as np
from torch import Tensor

from ..kernels.neuron.graph import Argument, Node
from ..kernels.neuron.statements import ATOM, INFIX, NEGATED, Statements, new, update_lines
from ..kernels.neuron.trace import trace
from ..neurons import NEURONS
from .c_bodies import Array, literal
from .steps import Neurons

_CHOICE = -1  # how strongly `? :` binds, in the terms of `Statements`


class _InC(Statements):
    """Assignments in C, with the operations, and so the rounding, of the kernels."""

    def _text(self, node: Argument) -> tuple[str, int]:
        if not isinstance(node, Node):
            return literal(float(np.float32(node)), "float"), NEGATED if node < 0 else ATOM
        if node in self.names or node.op in INFIX or node.op == "neg":
            return super()._text(node)
        if node.op == "div":
            left, right = self.text(node.args[0], INFIX["mul"][1]), self.text(node.args[1], NEGATED)
            return f"{left} / {right}", INFIX["mul"][1]
        if node.op == "not":
            return f"!{self.text(node.args[0], ATOM)}", ATOM
        if node.op == "hard":
            return f"{self.text(node.args[0], INFIX['add'][1])} > 0.0f ? 1.0f : 0.0f", _CHOICE
        if node.op == "where":
            condition, a, b = (self.text(arg, 0) for arg in node.args)
            return f"{condition} ? {a} : {b}", _CHOICE
        raise ValueError(f"{node.op}, which C has only in its mathematical library")


def _declared(line: str) -> str:
    """Return an assignment as the declaration of a constant; those of conditions are named c1, c2, …."""
    return f"const {'int' if re.match(r'c[0-9]+ = ', line) else 'float'} {line};"


def neurons(step: Neurons, out: Array, states: dict[str, str], constants: dict[str, str]) -> str:
    """Return the body of a function that updates neurons once.

    Args:
        step: whose neurons they are.
        out: what is written, bits or floats.
        states: for each of their states the name of its array.
        constants: for each parameter of the update its value, in terms of the neuron, `at`.

    Raises:
        ValueError: if the update has an operation that C lacks.
    """
    definition = NEURONS[step.kind]
    traced = trace(definition, step.choices, is_recurrent=False, is_smooth=False)
    lines = [_declared(line) for line in update_lines(traced, _InC)]
    write = "out[at] = output;"
    if out.kind == "uint32_t":
        write = f"if (output > 0.0f) set(out + at % {out.pixels} * {out.words}, at / {out.pixels});"
    lines += [*(f"{array}[at] = {new(name)};" for name, array in states.items()), write]
    values = {"x": "x0[at]", **{name: f"{array}[at]" for name, array in states.items()}, **constants}
    loads = [f"const float {name} = {value};" for name, value in values.items() if _mentions(lines, name)]
    zero = f"memset(out, 0, sizeof(uint32_t) * {out.length});\n" if out.kind == "uint32_t" else ""
    inner = "\n    ".join([*loads, *lines])
    return f"{zero}for (int at = 0; at < {out.shape[0] * out.pixels}; at++) {{\n    {inner}\n}}"


def _mentions(lines: list[str], name: str) -> bool:
    return any(re.search(rf"\b{name}\b", line) for line in lines)


def per_neuron(name: str, value: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Return a parameter's different numbers, (1,), (channels,) or (neurons,), and the index of a neuron's.

    Args:
        name: for the error.
        value: a tensor that broadcasts to (B, *shape).
        shape: of the neurons, without the batch.

    Raises:
        ValueError: if it has other values for other samples.
    """
    if value.numel() == 1:
        return value.reshape(1), "0"
    if value.ndim > len(shape) and len(value) > 1:
        raise ValueError(f"{name}: expected the same for all samples, got {tuple(value.shape)}")
    rows = (value[0] if value.ndim > len(shape) else value).expand(shape).reshape(shape[0], -1)
    if bool((rows == rows[:, :1]).all()):
        return rows[:, 0].contiguous(), "at" if rows.shape[1] == 1 else f"at / {rows.shape[1]}"
    return rows.flatten().contiguous(), "at"
