"""A kernel's specification: what it is generated from, as text that an operator can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...neurons import NEURONS
from ...neurons.base import Neuron
from ...surrogate.formula import Formula, formula_named
from ..fingerprint import Reads, fingerprint
from .cache import cached_file, read_sources, write_sources
from .source import Sources, generate
from .statements import Variant
from .trace import UnsupportedError

_FLAGS = ("is_smooth", "is_given", "is_rounded", "keeps", "is_recurrent")


@dataclass(frozen=True)
class Kernel:
    """What kernels are generated from.

    Attributes:
        neuron: its name.
        options: for each of its options the index of the value.
        learned: the parameters of its update that get a gradient.
        formula: the surrogate's name; empty if the neuron needs none.
        flags: those of `_FLAGS` that hold.
    """

    neuron: str
    options: tuple[int, ...]
    learned: tuple[str, ...]
    formula: str
    flags: tuple[str, ...]

    def __str__(self) -> str:
        parts = (self.neuron, ",".join(map(str, self.options)), ",".join(self.learned), self.formula)
        return ";".join((*parts, ",".join(self.flags)))

    @property
    def definition(self) -> Neuron:
        return NEURONS[self.neuron]

    def surrogate(self) -> Formula | None:
        """Return the surrogate's formula, None if the neuron needs none."""
        return formula_named(self.formula) if self.formula else None

    def learned_places(self) -> tuple[int, ...]:
        """Return the places of the learned parameters among those of the update."""
        return tuple(self.definition.prepared.index(name) for name in self.learned)

    def scalars(self, parameters: Sequence[Tensor]) -> tuple[str, ...]:
        """Return the names of those parameters that are one number for all neurons."""
        named = zip(self.definition.prepared, parameters, strict=True)
        return tuple(name for name, tensor in named if not tensor.ndim)

    def saved_dtype(self, start: Sequence[Tensor]) -> torch.dtype:
        """Return the dtype of what is saved."""
        return torch.bfloat16 if self.is_rounded else start[0].dtype

    def at(self, hardness: float, scalars: tuple[str, ...], backend: str) -> Kernel:
        """Return the kernel to run at a hardness: that for spikes, if it is 1 and both have the same backward pass.

        A compiled graph with a variable hardness has the one for any hardness.
        """
        if not self.is_smooth or hardness != 1:
            return self
        hard = replace(self, flags=tuple(flag for flag in self.flags if flag != "is_smooth"))
        same = hard.sources(scalars, backend).backward == self.sources(scalars, backend).backward
        return hard if same else self

    def sources(self, scalars: tuple[str, ...], backend: str) -> Sources:
        """Generate the kernels for parameters of which some are one number for all neurons."""
        read = _read(self.definition)
        formula = self.surrogate()
        count = len(formula.parameters) if formula else 0
        return _generated(self, self.definition, read, count, scalars, backend)

    def __getattr__(self, name: str) -> bool:
        if name in _FLAGS:
            return name in self.flags
        raise AttributeError(name)


@lru_cache(maxsize=256)
def parsed(text: str) -> Kernel:
    """Return the kernel whose text it is."""
    neuron, options, learned, formula, flags = text.split(";")
    return Kernel(neuron, tuple(map(int, _split(options))), _split(learned), formula, _split(flags))


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def chosen(neuron: Neuron, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the index of each option's value."""
    return tuple(values.index(options[name]) for name, values in neuron.options.items())


_reads: WeakKeyDictionary[Neuron, Reads] = WeakKeyDictionary()


def _read(neuron: Neuron) -> tuple:
    """Return what an update reads from outside, in the present: numbers may change, and functions be defined again."""
    reads = _reads.get(neuron)
    if reads is None or reads.has_other_code():
        reads = _reads[neuron] = Reads(neuron.update)
    return reads.values()


@lru_cache(maxsize=256)
def _generated(
    kernel: Kernel, neuron: Neuron, read: tuple, count: int, scalars: tuple[str, ...], backend: str
) -> Sources:
    values = zip(neuron.options.items(), kernel.options, strict=True)
    options = {name: choices[index] for (name, choices), index in values}
    variant = Variant(
        count, kernel.learned, scalars, kernel.is_smooth, kernel.is_given, not kernel.is_rounded, kernel.keeps
    )
    others = _reads[neuron].others()
    if others:
        raise UnsupportedError(
            f"{neuron.name}: expected an update that reads nothing but its arguments, numbers and text, got "
            f"{', '.join(others)} from outside; make it a parameter or an option, or take torch's function for it; "
            "backend='torch' computes it"
        )
    own = (neuron.states, neuron.prepared, options, variant, kernel.is_recurrent, backend)
    file = cached_file(repr((*own, fingerprint(neuron.update))))
    sources = read_sources(file)
    if sources is None:
        sources = generate(neuron, options, variant, kernel.is_recurrent, backend)
        write_sources(file, sources)
    return sources
