"""Elementwise: the smooth step, its derivative, and the strict step with a surrogate gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import formulas
from ..formulas import Formula
from ..kernels.spike import reference
from ..kernels.spike.autograd import step
from ._checks import check_floating, describe

__all__ = ["check_positive", "htaf", "htaf_derivative", "resolve", "smooth", "spike"]


def _check_tensor_parameter(name: str, value: Tensor, x: Tensor, formula: Formula) -> None:
    check_floating(name, value)
    try:
        fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(x.shape)}, got {describe(value)}")
    if value.requires_grad and formula.parameter_gradients is None:
        raise ValueError(f"{name}: the parameters of {formula.name!r} have no gradient; expected a detached tensor")
    check_positive(name, value, formula)


def check_positive(name: str, value: Tensor, formula: Formula) -> None:
    """Raise ValueError unless all of a parameter tensor is positive and, where the formula wants it, finite.

    On an accelerator and under compilation or vmap the values are not looked at: it would stall the device,
    break the graph, or is impossible.
    """
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    value = value.detach()
    try:
        valid = bool(((value > 0) & (value.isfinite() | formula.may_be_infinite(name))).all())
    except RuntimeError:
        return
    if not valid:
        raise ValueError(f"{name}: expected positive finite values, got {value.flatten()[:8].tolist()}")


def _check(x: Tensor, formula: Formula, parameters: dict) -> tuple:
    check_floating("x", x)
    formula.check({k: v for k, v in parameters.items() if not isinstance(v, Tensor)})
    for name, value in parameters.items():
        if isinstance(value, Tensor):
            _check_tensor_parameter(name, value, x, formula)
    return tuple(parameters.values())


def _htaf_formula(normalized: bool) -> Formula:
    return formulas.get("htaf_normalized" if normalized else "htaf")


def refuse_class(surrogate) -> None:
    """Raise TypeError for a class where an instance is meant."""
    if isinstance(surrogate, type):
        name = surrogate.__name__
        remedy = f"{name}.apply" if issubclass(surrogate, torch.autograd.Function) else f"{name}()"
        raise TypeError(f"surrogate: expected an instance, got the class {name}; write {remedy}")


def resolve(surrogate) -> tuple[Formula, dict]:
    """The formula of a surrogate in any form, and its parameters."""
    refuse_class(surrogate)
    if isinstance(surrogate, str):
        name, values = formulas.parse_spec(surrogate)
        formula = _htaf_formula(values.pop("normalized", False)) if name == "htaf" else formulas.get(name)
        return formula, {**formula.defaults, **values}
    if isinstance(surrogate, Formula):
        return surrogate, surrogate.defaults
    if isinstance(getattr(surrogate, "formula", None), Formula):
        return surrogate.formula, surrogate.values()
    raise TypeError(f"surrogate: expected a specification, a Formula or a surrogate module, got {surrogate!r}")


def htaf(x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False) -> Tensor:
    """Smooth heavy-tailed step, sigma(beta * tanh(alpha * x)).

    Args:
        x: floating-point tensor of any shape.
        alpha: steepness, > 0; a number, or a tensor that broadcasts to x and may require a gradient.
        beta: saturation, > 0; likewise.
        normalized: stretch the step so that it reaches 0 and 1.

    Returns:
        Tensor of the shape and dtype of x, from sigma(-beta) to sigma(beta), or from 0 to 1 if normalized.
        Its gradients are exact: with respect to x `htaf_derivative`, and with respect to alpha and beta.

    Raises:
        TypeError: if x is not a floating-point tensor, or alpha or beta neither a number nor such a tensor.
        ValueError: if alpha or beta is not positive and finite, or does not broadcast to x.

    Reference:
        Park et al. 2026, arXiv 2605.11558. Only the abstract was available to us; the constants are our reading.

    Example:
        >>> htaf(torch.tensor([-10.0, 0.0, 10.0]))
        tensor([0.0180, 0.5000, 0.9820])
    """
    return smooth(x, _htaf_formula(normalized), alpha=alpha, beta=beta)


def htaf_derivative(
    x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False
) -> Tensor:
    """Derivative of `htaf` with respect to x, the surrogate gradient of spike mode.

    alpha * beta * h * (1 - h) * (1 - tanh(alpha * x)**2) with h of `htaf`; normalized, divided by tanh(beta / 2).

    Args:
        x: floating-point tensor of any shape.
        alpha: steepness, > 0; a number or a tensor that broadcasts to x.
        beta: saturation, > 0; likewise.
        normalized: as in `htaf`.

    Returns:
        Tensor of the shape and dtype of x, with values from 0 to alpha * beta / 4, or to that over tanh(beta / 2) if
        normalized; NaN where x is NaN.

    Raises:
        TypeError, ValueError: as `htaf`.

    Reference:
        As of `htaf`.

    Example:
        >>> htaf_derivative(torch.tensor([0.0, 1e30]))
        tensor([1., 0.])
    """
    formula = _htaf_formula(normalized)
    return reference.derivative(x, formula, _check(x, formula, {"alpha": alpha, "beta": beta})).to(x.dtype)


def spike(x: Tensor, surrogate="htaf", **parameters: float | Tensor) -> Tensor:
    """The strict step, 1 where x > 0 and else 0, with a surrogate gradient.

    Args:
        x: floating-point tensor of any shape; usually membrane potential minus threshold.
        surrogate: a `formulas.Formula`, a module of `htaf_snn.surrogate` (whose mode is ignored: the forward pass is
            the step), or a specification such as "htaf(beta=8)", which is parsed in every call and cannot be
            compiled.
        **parameters: values that replace those of the surrogate; numbers, or tensors that broadcast to x. Those of
            HTAF may require a gradient and receive that of the smooth step.

    Returns:
        Tensor of exact zeros and ones, of the shape and dtype of x. The backward pass multiplies by the
        surrogate's derivative, NaN where x is NaN.

    Raises:
        TypeError: if x is not a floating-point tensor, surrogate is of none of the three kinds, or a parameter is
            neither a number nor a floating-point tensor.
        ValueError: if the surrogate or a parameter is unknown, a value is not positive and finite, or a tensor does not
            broadcast to x or requires a gradient that the formula does not give.

    Example:
        >>> x = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
        >>> spike(x, "atan(alpha=2)").sum().backward()
        >>> x.grad
        tensor([0.2884, 1.0000, 0.2884])
    """
    formula, values = resolve(surrogate)
    return step(x, formula, False, *_check(x, formula, {**values, **parameters}))


def smooth(x: Tensor, surrogate="htaf", **parameters: float | Tensor) -> Tensor:
    """The surrogate's smooth step, its primitive, with exact gradients.

    Args:
        x: floating-point tensor of any shape.
        surrogate: as for `spike`.
        **parameters: as for `spike`.

    Returns:
        Tensor of the shape and dtype of x, NaN where x is NaN; its range is that of the surrogate's primitive, which
        is not [0, 1] for each.

    Raises:
        TypeError, ValueError: as `spike`.

    Example:
        >>> smooth(torch.tensor([-1.0, 0.0, 1.0]), "sigmoid(slope=4)")
        tensor([0.0180, 0.5000, 0.9820])
    """
    formula, values = resolve(surrogate)
    return step(x, formula, True, *_check(x, formula, {**values, **parameters}))
