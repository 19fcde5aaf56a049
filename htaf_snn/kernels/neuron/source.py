"""Kernels as text: the statements of one time step in the loops of each backend.

A name that ends in `_all` is an array over all neurons and, where it has them, time steps; `_block` is one over the
neurons of a block, and `_row` those neurons at one time step.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...neurons.base import Neuron
from .graph import Argument, Node, in_order
from .plan import Plan, made_of, plan
from .statements import (
    INFIX,
    MADE,
    RESERVED,
    Variant,
    backward_statements,
    forward_statements,
    new,
    update_lines,
)
from .trace import FEEDBACK, INPUT, Traced, UnsupportedError, trace

_BLOCK = 2048


@dataclass(frozen=True)
class Source:
    """A kernel's text, and the names of its arguments in order."""

    text: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """The kernels of a neuron's two passes for one backend.

    Attributes:
        forward, backward: their texts.
        saved: the number of values that the forward pass saves per neuron and time step.
        keeps_input: whether the backward pass needs the input too.
    """

    forward: Source
    backward: Source
    saved: int
    keeps_input: bool


def check_names(neuron: Neuron) -> None:
    """Raise ValueError if a state, parameter or option has the name of another, or one that kernels use."""
    names = [*neuron.states, *dict.fromkeys((*neuron.parameters, *neuron.prepared)), *neuron.options]
    for name in names:
        taken = name in RESERVED or names.count(name) > 1 or keyword.iskeyword(name) or re.fullmatch(MADE, name)
        if taken or not name.isidentifier():
            raise ValueError(f"{neuron.name}: expected another name than {name!r}, which is taken")


def generate(neuron: Neuron, options: dict, variant: Variant, is_recurrent: bool, backend: str) -> Sources:
    """Generate the kernels of a neuron.

    Args:
        neuron: whose update it is.
        options: a value for each of its options.
        variant: what the kernels are made for.
        is_recurrent: whether there is a second input.
        backend: "numba" or "triton".

    Raises:
        UnsupportedError: if the update cannot be turned into a kernel, or not for this variant.
    """
    check_names(neuron)
    traced = trace(neuron, options, is_recurrent, variant.is_smooth)
    if variant.is_given:
        _check_given(neuron, traced)
    inputs = (INPUT, FEEDBACK) if is_recurrent else (INPUT,)
    parameters = neuron.prepared
    chosen = plan(traced, parameters, (INPUT, *variant.learned), variant.is_exact, variant.is_given)
    frame = (_Numba if backend == "numba" else _Triton)(
        tuple(neuron.states), parameters, inputs, traced, chosen, variant
    )
    return Sources(frame.forward(), frame.backward(), len(chosen.saved), chosen.keeps_input)


def _check_given(neuron: Neuron, traced: Traced) -> None:
    output, places = traced.output, {u for _, u in traced.fired}
    if not isinstance(output, Node) or output.op != "hard" or places != {output.args[0]}:
        raise UnsupportedError(
            f"surrogate: expected one of htaf_snn with numbers as parameters, such as 'htaf', for {neuron.name}, whose "
            "output is not simply the step of one potential; or backend='torch'"
        )


def _words(lines: Iterable[str]) -> set[str]:
    return set(re.findall(r"\w+", "\n".join(lines)))


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


@dataclass(frozen=True)
class _Frame:
    """The loops around a neuron's statements."""

    states: tuple[str, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    traced: Traced
    plan: Plan
    variant: Variant

    def used(self, names: Iterable[str], *texts: Sequence[str]) -> list[str]:
        """Return those names that statements mention."""
        words = _words(line for text in texts for line in text)
        return [name for name in names if name in words]

    def source(self, name: str, first: list[str], body: list[str], constants: str = "") -> Source:
        """Return a kernel with those of all possible arguments that its body mentions."""
        arrays = [
            *(f"{x}_all" for x in self.inputs), "grad_output_all", "grad_states_all", "grad_end_all", "start_all",
            *self.parameters, *(f"{p}_all" for p in self.parameters), "hard_share", "soft_share",
            *(f"p{i}" for i in range(self.variant.values)), "slope_all", "output_all", "saved_all", "states_all",
            "end_all", "grad_x_all", "grad_fired_all", "grad_start_all",
            "grad_parameters_all", "steps", "size",
        ]  # fmt: skip
        assigned = {line.strip().partition(" = ")[0] for line in body if " = " in line}
        arguments = [*first, *(a for a in self.used(arrays, body) if a not in assigned)]
        head = f"def {name}({', '.join(arguments)}{constants}):"
        return Source("\n".join([head, *_indented(body)]) + "\n", tuple(arguments))

    def backward_inputs(self) -> tuple[str, ...]:
        return self.inputs if self.plan.keeps_input else ()

    def backward_outputs(self) -> list[str]:
        """Return the names of the gradients that are written at each time step."""
        # That of a second input is the same, as the two are added.
        return ["grad_x", *(["grad_fired"] if self.variant.is_given else [])]


class _Numba(_Frame):
    """A block of neurons that stays in the cache, all its time steps, and one loop over the block for everything."""

    def blocks(self, name: str, before: list[str], loop: list[str], after: list[str]) -> Source:
        arrays = [f"{p}_block" for p in self.parameters]
        parameters = [f"{p} = {p.removesuffix('_block')}_all[begin:end]" for p in self.used(arrays, loop)]
        block = [f"end = min(begin + {_BLOCK}, highest)", "size = end - begin", *parameters, *before, *loop, *after]
        body = [f"for begin in range(lowest, highest, {_BLOCK}):", *_indented(block)]
        return self.source(name, ["lowest", "highest"], body)

    def elements(self, *texts: Sequence[str]) -> list[str]:
        scalars = self.variant.scalars
        return [f"{p} = {p}_block[n]" for p in self.used(self.parameters, *texts) if p not in scalars]

    @staticmethod
    def neurons(lines: list[str]) -> list[str]:
        return ["for n in range(size):", *_indented(lines)]

    def forward(self) -> Source:
        lines, saved = forward_statements(self.traced, self.plan, self.variant)
        keep = self.states if self.variant.keeps else ()
        rows = [f"{x}_row = {x}_all[step, begin:end]" for x in (*self.inputs, "output")]
        rows += [f"saved{i}_row = saved_all[{i}, step, begin:end]" for i in range(len(saved))]
        rows += [f"{s}_row = states_all[{i}, step, begin:end]" for i, s in enumerate(keep)]
        narrow = "{}" if self.variant.is_exact else "narrowed({})"
        loop = [
            *(f"{x} = {x}_row[n]" for x in self.inputs), *(f"{s} = {s}_block[n]" for s in self.states),
            *self.elements(lines), *lines, "output_row[n] = output",
            *(f"saved{i}_row[n] = {narrow.format(name)}" for i, name in enumerate(saved)),
            *(f"{s}_row[n] = {new(s)}" for s in keep), *(f"{s}_block[n] = {new(s)}" for s in self.states),
        ]  # fmt: skip
        return self.blocks(
            "forward",
            [f"{s}_block = start_all[{i}, begin:end].copy()" for i, s in enumerate(self.states)],
            ["for step in range(output_all.shape[0]):", *_indented([*rows, *self.neurons(loop)])],
            [f"end_all[{i}, begin:end] = {s}_block" for i, s in enumerate(self.states)],
        )

    def backward(self) -> Source:
        made, keep = backward_statements(self.traced, self.plan, self.variant), self.variant.keeps
        wide = "{}" if self.variant.is_exact else "widened({})"
        reads = {x: f"{x}_all[step, begin:end]" for x in (*self.backward_inputs(), "grad_output")}
        reads |= {"slope": "slope_all[step, begin:end]"} if self.variant.is_given else {}
        reads |= {f"saved{i}": f"saved_all[{i}, step, begin:end]" for i, name in enumerate(made.loaded) if name}
        reads |= {f"end_{s}": f"grad_states_all[{i}, step, begin:end]" for i, s in enumerate(self.states) if keep}
        writes = {name: f"{name}_all[step, begin:end]" for name in self.backward_outputs()}
        loop = [f"{x} = {x}_row[n]" for x in reads if x in (*self.inputs, "grad_output", "slope")]
        loop += [f"{name} = {wide.format(f'saved{i}_row[n]')}" for i, name in enumerate(made.loaded) if name]
        loop += [f"grad_{s} = grad_{s}_block[n]" + (f" + end_{s}_row[n]" if keep else "") for s in self.states]
        loop += [f"{name} = {name}_block[n]" for name, _, _ in made.before]
        loop += [*self.elements(made.statements), *made.statements, *(f"{name}_row[n] = {name}" for name in writes)]
        loop += [f"grad_{s}_block[n] = grad_{s}_before" for s in self.states]
        loop += [f"grad_{p}_block[n] += grad_{p}" for p in self.variant.learned]
        before = [f"grad_{s}_block = grad_end_all[{i}, begin:end].copy()" for i, s in enumerate(self.states)]
        before += [f"{name}_block = np.empty_like(grad_{self.states[0]}_block)" for name, _, _ in made.before]
        before += [f"grad_{p}_block = grad_parameters_all[{i}, begin:end]" for i, p in enumerate(self.variant.learned)]
        rows = [f"{name}_row = {array}" for name, array in (reads | writes).items()]
        step = [*rows, *self.earlier(made.before, wide), *self.neurons(loop)]
        return self.blocks(
            "backward",
            before,
            ["for step in range(grad_output_all.shape[0] - 1, -1, -1):", *_indented(step)],
            [f"grad_start_all[{i}, begin:end] = grad_{s}_block" for i, s in enumerate(self.states)],
        )

    def earlier(self, before: list[tuple[str, list[str], list[str]]], wide: str) -> list[str]:
        """Return loops that fill the blocks with what is needed of the time step before."""
        if not before:
            return []
        then = {f"kept{i}": (f"saved_all[{i}, step - 1, begin:end]", wide) for i in range(len(self.plan.saved))}
        then |= {x: (f"{x}_all[step - 1, begin:end]", "{}") for x in self.inputs}
        start = {s: (f"start_all[{i}, begin:end]", "{}") for i, s in enumerate(self.states)}
        stores = [f"{name}_block[n] = {name}" for name, _, _ in before]
        body = []
        for head, arrays, place in (("if step > 0:", then, 1), ("else:", start, 2)):
            lines = [line for one in before for line in one[place]]
            read = {name: arrays[name] for name in self.used(arrays, lines)}
            rows = [f"{name}_{'start' if place == 2 else 'then'}_row = {array}" for name, (array, _) in read.items()]
            loads = [
                f"{name} = {form.format(row.partition(' = ')[0] + '[n]')}"
                for row, (name, (_, form)) in zip(rows, read.items(), strict=True)
            ]
            body += [head, *_indented([*rows, *self.neurons([*loads, *self.elements(lines), *lines, *stores])])]
        return body


def bits_source(neuron: Neuron, options: dict, scalars: Sequence[str]) -> Source:
    """Generate the kernel that gives the spikes of inputs (T, B, F) as words (T, B, K), for Numba.

    It computes 64 neurons at a time, all their time steps, and keeps nothing for a backward pass.

    Raises:
        UnsupportedError: if the update has functions such as exp, whose rounding may differ between kernels.
    """
    traced = trace(neuron, options, False, False)
    operations = {node.op for node in in_order([traced.output, *traced.states.values()])}
    if unknown := operations - {"input", "hard", "where", "not", "neg", "div", *INFIX}:
        raise UnsupportedError(f"{neuron.name}: expected plain arithmetic, got {', '.join(sorted(unknown))}")
    lines = update_lines(traced)
    arrays = [p for p in neuron.prepared if p not in scalars]
    states = list(neuron.states)
    loop = [
        "x = x_row[n]", *(f"{s} = {s}_block[n]" for s in states), *(f"{p} = {p}_block[n]" for p in arrays), *lines,
        *(f"{s}_block[n] = {new(s)}" for s in states), "inside[n] = output > 0.0",
    ]  # fmt: skip
    block = [
        "begin = at % out_all.shape[2] * 64", "row = at // out_all.shape[2]", "end = min(begin + 64, x_all.shape[2])",
        *(f"{p}_block = {p}_all[begin:end]" for p in arrays),
        *(f"{s}_block = start_all[{i}, begin:end].copy()" for i, s in enumerate(states)), "inside[:] = 0",
        "for step in range(out_all.shape[0]):", *_indented([
            "x_row = x_all[step, row, begin:end]", "for n in range(end - begin):", *_indented(loop),
            "out_all[step, row, at % out_all.shape[2]] = plane_word(inside.view(np.uint64), 0, 0)",
        ]),
    ]  # fmt: skip
    body = ["inside = np.empty(64, np.uint8)", "for at in range(lowest, highest):", *_indented(block)]
    names = ["lowest", "highest", "x_all", "start_all", "out_all", *scalars, *(f"{p}_all" for p in arrays)]
    return Source("\n".join([f"def spikes({', '.join(names)}):", *_indented(body)]) + "\n", tuple(names))


def _load(pointer: str, mask: str = "inside") -> str:
    return f"tl.load({pointer}, mask={mask}, other=0.0).to(tl.float32)"


def _store(pointer: str, value: str) -> str:
    return f"tl.store({pointer}, {value}, mask=inside)"


def _entry(array: str, index: int, steps: str = "") -> str:
    """Return the pointer to an entry of an array (…, N), or (…, T, N), at this block of neurons, or this time step."""
    return f"{array}_all + {f'{index} * {steps}row + ' if index else ''}{'at' if steps else 'n'}"


def _carried(name: str, value: str, expression: Argument, scalars: Iterable[str]) -> str:
    """Return an assignment to what the loop carries on, which stays a block if it becomes one number for all."""
    if not isinstance(expression, Node):
        return f"{name} = tl.zeros_like({name}) + {value}"
    return f"{name} = tl.broadcast_to({value}, (BLOCK,))" if made_of(expression, set(scalars)) else f"{name} = {value}"


class _Triton(_Frame):
    """A program for each block of neurons, with the states in registers."""

    def program(self, name: str, before: list[str], loop: list[str], after: list[str]) -> Source:
        values = [f"tl.load({p}_all)" if p in self.variant.scalars else _load(f"{p}_all + n") for p in self.parameters]
        loads = {p: f"{p} = {value}" for p, value in zip(self.parameters, values, strict=True)}
        body = [
            "n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)", "inside = n < size",
            "row = tl.cast(size, tl.int64)", *(loads[p] for p in self.used(self.parameters, loop)), *before,
            "for step in tl.range(steps, num_stages=STAGES):", *_indented(loop), *after,
        ]  # fmt: skip
        return self.source(name, [], body, constants=", BLOCK: tl.constexpr, STAGES: tl.constexpr")

    def forward(self) -> Source:
        lines, saved = forward_statements(self.traced, self.plan, self.variant)
        keep = self.states if self.variant.keeps else ()
        narrow = "{}" if self.variant.is_exact else "narrowed({})"
        loop = [
            *(f"{x} = {_load(f'{x}_all + at')}" for x in self.inputs), *lines, _store("output_all + at", "output"),
            *(_store(_entry("saved", i, "steps * "), narrow.format(name)) for i, name in enumerate(saved)),
            *(_store(_entry("states", i, "steps * "), new(s)) for i, s in enumerate(keep)),
            *(_carried(s, new(s), self.traced.states[s], self.variant.scalars) for s in self.states), "at += row",
        ]  # fmt: skip
        before = [f"{s} = {_load(_entry('start', i))}" for i, s in enumerate(self.states)]
        after = [_store(_entry("end", i), s) for i, s in enumerate(self.states)]
        return self.program("forward", [*before, "at = n"], loop, after)

    def backward(self) -> Source:
        made, variant = backward_statements(self.traced, self.plan, self.variant), self.variant
        wide = "{}" if variant.is_exact else "widened({})"
        loop = [f"{x} = {_load(f'{x}_all + at')}" for x in (*self.backward_inputs(), "grad_output")]
        loop += [f"{name} = {wide.format(self.kept(i))}" for i, name in enumerate(made.loaded) if name]
        keep = self.states if variant.keeps else ()
        loop += [f"grad_{s} += {_load(_entry('grad_states', i, 'steps * '))}" for i, s in enumerate(keep)]
        loop += [f"slope = {_load('slope_all + at')}"] if variant.is_given else []
        loop += [*self.earlier(made.before, wide), *made.statements]
        loop += [_store(f"{name}_all + at", name) for name in self.backward_outputs()]
        gradients = self.plan.gradients
        loop += [_carried(f"grad_{s}", f"grad_{s}_before", gradients[s], variant.scalars) for s in self.states]
        loop += [*(f"sum_{p} += grad_{p}" for p in variant.learned), "at -= row"]
        before = [f"grad_{s} = {_load(_entry('grad_end', i))}" for i, s in enumerate(self.states)]
        before += [f"sum_{p} = tl.zeros_like(grad_{self.states[0]})" for p in variant.learned]
        before += [f"{s}_start = {_load(_entry('start', i))}" for i, s in enumerate(self.states) if made.before]
        after = [_store(_entry("grad_start", i), f"grad_{s}") for i, s in enumerate(self.states)]
        after += [_store(_entry("grad_parameters", i), f"sum_{p}") for i, p in enumerate(variant.learned)]
        return self.program("backward", [*before, "at = n + (steps - 1) * row"], loop, after)

    def kept(self, index: int, back: str = "", mask: str = "inside") -> str:
        pointer = _entry("saved", index, "steps * ") + back
        return _load(pointer, mask) if self.variant.is_exact else f"tl.load({pointer}, mask={mask}, other=0)"

    def earlier(self, before: list[tuple[str, list[str], list[str]]], wide: str) -> list[str]:
        """Return statements for what is needed of the time step before."""
        lines = ["later = inside & (step < steps - 1)"] if before else []
        kept = [f"kept{i}" for i in range(len(self.plan.saved))]
        then = [line for _, one, _ in before for line in one]
        for i, name in enumerate(kept):
            if self.used([name], then):
                lines.append(f"{name}_then = {wide.format(self.kept(i, ' - row', 'later'))}")
        lines += [f"{x}_then = {_load(f'{x}_all + at - row', 'later')}" for x in self.used(self.inputs, then)]
        names = {name: f"{name}_then" for name in (*kept, *self.inputs)} | {s: f"{s}_start" for s in self.states}
        for name, one, start in before:
            lines += [*_renamed(one, names, name, "then"), *_renamed(start, names, name, "start")]
            lines.append(f"{name} = tl.where(step < steps - 1, {name}_then, {name}_start)")
        return lines


def _renamed(lines: Sequence[str], names: dict[str, str], own: str, suffix: str) -> list[str]:
    """Return statements that read and assign other names."""
    assigned = [line.partition(" = ")[0] for line in lines]
    names = {**names, **{name: f"{own}_{name}_{suffix}" for name in assigned}, own: f"{own}_{suffix}"}
    return [re.sub(r"\b[A-Za-z_]\w*", lambda word: names.get(word[0], word[0]), line) for line in lines]
