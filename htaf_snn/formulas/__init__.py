"""The mathematics of each surrogate, written once, one file each, and the registry of these formulas.

A file holds `primitive(x, *parameters)`, a smooth stand-in for the step x > 0, and `derivative(x, *parameters)`, its
exact derivative. Optionally `parameter_gradients(x, *parameters)` gives the derivatives of the primitive with
respect to each parameter, which makes the parameters learnable. Tensors and floats both serve as parameters.
"""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from numbers import Real
from pkgutil import iter_modules
from types import FunctionType, ModuleType

from ._vocabulary import NAMES

__all__ = ["Formula", "get", "is_registered", "names", "parse_spec", "register"]


def _is_portable(function: object) -> bool:
    if not isinstance(function, FunctionType) or function.__closure__:
        return False
    named = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    return all(
        name in NAMES or isinstance(value, float) or (name == "abs" and value is None) or _is_portable(value)
        for name, value in named.items()
    )


@dataclass(frozen=True)
class Formula:
    """A smooth step, its derivative, and the parameters that both take.

    Attributes:
        name: what `get` finds it by.
        primitive: h(x, *parameters), elementwise; any floating-point tensor x.
        derivative: h'(x, *parameters), of the same shape. NaN where x is NaN.
        parameter_gradients: the derivatives of h with respect to each parameter, as a tuple, or None where the
            parameters cannot be learned.
        doc: forward formula, gradient formula, figure, arguments, reference, example.
        portable: whether both functions are written with arithmetic, floats, the names of `_vocabulary`, `abs` and
            functions of that kind alone, so that compiled kernels can take them as they are.

    Example:
        >>> def primitive(x, width=1.0):
        ...     return 0.5 + x / (2.0 * (width + abs(x)))
        >>> def derivative(x, width=1.0):
        ...     return 0.5 * width / (width + abs(x)) / (width + abs(x))
        >>> formula = Formula("softstep", primitive, derivative)
        >>> formula.defaults, formula.portable, formula.derivative(0.0, width=2.0)
        ({'width': 1.0}, True, 0.25)
    """

    name: str
    primitive: Callable
    derivative: Callable
    parameter_gradients: Callable | None = None
    doc: str = ""
    portable: bool = field(init=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "portable", _is_portable(self.primitive) and _is_portable(self.derivative))

    @cached_property
    def defaults(self) -> dict[str, float]:
        """Parameter names, in order, with their default values."""
        parameters = list(inspect.signature(self.derivative).parameters.values())[1:]
        return {parameter.name: parameter.default for parameter in parameters}

    def check(self, parameters: dict[str, object]) -> None:
        """Check parameters by name.

        Raises:
            TypeError: if one is not a number.
            ValueError: if one is unknown, not positive, or infinite where its default is finite.
        """
        for name, value in parameters.items():
            if name not in self.defaults:
                expected = ", ".join(self.defaults)
                raise ValueError(f"{self.name} has no parameter {name!r}; expected one of: {expected}")
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name}: expected a number or a floating-point tensor, got {value!r}")
            # The compiler traces a comparison with infinity, but not math.isinf.
            if not value > 0 or (value == math.inf and not self.may_be_infinite(name)):
                raise ValueError(f"{name}: expected a positive finite number, got {value!r}")

    def may_be_infinite(self, name: str) -> bool:
        """Whether infinity is a value of the parameter: it is where it is the default."""
        return math.isinf(self.defaults[name])


def _from_module(module: ModuleType) -> Formula:
    name = module.__name__.rpartition(".")[2]
    gradients = getattr(module, "parameter_gradients", None)
    return Formula(name, module.primitive, module.derivative, gradients, module.__doc__ or "")


# Every file beside this one is a surrogate, but for those with an underscore.
_REGISTRY = {
    formula.name: formula
    for formula in (
        _from_module(import_module(f".{module.name}", __name__))
        for module in iter_modules(__path__)
        if not module.name.startswith("_")
    )
}

# One formula, known by two names.
_REGISTRY["superspike"] = _REGISTRY["fast_sigmoid"]
_REGISTRY["approx_sign"] = _REGISTRY["triangle"]


def names() -> list[str]:
    """The names of all registered formulas, sorted.

    Example:
        >>> "htaf" in names()
        True
    """
    return sorted(_REGISTRY)


def get(name: str) -> Formula:
    """The formula of that name.

    Args:
        name: one of `names()`.

    Raises:
        ValueError: if there is none; the message lists the names.

    Example:
        >>> get("atan").defaults
        {'alpha': 2.0}
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown surrogate {name!r}; expected one of: {', '.join(names())}")
    return _REGISTRY[name]


def is_registered(formula: Formula) -> bool:
    """Whether `get` finds this very formula by its name.

    Args:
        formula: any.

    Example:
        >>> is_registered(get("atan")), is_registered(Formula("atan", abs, abs))
        (True, False)
    """
    return _REGISTRY.get(formula.name) is formula


def _is_redefined(before: Callable, after: Callable) -> bool:
    """Whether a definition was run once more, as in a notebook."""
    return (before.__module__, before.__qualname__) == (after.__module__, after.__qualname__)


def register(formula: Formula) -> Formula:
    """Make a formula known by its name; the same definition once more replaces it.

    `htaf_snn.surrogate.register` does so for the formula of a class.

    Args:
        formula: its name is an identifier.

    Returns:
        The formula.

    Raises:
        TypeError: if it is not a `Formula`.
        ValueError: if the name is taken by another formula or is not an identifier.

    Example:
        >>> register(get("atan")) is get("atan")
        True
        >>> register(Formula("atan", abs, abs))
        Traceback (most recent call last):
            ...
        ValueError: name: 'atan' is taken by another formula
    """
    if not isinstance(formula, Formula):
        raise TypeError(f"formula: expected a Formula, got {type(formula).__name__}")
    if not formula.name.isidentifier():
        raise ValueError(f"name: expected a Python identifier, got {formula.name!r}")
    before = _REGISTRY.get(formula.name, formula)
    if before != formula and not _is_redefined(before.derivative, formula.derivative):
        raise ValueError(f"name: {formula.name!r} is taken by another formula")
    _REGISTRY[formula.name] = formula
    return formula


def parse_spec(text: str) -> tuple[str, dict[str, object]]:
    """Split a specification such as "htaf(alpha=0.5, beta=8)" into a name and keyword arguments.

    Args:
        text: a name, dotted or not, alone or with literal keyword arguments in parentheses.

    Raises:
        TypeError: if text is not a string.
        ValueError: if it is of another form.

    Example:
        >>> parse_spec("htaf(alpha=0.5, beta=8)")
        ('htaf', {'alpha': 0.5, 'beta': 8})
        >>> parse_spec("atan")
        ('atan', {})
        >>> parse_spec("snntorch.sigmoid(slope=5)")
        ('snntorch.sigmoid', {'slope': 5})
    """
    if not isinstance(text, str):
        raise TypeError(f"surrogate: expected a string such as 'htaf(beta=8)', got {text!r}")
    try:
        node = ast.parse(text.strip(), mode="eval").body
        name, keywords = (node.func, node.keywords) if isinstance(node, ast.Call) and not node.args else (node, [])
        parameters = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
    except (SyntaxError, TypeError, ValueError):
        name, keywords, parameters = None, [], {}
    if not isinstance(name, (ast.Name, ast.Attribute)) or None in parameters or len(parameters) != len(keywords):
        raise ValueError(f"surrogate: expected a name or name(key=value, ...) with plain values, got {text!r}")
    return ast.unparse(name), parameters
