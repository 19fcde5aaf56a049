"""What the forward pass keeps for the backward pass, and what the backward pass computes from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from .graph import Argument, Graph, Node, in_order
from .trace import Traced

_COSTS = {"exp": 8, "log": 8, "tanh": 8, "atan": 8, "erfc": 8, "sin": 8, "cos": 8, "soft": 16, "div": 4, "sqrt": 4}
# More candidates than these would have too many subsets to try.
_MOST = 12


@dataclass(frozen=True)
class Plan:
    """The two passes of a neuron.

    Attributes:
        saved: what the forward pass keeps for each time step, apart from the input.
        keeps_input: whether the backward pass needs the input itself.
        rebuilt: potentials that are computed from a kept distance to the threshold, where what is kept is rounded.
        before: what the backward pass needs of the time step before, as an expression of what is kept of it, and at the
            first time step of the states at the start.
        gradients: with respect to the inputs, the states before the time step and the learned parameters, by name.
    """

    saved: tuple[Node, ...]
    keeps_input: bool
    rebuilt: dict[Node, Argument]
    before: dict[Node, tuple[Argument, Argument]]
    gradients: dict[str, Argument]


class _Available:
    """What can be computed in the backward pass from values kept of this time step and of the one before."""

    def __init__(self, graph: Graph, states: dict[Node, Argument], fixed: set[str], kept: frozenset[Node], exact: bool):
        self.graph, self.states, self.fixed, self.kept, self.exact = graph, states, fixed, kept, exact
        self.before: dict[Node, tuple[Argument, Argument]] = {}
        self.rebuilt = {} if exact else dict(filter(None, map(self._rebuilt, kept)))
        self._now: dict[Node, bool] = {}
        self._then: dict[Node, bool] = {}

    def _rebuilt(self, node: Node) -> tuple[Node, Argument] | None:
        """Return the potential whose distance to a parameter is kept, as an expression of that distance."""
        if node.op == "sub" and isinstance(node.args[0], Node) and made_of(node.args[1], self.fixed):
            return node.args[0], self.graph("add", node, node.args[1])
        return None

    def now(self, node: Argument) -> bool:
        if not isinstance(node, Node):
            return True
        if node not in self._now:
            self._now[node] = self._is_now(node)
        return self._now[node]

    def _is_now(self, node: Node) -> bool:
        if node in self.kept or node in self.rebuilt:
            return True
        if node.op == "input":
            return node.args[0] in self.fixed or (node in self.states and self._from_before(node))
        if _is_fired(node) and not self.exact:
            # A rounded potential may lie on the other side of the threshold, but not its distance to it.
            u = node.args[0]
            return isinstance(u, Node) and (u in self.kept or self._from_before(u, must_be_kept=True))
        return all(map(self.now, node.nodes))

    def _from_before(self, node: Node, must_be_kept: bool = False) -> bool:
        """Whether the node is a value of the time step before that can be computed from what is kept of it."""
        then = self.graph.substituted(node, dict(self.states))
        if (must_be_kept and then not in self.kept) or not self.then(then):
            return False
        self.before[node] = then, node
        return True

    def then(self, node: Argument) -> bool:
        if not isinstance(node, Node):
            return True
        if node not in self._then:
            fired = _is_fired(node) and not self.exact
            self._then[node] = (
                node in self.kept
                or node in self.rebuilt
                or (node.op == "input" and node.args[0] in self.fixed)
                or (node.op != "input" and all(map(self._kept_or_number if fired else self.then, node.args)))
            )
        return self._then[node]

    def _kept_or_number(self, node: Argument) -> bool:
        return not isinstance(node, Node) or node in self.kept


def _is_fired(node: Node) -> bool:
    return node.op in ("hard", "soft")


def _cost(nodes: Iterable[Node], kept: frozenset[Node]) -> int:
    return sum(_COSTS.get(node.op, 1) for node in nodes if node not in kept)


def made_of(expression: Argument, names: set[str]) -> bool:
    """Whether an expression depends on inputs of those names alone."""
    return all(node.args[0] in names for node in in_order([expression]) if node.op == "input")


def plan(traced: Traced, parameters: Iterable[str], wanted: Iterable[str], exact: bool, is_given: bool) -> Plan:
    """Choose the fewest values that the backward pass can be computed from, and of those the quickest.

    Args:
        traced: the update.
        parameters: names of all parameters, known at every time step.
        wanted: names of what to differentiate by, the states aside.
        exact: whether what is kept is not rounded.
        is_given: whether the derivatives of the spikes are given, not computed from potentials.
    """
    graph = traced.graph
    fixed = set(parameters)
    states = {graph.input(name): value for name, value in traced.states.items()}
    gradients = {name: traced.gradients[name] for name in (*wanted, *traced.states)}
    order = in_order(gradients.values())
    cotangents = {node.args[0] for node in order if node.op == "input"} - {*fixed, *traced.gradients}
    slopes = frozenset(node for node in order if node.op == "slope" and is_given)
    forward = {node for node in order if not _depends_on(node, cotangents)}
    needed = [
        node for node in forward - slopes
        if any(node in user.args for user in order if user not in forward) or node in gradients.values()
    ]  # fmt: skip
    varying = [node for node in needed if not made_of(node, fixed)]
    arguments = [node.args[0] for node in in_order(varying) if _is_fired(node) or node.op == "slope"]
    candidates = dict.fromkeys([*varying, *arguments, *traced.states.values(), *_inputs(varying, fixed, states)])
    usable = [node for node in candidates if isinstance(node, Node) and node not in states and node.op != "slope"]
    if len(usable) > _MOST:
        ends = (*arguments, *traced.states.values())
        usable = [node for node in usable if node in ends or node.op == "input"]
    for size in range(len(usable) + 1):
        possible = []
        for kept in map(frozenset, combinations(usable, size)):
            available = _Available(graph, states, fixed, kept | slopes, exact)
            if all(map(available.now, varying)):
                possible.append((_cost(_computed(varying, available), kept), kept, available))
        if possible:
            _, kept, available = min(possible, key=lambda one: one[0])
            reached = _reached(varying, available)
            before = {node: value for node, value in available.before.items() if node in reached}
            inputs = {node for node in kept if node.op == "input"}
            saved = tuple(node for node in usable if node in kept and node not in inputs)
            return Plan(saved, bool(inputs), available.rebuilt, before, gradients)
    raise AssertionError("the new states and the input are always enough")


def _depends_on(node: Node, names: set[str]) -> bool:
    return any(one.args[0] in names for one in in_order([node]) if one.op == "input")


def _inputs(nodes: Iterable[Node], fixed: set[str], states: Iterable[Node]) -> list[Node]:
    known = set(states)
    return [n for n in in_order(nodes) if n.op == "input" and n.args[0] not in fixed and n not in known]


def _reached(nodes: Iterable[Argument], available: _Available) -> set[Node]:
    """Return the nodes that the backward pass meets, without what is behind a kept one or one of the step before."""
    reached: set[Node] = set()
    waiting = [node for node in nodes if isinstance(node, Node)]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            if node not in available.kept and node not in available.before and node not in available.rebuilt:
                waiting += node.nodes
    return reached


def _computed(nodes: list[Node], available: _Available) -> list[Node]:
    reached = _reached(nodes, available)
    before = [available.before[node][0] for node in reached if node in available.before]
    return [*reached, *_reached(before, available)]
