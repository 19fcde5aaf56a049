from math import pi, sqrt

from ..base import Formula, Surrogate
from ..vocabulary import erfc
from ._stable import bell

ROOT_TWO, ROOT_TWO_PI = sqrt(2.0), sqrt(2.0 * pi)


def primitive(x, sigma):
    return 0.5 * erfc(-x / sigma / ROOT_TWO)


def derivative(x, sigma):
    return bell(x / sigma, 1.0 / (sigma * ROOT_TWO_PI), 0.5)


class Gaussian(Surrogate, formula=Formula("gaussian", primitive, derivative)):
    r"""Gaussian: the normal distribution's step and density.

    Forward formula:
        $h(x) = \tfrac12\,\mathrm{erfc}(-x / (\sigma\sqrt2))$

    Gradient formula:
        $h'(x) = \dfrac{1}{\sigma\sqrt{2\pi}} \exp(-\tfrac12 (x/\sigma)^2)$

    Args:
        sigma: standard deviation, > 0; the peak slope is 1 / (sigma sqrt(2 pi)).

    Reference:
        Yin, Corradi and Bohte 2021, "Accurate and efficient time-domain classification with adaptive spiking
        recurrent neural networks", Nature Machine Intelligence 3:905.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> Gaussian(sigma=0.4)(x).sum().backward()
        >>> x.grad
        tensor([0.9974, 0.4566, 0.0438])
    """

    sigma: float = 0.4
