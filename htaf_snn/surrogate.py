"""Surrogates as small modules: the step x > 0 with a surrogate gradient, or the smooth step itself.

Every module takes a floating-point tensor of any shape and returns one of the same shape and dtype. In spike mode
(the default) the forward pass is exactly 0 or 1 and the backward pass uses the formula's derivative; in smooth mode
the forward pass is the formula's primitive. Both work alike in training and in eval mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor, nn

from . import formulas
from .formulas import Formula
from .functional import smooth, spike
from .functional.steps import check_positive

__all__ = [
    "EDE",
    "HTAF",
    "ATan",
    "ClippedSTE",
    "Erfc",
    "FastSigmoid",
    "Gaussian",
    "PiecewiseExp",
    "Rectangle",
    "Sigmoid",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "SwishSign",
    "Triangle",
    "get",
    "names",
    "parse",
    "register",
]

MODES = ("spike", "smooth")
_SHARED = """
mode, Shape, Raises:
    As of `Surrogate`.
"""


def _parameter(name: str) -> property:
    """A formula's parameter as an attribute that can be read and set."""
    return property(
        lambda self: self.values()[name],
        lambda self, value: self._set(name, value),
        doc=f"The parameter {name}; what is set is checked.",
    )


class Surrogate(nn.Module):
    """Base of all surrogates; a subclass names its formula: `class ATan(Surrogate, formula="atan")`.

    Args:
        *values: the formula's parameters, positive numbers, by position.
        **parameters: the same by name.
        mode: "spike", the step with the surrogate gradient, or "smooth", the formula's primitive. The attribute may
            be changed at any time, and so may the parameters: `step.alpha = 3.0`.

    Shape:
        Any floating-point tensor; the output has its shape and dtype. In spike mode it is exactly 0 or 1.

    Raises:
        TypeError: if a parameter is not a number, or there are too many; in the forward pass if the input is not
            floating-point.
        ValueError: if a parameter is unknown, or not positive and finite, or the mode is unknown.

    Example:
        >>> step = ATan(alpha=2.0)
        >>> step(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])
        >>> step.mode = "smooth"
        >>> step(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.0981, 0.5000, 0.9019])
    """

    formula: Formula

    def __init_subclass__(cls, formula: str | Formula | None = None, **kwargs):
        super().__init_subclass__(**kwargs)
        if formula is None:
            return
        cls.formula = formula if isinstance(formula, Formula) else formulas.get(formula)
        cls.__doc__ = cls.__doc__ or cls.formula.doc + _SHARED
        named = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
            for name, default in cls.formula.defaults.items()
        ]
        for name in cls.formula.defaults:
            setattr(cls, name, _parameter(name))
        mode = inspect.Parameter("mode", inspect.Parameter.KEYWORD_ONLY, default="spike")
        cls.__signature__ = inspect.Signature([*named, mode])

    def __init__(self, *values: float, mode: str = "spike", **parameters: float):
        super().__init__()
        names = list(self.formula.defaults)
        if any(isinstance(value, Tensor) for value in values):
            raise TypeError(f"{type(self).__name__}: expected numbers, got a tensor{self._as_function()}")
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__}: expected at most {len(names)} values, got {len(values)}")
        given = {**dict(zip(names, values, strict=False)), **parameters}
        self.formula.check(given)
        self._values = {**self.formula.defaults, **{k: float(v) for k, v in given.items()}}
        self.mode = mode

    @property
    def mode(self) -> str:
        """Either "spike" or "smooth"."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
        self._mode = mode

    @classmethod
    def _as_function(cls) -> str:
        """What to write where the class was called with membrane potentials."""
        return f"; a neuron takes an instance, spike_grad={cls.__name__}(), and a tensor {cls.__name__}()(x)"

    def values(self) -> dict[str, float | Tensor]:
        """The parameters by name, in the formula's order; tensors of learnable ones carry their gradient."""
        return dict(self._values)

    def _set(self, name: str, value: float) -> None:
        self.formula.check({name: value})
        self._values[name] = float(value)

    def forward(self, x: Tensor) -> Tensor:
        return spike(x, self) if self._mode == "spike" else smooth(x, self)

    def extra_repr(self) -> str:
        shown = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in self.values().items()}
        return ", ".join(f"{k}={v!r}" for k, v in {**shown, "mode": self._mode}.items())


class HTAF(Surrogate):
    """Heavy-tailed activation function, sigma(beta * tanh(alpha * x)), our reading of arXiv 2605.11558.

    Forward formula:
        spike mode: 1 where x > 0, else 0; smooth mode: h(x) = sigma(beta * tanh(alpha * x))

    Gradient formula:
        h'(x) = alpha * beta * h(x) * (1 - h(x)) * (1 - tanh(alpha * x)**2), in both modes. The defaults give peak 1.

    Figure:
        `htaf-snn profile htaf --plot htaf.png`

    Args:
        alpha: steepness, > 0; a number, or a tensor that broadcasts to the input, such as (C, 1, 1) for one value a
            channel of (B, C, H, W).
        beta: saturation, > 0; likewise. The tail is heavier than a sigmoid's of the same peak when beta > 2.
        normalized: stretch the smooth step so that it reaches 0 and 1; the gradient is stretched with it.
        learnable: make alpha and beta trainable, or those of the two that it names, as in ("alpha",). They are kept as
            `log_alpha` and `log_beta`, so they stay positive, and are part of `state_dict`. In spike mode they receive
            the gradient of the smooth step.
        mode: "spike" or "smooth".

    Shape:
        As of `Surrogate`; in smooth mode from sigma(-beta) to sigma(beta), normalized from 0 to 1.

    Raises:
        TypeError: if alpha or beta is neither a number nor a floating-point tensor.
        ValueError: if a value is not positive and finite, a tensor requires a gradient but `learnable` is not set,
            or the mode is unknown.

    Reference:
        Park et al. 2026, arXiv 2605.11558; only the abstract was available to us.

    Example:
        >>> HTAF(alpha=0.5, beta=8.0)
        HTAF(alpha=0.5, beta=8.0, mode='spike')
        >>> x = torch.zeros(1, requires_grad=True)
        >>> HTAF()(x).backward()
        >>> x.grad
        tensor([1.])
    """

    def __init__(
        self,
        alpha: float | Tensor = 1.0,
        beta: float | Tensor = 4.0,
        *,
        normalized: bool = False,
        learnable: bool | Collection[str] = False,
        mode: str = "spike",
    ):
        given = {"alpha": alpha, "beta": beta}
        self.normalized = normalized
        self.learnable = tuple(given) if learnable is True else tuple(learnable or ())
        if isinstance(learnable, str) or not set(self.learnable) <= set(given):
            raise ValueError(f"learnable: expected True, False or names of alpha and beta, got {learnable!r}")
        super().__init__(mode=mode, **{k: v for k, v in given.items() if not isinstance(v, Tensor)})
        for name, value in given.items():
            if isinstance(value, Tensor):
                self._check_tensor(name, value)
            if name in self.learnable:
                start = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
                self.register_parameter(f"log_{name}", nn.Parameter(start.log()))
            elif isinstance(value, Tensor):
                self.register_buffer(f"fixed_{name}", value.detach().clone())

    alpha, beta = _parameter("alpha"), _parameter("beta")

    def _check_tensor(self, name: str, value: Tensor) -> None:
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected a number or a floating-point tensor, got {value.dtype}")
        if value.requires_grad and name not in self.learnable:
            raise ValueError(f"{name}: expected a tensor without gradient, got a trainable one; pass learnable=True")
        try:
            check_positive(name, value, self.formula)
        except ValueError as error:
            raise ValueError(f"{error}{self._as_function() if value.ndim > 1 else ''}") from None

    def _set(self, name: str, value: float | Tensor) -> None:
        if isinstance(value, Tensor):
            self._check_tensor(name, value.detach())
        else:
            self.formula.check({name: value})
        if name in self.learnable:
            with torch.no_grad():
                getattr(self, f"log_{name}").copy_(torch.as_tensor(value).log())
        elif isinstance(value, Tensor):
            self.register_buffer(f"fixed_{name}", value.detach().clone())
        else:
            self._buffers.pop(f"fixed_{name}", None)
            self._values[name] = float(value)

    @property
    def formula(self) -> Formula:
        """That of "htaf", or of "htaf_normalized"."""
        return formulas.get("htaf_normalized" if self.normalized else "htaf")

    def extra_repr(self) -> str:
        learnable = True if len(self.learnable) == 2 else self.learnable
        flags = {"normalized": self.normalized, "learnable": learnable}
        return super().extra_repr() + "".join(f", {name}={flag}" for name, flag in flags.items() if flag)

    def values(self) -> dict[str, float | Tensor]:
        fixed = {name.removeprefix("fixed_"): value for name, value in self.named_buffers()}
        learned = {name: getattr(self, f"log_{name}").exp() for name in self.learnable}
        return {**self._values, **fixed, **learned}


class ATan(Surrogate, formula="atan"): ...


class FastSigmoid(Surrogate, formula="fast_sigmoid"): ...


class Sigmoid(Surrogate, formula="sigmoid"): ...


class Triangle(Surrogate, formula="triangle"): ...


class PiecewiseExp(Surrogate, formula="piecewise_exp"): ...


class Gaussian(Surrogate, formula="gaussian"): ...


class Erfc(Surrogate, formula="erfc"): ...


class StraightThrough(Surrogate, formula="straight_through"): ...


class Rectangle(Surrogate, formula="rectangle"): ...


class ClippedSTE(Surrogate, formula="clipped_ste"): ...


class SwishSign(Surrogate, formula="swish_sign"): ...


class EDE(Surrogate, formula="ede"): ...


SuperSpike = FastSigmoid

_REGISTRY: dict[str, Callable[..., Surrogate]] = {
    "htaf": HTAF,
    "htaf_normalized": partial(HTAF, normalized=True),
    "superspike": SuperSpike,
    "approx_sign": Triangle,
    **{cls.formula.name: cls for cls in Surrogate.__subclasses__() if cls is not HTAF},
}


def names() -> list[str]:
    """The names that `get` and `parse` know, sorted.

    Example:
        >>> names()[:3]
        ['approx_sign', 'atan', 'clipped_ste']
    """
    return sorted(_REGISTRY)


def get(name: str, **parameters) -> Surrogate:
    """A new surrogate by name.

    Args:
        name: one of `names()`.
        **parameters: as the class takes them.

    Raises:
        ValueError: if the name is unknown (the message lists the names), or a parameter is bad.

    Example:
        >>> get("htaf", beta=8.0)
        HTAF(alpha=1.0, beta=8.0, mode='spike')
    """
    if name not in _REGISTRY:
        raise ValueError(f"unknown surrogate {name!r}; expected one of: {', '.join(names())}")
    try:
        return _REGISTRY[name](**parameters)
    except TypeError as error:
        known = ", ".join(k for k in inspect.signature(_REGISTRY[name]).parameters)
        raise ValueError(f"surrogate {name!r}: {error}; its parameters are: {known}") from error


def parse(text: str) -> Surrogate:
    """A new surrogate from a specification such as "htaf(alpha=0.5, beta=8)".

    Args:
        text: a name of `names()`, alone or with literal keyword arguments in parentheses, as the class takes them.

    Raises:
        TypeError: if text is not a string.
        ValueError: if the text is of another form, or as `get`.

    Example:
        >>> parse("htaf(alpha=0.5, beta=8)")
        HTAF(alpha=0.5, beta=8.0, mode='spike')
    """
    name, parameters = formulas.parse_spec(text)
    return get(name, **parameters)


def register(cls: type[Surrogate]) -> type[Surrogate]:
    """Class decorator: make a surrogate of your own known by its formula's name, to `get`, `parse` and the command.

    The same class once more, as when a notebook's cell is run again, replaces the one before.

    Args:
        cls: a subclass of `Surrogate` with a formula whose name is an identifier.

    Returns:
        The class.

    Raises:
        TypeError: if it is not a subclass of `Surrogate` with a formula.
        ValueError: if the name is taken or is not an identifier.

    Example:
        >>> from htaf_snn.formulas import Formula
        >>> def primitive(x, width=1.0):
        ...     return 0.5 + x / (2.0 * (width + abs(x)))
        >>> def derivative(x, width=1.0):
        ...     return 0.5 * width / (width + abs(x)) / (width + abs(x))
        >>> @register
        ... class SoftStep(Surrogate, formula=Formula("soft_step", primitive, derivative)): ...
        >>> parse("soft_step(width=2)")(torch.ones(1))
        tensor([1.])
    """
    is_surrogate = isinstance(cls, type) and issubclass(cls, Surrogate)
    if not is_surrogate or not isinstance(getattr(cls, "formula", None), Formula):
        raise TypeError(f"expected a subclass of Surrogate with a formula, got {cls!r}")
    before = _REGISTRY.get(cls.formula.name, cls)
    if (before.__module__, getattr(before, "__qualname__", None)) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"name: {cls.formula.name!r} is taken by {before!r}")
    formulas.register(cls.formula)
    _REGISTRY[cls.formula.name] = cls
    return cls
