"""What every neuron's file declares: an update of one time step, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

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
        learns_at_rest: whether a parameter that gives a state at rest gets a gradient through that.
        spikes: whether the update takes `spike`.
        prepared: the names of the parameters that the update takes.
        key: what operators find it by; the name, but of a user's own with a digest.

    Example:
        >>> def update(x, v, *, threshold, spike):
        ...     s = spike(v + x - threshold)
        ...     return s, v + x - s * threshold
        >>> made = Neuron("integrator", update, states={"v": 0.0}, parameters={"threshold": 1.0})
        >>> made.title, made.spikes
        ('Integrator', True)
    """

    name: str
    update: Callable
    states: Mapping[str, float | str]
    parameters: Mapping[str, float | None]
    options: Mapping[str, tuple] = field(default_factory=dict)
    clamped: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    greater: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable | None = None
    learns_at_rest: bool = True
    spikes: bool = True
    # Not properties: the compiler reads them.
    prepared: tuple[str, ...] = field(init=False)
    key: str = field(init=False)

    @property
    def title(self) -> str:
        """The name of its layer."""
        return "".join(_SPELT.get(part, part.capitalize()) for part in self.name.split("_"))

    def __post_init__(self):
        names = tuple(self.parameters)
        if self.prepare is not None:
            names = tuple(self.prepare(**{name: torch.tensor(0.5) for name in names}))
        object.__setattr__(self, "prepared", names)
        object.__setattr__(self, "key", self.name)


class Sum:
    """Two inputs, that of the layer before and that of the recurrent weights.

    `state + x` adds one after the other, in the order of the libraries; anything else takes their sum.
    """

    def __init__(self, *terms: Tensor):
        self.terms = terms

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in _ADDITIONS and not isinstance(args[0], cls):
            start, given = args
            for term in given.terms:
                start = start + term
            return start
        whole = [sum(arg.terms[1:], start=arg.terms[0]) if isinstance(arg, cls) else arg for arg in args]
        return function(*whole, **kwargs or {})


_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__)


def _on_the_sum(name: str) -> Callable:
    return lambda self, *others: Sum.__torch_function__(getattr(Tensor, name), (), (self, *others))


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "neg", "pow", "gt", "lt", "ge", "le"):
    setattr(Sum, f"__{_name}__", _on_the_sum(f"__{_name}__"))
