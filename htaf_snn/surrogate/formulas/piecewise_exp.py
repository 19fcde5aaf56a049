from ..base import Formula, Surrogate
from ..vocabulary import exp, where


def primitive(x, alpha):
    below = 0.5 * exp(-alpha * abs(x))
    return where(x < 0, below, 1.0 - below)


def derivative(x, alpha):
    # The square root stays normal as long as the product does.
    root = exp(-0.5 * alpha * abs(x))
    return 0.5 * alpha * root * root


class PiecewiseExp(Surrogate, formula=Formula("piecewise_exp", primitive, derivative)):
    r"""Piecewise exponential (Laplace) step.

    Forward formula:
        $h(x) = \tfrac12 e^{\alpha x}$ for $x < 0$, $1 - \tfrac12 e^{-\alpha x}$ otherwise

    Gradient formula:
        $h'(x) = \tfrac{\alpha}{2} e^{-\alpha|x|}$

    Args:
        alpha: steepness, > 0; the peak slope is alpha / 2. The tail decays as exp(-alpha |x|).

    Reference:
        Shrestha and Orchard 2018, "SLAYER: spike layer error reassignment in time", NeurIPS.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> PiecewiseExp(alpha=2.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.3679, 0.1353])
    """

    alpha: float = 2.0
