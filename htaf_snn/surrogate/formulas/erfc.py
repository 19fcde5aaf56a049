from math import pi, sqrt

from ..base import Formula, Surrogate
from ..vocabulary import erfc
from ._stable import bell

ROOT_PI = sqrt(pi)


def primitive(x, alpha):
    return 0.5 * erfc(-alpha * x)


def derivative(x, alpha):
    return bell(alpha * x, alpha / ROOT_PI, 1.0)


class Erfc(Surrogate, formula=Formula("erfc", primitive, derivative)):
    r"""Complementary error function.

    Forward formula:
        $h(x) = \tfrac12\,\mathrm{erfc}(-\alpha x)$

    Gradient formula:
        $h'(x) = \dfrac{\alpha}{\sqrt\pi} \exp(-(\alpha x)^2)$

    Args:
        alpha: steepness, > 0; the peak slope is alpha / sqrt(pi). It is `gaussian` with sigma = 1 / (alpha sqrt(2)).

    Reference:
        Esser et al. 2015, "Backpropagation for energy-efficient neuromorphic computing", NeurIPS.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> Erfc(alpha=2.0)(x).sum().backward()
        >>> x.grad
        tensor([1.1284, 0.4151, 0.0207])
    """

    alpha: float = 2.0
