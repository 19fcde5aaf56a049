"""A surrogate stretched along its argument, and its gradient multiplied."""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable
from functools import cache
from itertools import count

import torch
from torch import Tensor

from .base import Foreign, Surrogate
from .formula import FORMULAS, Formula, is_registered
from .specifications import WRAPPERS, resolve


class Rescaled(Foreign):
    """A surrogate with another slope and height: surrogate(stretch * x), its gradient multiplied by gain.

    Both factors are positive, so spikes are unchanged, and so is the hardness. Its specification is
    "rescaled(function='htaf', stretch=0.5, gain=2)".

    Args:
        function: the surrogate, in any form, see `resolve`.
        stretch: > 0; a larger one makes it steeper and narrower, with the same area.
        gain: > 0; scales the gradient only.

    Shape:
        Any floating-point tensor; the output has its shape and dtype.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, requires_grad=True)
        >>> Rescaled("atan(alpha=2)", stretch=3.0, gain=0.5)(x).backward()
        >>> x.grad
        tensor([1.5000])
    """

    function: Surrogate
    stretch: float = 1.0
    gain: float = 1.0

    def __post_init__(self):
        self.function = resolve(self.function)
        if not isinstance(self.name, str):
            raise TypeError(f"name: expected text, got {self.name!r}; write stretch= and gain= before numbers")
        for name, value in (("stretch", self.stretch), ("gain", self.gain)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")

    def forward(self, x: Tensor) -> Tensor:
        return self._scaled(self.function, x)

    def at_hardness(self, hardness: float, x: Tensor, /, **parameters: float | Tensor) -> Tensor:
        """Return the output at another hardness than the surrogate's own, see `Surrogate`."""
        return self._scaled(lambda scaled: self.function.at_hardness(hardness, scaled, **parameters), x)

    def in_kernels(self) -> tuple[Formula, dict[str, float | Tensor]] | None:
        """Return the rescaled formula, with its numbers; None of a surrogate without one, see `Surrogate`."""
        own = self.function.in_kernels() if _is_plain(self) and _is_plain(self.function) else None
        if own is None or torch.compiler.is_compiling() or not (is_registered(own[0]) and own[0].is_unchanged()):
            return None
        formula, numbers = own
        stretch, gain = float(self.stretch), float(self.gain)
        if type(self.function) is Rescaled:
            return formula, numbers | {"_stretch": stretch * numbers["_stretch"], "_gain": gain * numbers["_gain"]}
        formula = _rescaled(formula)
        FORMULAS.setdefault(formula.name, formula)
        return formula, numbers | {"_stretch": stretch, "_gain": gain}

    def _scaled(self, surrogate: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        y = surrogate(x if self.stretch == 1 else x * self.stretch)
        # The value is y, as the second term is 0; the gradient is that of y times the gain.
        return y if self.gain == 1 else y.detach() + self.gain * (y - y.detach())


_TEXT = """def primitive(x, {names}):
    return own_primitive(_stretch * x{own})

def derivative(x, {names}):
    return _gain * (_stretch * own_derivative(_stretch * x{own}))
"""


def _is_plain(surrogate: Surrogate) -> bool:
    """Whether a surrogate computes its formula and nothing else, without a forward pass or hooks of its own."""
    hooks = surrogate._forward_hooks or surrogate._forward_pre_hooks or surrogate._backward_hooks
    return type(surrogate).forward in (Surrogate.forward, Rescaled.forward) and not hooks


@cache
def _rescaled(formula: Formula) -> Formula:
    """Return the formula of a rescaled surrogate. The derivative is that of the primitive, multiplied by the gain."""
    own = "".join(f", {name}" for name in formula.parameters)
    text = _TEXT.format(names=", ".join((*formula.parameters, "_stretch", "_gain")), own=own)
    # A name of its own, as a formula may be registered again under the same name.
    name = f"rescaled_{formula.name}_{next(_NUMBERS)}"
    # Kernels are compiled from a function's text.
    linecache.cache[f"<{name}>"] = (len(text), None, text.splitlines(keepends=True), f"<{name}>")
    names: dict = {"__name__": __name__, "own_primitive": formula.primitive, "own_derivative": formula.derivative}
    exec(compile(text, f"<{name}>", "exec"), names)
    return Formula(name, names["primitive"], names["derivative"])


_NUMBERS = count()
WRAPPERS["rescaled"] = Rescaled
