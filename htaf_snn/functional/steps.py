"""Elementwise: the smooth step, its derivative, and the strict step with a surrogate gradient."""

from __future__ import annotations

from torch import Tensor

from .._checks import check_floating
from ..surrogate import HTAF, Surrogate, SurrogateLike, elementwise, resolve
from ..surrogate.base import check_parameter
from ..surrogate.formula import formula_named
from ..surrogate.specifications import shared

_HTAF = HTAF()


def _resolved(surrogate: SurrogateLike) -> Surrogate:
    return shared(surrogate) if isinstance(surrogate, str) else resolve(surrogate)


def htaf(x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False) -> Tensor:
    """Return the smooth heavy-tailed step, sigma(beta * tanh(alpha * x)).

    Args:
        x: floating-point tensor of any shape.
        alpha: steepness, > 0; a number, or a tensor that broadcasts to x and may require a gradient.
        beta: saturation, > 0; likewise.
        normalized: stretch the step so that it reaches 0 and 1.

    Returns:
        Tensor of the shape and dtype of x, from sigma(-beta) to sigma(beta), or from 0 to 1 if normalized.
        Its gradients are exact: with respect to x `htaf_derivative`, and with respect to alpha and beta.

    Raises:
        TypeError: if x is not a floating-point tensor, alpha or beta neither a number nor such a tensor, or normalized
            no bool.
        ValueError: if alpha or beta is not positive and finite, or does not broadcast to x.

    Reference:
        Park et al. 2026, arXiv 2605.11558. Only the abstract was available to us; the constants are our reading.

    Example:
        >>> import torch
        >>> htaf(torch.tensor([-10.0, 0.0, 10.0]))
        tensor([0.0180, 0.5000, 0.9820])
    """
    return smooth(x, _HTAF, alpha=alpha, beta=beta, normalized=normalized)


def htaf_derivative(
    x: Tensor, alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, normalized: bool = False
) -> Tensor:
    """Return the derivative of `htaf` with respect to x, the surrogate gradient at any hardness.

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
        >>> import torch
        >>> htaf_derivative(torch.tensor([0.0, 1e30]))
        tensor([1., 0.])
    """
    check_floating("x", x)
    for name, value in (("alpha", alpha), ("beta", beta), ("normalized", normalized)):
        check_parameter(HTAF, name, value, x)
    return elementwise.derivative(x, formula_named("htaf"), (alpha, beta, normalized)).to(x.dtype)


def spike(x: Tensor, surrogate: SurrogateLike = "htaf", **parameters: float | Tensor) -> Tensor:
    """Return the strict step, 1 where x > 0 and else 0, with a surrogate gradient.

    Args:
        x: floating-point tensor of any shape; usually membrane potential minus threshold.
        surrogate: in any form, see `surrogate.resolve`; its hardness does not matter. A specification cannot be
            compiled.
        **parameters: values that replace the surrogate's; numbers, or tensors that broadcast to x. Those of HTAF may
            require a gradient and receive that of the smooth step.

    Returns:
        Tensor of exact zeros and ones, of the shape and dtype of x; of a callable what it gives. The backward pass
        multiplies by the surrogate's derivative, NaN where x is NaN.

    Raises:
        TypeError: if x is not a floating-point tensor, the surrogate has no known form, or a parameter is neither a
            number nor a floating-point tensor.
        ValueError: if the surrogate or a parameter is unknown, a value is not positive and finite, or a tensor does not
            broadcast to x or requires a gradient that the formula does not give.

    Example:
        >>> import torch
        >>> x = torch.tensor([-0.5, 0.0, 0.5], requires_grad=True)
        >>> spike(x, "atan(alpha=2)").sum().backward()
        >>> x.grad
        tensor([0.2884, 1.0000, 0.2884])
    """
    return _resolved(surrogate).at_hardness(1.0, x, **parameters)


def smooth(x: Tensor, surrogate: SurrogateLike = "htaf", **parameters: float | Tensor) -> Tensor:
    """Return the surrogate's smooth step, its primitive, with exact gradients.

    Args:
        x: floating-point tensor of any shape.
        surrogate: as for `spike`, but no callable, whose smooth step is not known.
        **parameters: as for `spike`.

    Returns:
        Tensor of the shape and dtype of x, NaN where x is NaN; its range is that of the surrogate's primitive, which
        is not [0, 1] for each.

    Raises:
        TypeError, ValueError: as `spike`; ValueError for a callable.

    Example:
        >>> import torch
        >>> smooth(torch.tensor([-1.0, 0.0, 1.0]), "sigmoid(slope=4)")
        tensor([0.0180, 0.5000, 0.9820])
    """
    return _resolved(surrogate).at_hardness(0.0, x, **parameters)
