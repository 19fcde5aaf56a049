"""What every neuron's file declares: an update of one time step, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

RESETS = ("subtract", "zero", "none")
_SPELT = {"lif": "LIF", "li": "LI", "iaf": "IAF", "lsnn": "LSNN", "adex": "AdEx"}
_SPELT |= {"rleaky": "RLeaky", "rsynaptic": "RSynaptic"}


@dataclass(frozen=True, eq=False)
class Neuron:
    """A spiking neuron: the update of one time step, from which its kernels, gradients and layer are made.

    Attributes:
        name: a Python identifier.
        update: maps the input of one time step and the states, tensors of one shape, to the output and the new states,
            in plain arithmetic and torch's elementwise functions. It takes the parameters, the options and, where the
            neuron spikes, `spike` by keyword. `spike(u)` is 1 where u > 0 and else 0, with a surrogate gradient; below
            hardness 1 it is smooth in the output, and hard in the states. `spike.hard(u)` is hard in both: for resets
            that come before the output.
        states: the value of each state at rest, a number or the name of a parameter.
        parameters: the default of each parameter, a number, or None where one has to be given.
        options: the values that each option may have, the default first. Python's control flow may depend on them.
        clamped: parameters that are clamped into a range before use.
        greater: parameters that have to be greater than another.
        prepare: maps the parameters, by keyword, to those of the update, once and before the first time step; by
            default they are the same.
        spikes: whether the update takes `spike`.
        prepared: the names of the parameters that the update takes.
    """

    name: str
    update: Callable
    states: Mapping[str, float | str]
    parameters: Mapping[str, float | None]
    options: Mapping[str, tuple] = field(default_factory=dict)
    clamped: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    greater: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable | None = None
    spikes: bool = True
    # Not a property: the compiler reads it.
    prepared: tuple[str, ...] = field(init=False)

    @property
    def title(self) -> str:
        """The name of its layer."""
        return "".join(_SPELT.get(part, part.capitalize()) for part in self.name.split("_"))

    def __post_init__(self):
        names = tuple(self.parameters)
        if self.prepare is not None:
            names = tuple(self.prepare(**{name: torch.tensor(0.5) for name in names}))
        object.__setattr__(self, "prepared", names)


class Sum:
    """Two inputs, that of the layer before and that of the recurrent weights, added one after the other."""

    def __init__(self, *terms):
        self.terms = terms

    def __radd__(self, start):
        for term in self.terms:
            start = start + term
        return start
