"""The statements of one time step, forwards and backwards, as text that every backend compiles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...surrogate.vocabulary import NAMES
from .graph import CONDITIONS, Argument, Node, in_order
from .plan import Plan
from .trace import FEEDBACK, INPUT, Traced

INFIX = {
    "or": (" | ", 0), "and": (" & ", 0), "gt": (" > ", 1), "lt": (" < ", 1), "ge": (" >= ", 1), "le": (" <= ", 1),
    "eq": (" == ", 1), "ne": (" != ", 1), "add": (" + ", 2), "sub": (" - ", 2), "mul": (" * ", 3),
}  # fmt: skip
NEGATED, ATOM, _LONGEST = 4, 5, 70

# Names that a kernel uses for itself.
RESERVED = frozenset(
    "lowest highest begin end size steps step row later n at inside tl range min np hard_share soft_share primitive "
    "derivative between narrowed widened output slope spike smooth surrogate state learn backend save_dtype "
    "checkpoint_every abs divide log sqrt sin cos BLOCK STAGES".split()
) | {INPUT, FEEDBACK, *NAMES}
MADE = r"(grad|sum)_.*|(c|y|p|kept|before|spike|smooth|slope)\d+|.*_(all|block|row|new|before|then|start)"


@dataclass(frozen=True)
class Variant:
    """What a kernel is made for, besides the update and its options.

    Attributes:
        values: the number of the surrogate's parameters.
        learned: the parameters that get a gradient.
        scalars: the parameters that are one number for all neurons.
        is_smooth: whether the output is that of a surrogate below hardness 1.
        is_given: whether another callable gives spikes and derivatives: the forward pass returns potentials above
            threshold, and the backward pass the gradient of the spikes.
        is_exact: whether what is saved is not rounded to bfloat16.
        keeps: whether all states after each time step are returned.
    """

    values: int
    learned: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    is_smooth: bool = False
    is_given: bool = False
    is_exact: bool = True
    keeps: bool = False


class Statements:
    """Assignments that compute expressions from values that have names already."""

    def __init__(self, names: Mapping[Node, str], values: int):
        self.names = dict(names)
        self.lines: list[str] = []
        self._parameters = "".join(f", p{i}" for i in range(values))
        self._counts: Counter[str] = Counter()

    def assign(self, wanted: Mapping[str, Argument]) -> None:
        """Compute each expression into a variable of the name given; if it has one already, as another name for it."""
        uses: Counter[Node] = Counter()
        order: list[Node] = []
        for root in wanted.values():
            self._visit(root, order, uses)
        chosen = {root: name for name, root in wanted.items() if isinstance(root, Node) and root not in self.names}
        self._counts.update(chosen.values())
        for node in order:
            if node in chosen or uses[node] > 1 or len(self.text(node)) > _LONGEST or node.op in ("soft", "slope"):
                line = self.text(node)
                self.names[node] = chosen.get(node) or self._name(node)
                self.lines.append(f"{self.names[node]} = {line}")
        for name, root in wanted.items():
            if not isinstance(root, Node) or self.names[root] != name:
                self.lines.append(f"{name} = {self.text(root)}")

    def rebuild(self, rebuilt: Mapping[Node, Argument], wanted: Iterable[Argument]) -> None:
        """Compute those potentials that the expressions contain, so that they are not computed otherwise."""
        uses: Counter[Node] = Counter()
        for root in wanted:
            self._visit(root, [], uses)
        for node, expression in rebuilt.items():
            if node in uses:
                name = self._name(node)
                self.lines.append(f"{name} = {self.text(expression)}")
                self.names[node] = name

    def _visit(self, node: Argument, order: list[Node], uses: Counter[Node]) -> None:
        if not isinstance(node, Node) or node in self.names:
            return
        uses[node] += 1
        if uses[node] == 1:
            for arg in node.nodes:
                self._visit(arg, order, uses)
            order.append(node)

    def _name(self, node: Node) -> str:
        stem = {"hard": "spike", "soft": "smooth", "slope": "slope"}.get(node.op, "c" if node.op in CONDITIONS else "y")
        self._counts[stem] += 1
        return (
            stem if stem in ("spike", "slope", "smooth") and self._counts[stem] == 1 else f"{stem}{self._counts[stem]}"
        )

    def text(self, node: Argument, strength: int = 0) -> str:
        """Return an expression, in parentheses if it binds weaker than asked."""
        text, own = self._text(node)
        return text if own >= strength else f"({text})"

    def _text(self, node: Argument) -> tuple[str, int]:
        if not isinstance(node, Node):
            number = "(1e999 - 1e999)" if node != node else repr(float(node)).replace("inf", "1e999")
            return number, NEGATED if node < 0 else ATOM
        if node in self.names:
            return self.names[node], ATOM
        if node.op in INFIX:
            sign, own = INFIX[node.op]
            # Sums and products are computed from the left, as written; others have parentheses.
            # Those with `&` and `|` have them around comparisons, which Python computes after them.
            left, right = (own if own in (2, 3) else own + 1, own + 1) if own else (ATOM, ATOM)
            return f"{self.text(node.args[0], left)}{sign}{self.text(node.args[1], right)}", own
        if node.op == "div":
            return f"divide({self.text(node.args[0])}, {self.text(node.args[1])})", ATOM
        if node.op == "neg":
            return f"-{self.text(node.args[0], NEGATED)}", NEGATED
        if node.op == "hard":
            return f"where({self.text(node.args[0], 2)} > 0.0, 1.0, 0.0)", ATOM
        if node.op == "not":
            return f"where({self.text(node.args[0])}, False, True)", ATOM
        if node.op == "slope":
            return f"derivative({self.text(node.args[0])}{self._parameters})", ATOM
        if node.op == "soft":
            u = self.text(node.args[0])
            hard = f"where({u} > 0.0, 1.0, 0.0)"
            soft = f"between(primitive({u}{self._parameters}), {hard}, soft_share, hard_share)"
            return f"where(soft_share > 0.0, {soft}, {hard})", ATOM  # exact at hardness 1, for NaN too
        return f"{node.op}({', '.join(map(self.text, node.args))})", ATOM


def new(name: str) -> str:
    """Return the name of a state after a time step."""
    return f"{name}_new"


def update_lines(traced: Traced, kind: type[Statements] = Statements) -> list[str]:
    """Return the statements of one time step that compute the output and the new states, and nothing to save.

    Args:
        traced: the update, at hardness 1.
        kind: how they are written.
    """
    wanted = {new(name): value for name, value in traced.states.items()} | {"output": traced.output}
    statements = kind({node: node.args[0] for node in in_order(wanted.values()) if node.op == "input"}, 0)
    statements.assign(wanted)
    return statements.lines


def forward_statements(traced: Traced, plan: Plan, variant: Variant) -> tuple[list[str], list[str]]:
    """Return the statements of one time step forwards, and the names of what is saved of it."""
    output = traced.output
    if variant.is_given:
        assert isinstance(output, Node)
        output = output.args[0]
    wanted: dict[str, Argument] = {new(name): value for name, value in traced.states.items()} | {"output": output}
    names = {node: name for name, node in wanted.items()}
    saved = {node: names.get(node, f"kept{i}") for i, node in enumerate(plan.saved)}
    wanted |= {name: node for node, name in saved.items()}
    known = {node: node.args[0] for node in in_order(wanted.values()) if node.op == "input"}
    statements = Statements(known, variant.values)
    statements.assign(wanted)
    return statements.lines, list(saved.values())


@dataclass(frozen=True)
class Backward:
    """The statements of one time step backwards.

    Attributes:
        loaded: names of what is read at this time step, of the saved values in order, None where one is not needed.
        before: for each value of the time step before: its name, statements that compute it from what was saved then,
            and statements that compute it from the states at the start.
        statements: what follows.
    """

    loaded: list[str | None]
    before: list[tuple[str, list[str], list[str]]]
    statements: list[str]


def backward_statements(traced: Traced, plan: Plan, variant: Variant) -> Backward:
    """Return the statements of one time step backwards."""
    expressions = [
        *plan.gradients.values(),
        *plan.rebuilt.values(),
        *(one for pair in plan.before.values() for one in pair),
    ]
    names = {node: node.args[0] for node in in_order(expressions) if node.op == "input"}
    saved = {node: f"kept{i}" for i, node in enumerate(plan.saved)}
    befores = {}
    for i, node in enumerate(plan.before):
        befores[node] = f"{node.args[0]}_before" if node.op == "input" else f"before{i}"
    wanted: dict[str, Argument] = {f"grad_{name}_before": plan.gradients[name] for name in traced.states}
    wanted |= {f"grad_{name}": value for name, value in plan.gradients.items() if name not in traced.states}
    if variant.is_given:
        total: Argument = 0.0
        for grad, _ in traced.fired:
            total = traced.graph("add", total, grad)
        wanted["grad_fired"] = total
    given = {node: "slope" for node in in_order(wanted.values()) if node.op == "slope"} if variant.is_given else {}
    # A state may be a potential that is computed from a kept distance; at the start it is known.
    start = names
    names = {node: name for node, name in names.items() if node not in plan.rebuilt}
    main = Statements({**names, **saved, **befores, **given}, variant.values)
    main.rebuild(plan.rebuilt, wanted.values())
    main.assign(wanted)
    before = []
    for node, (then, at_start) in plan.before.items():
        earlier, first = Statements({**names, **saved}, variant.values), Statements(start, variant.values)
        earlier.rebuild(plan.rebuilt, [then])
        earlier.assign({befores[node]: then})
        first.assign({befores[node]: at_start})
        before.append((befores[node], earlier.lines, first.lines))
    words = set(re.findall(r"\w+", "\n".join(main.lines)))
    return Backward([name if name in words else None for name in saved.values()], before, main.lines)
