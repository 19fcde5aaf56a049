from math import inf

from ..base import Formula, Surrogate
from ..vocabulary import clamp, where


def primitive(x, clip):
    return 0.5 + clamp(x, -clip, clip)


def derivative(x, clip):
    return where(x == x, where(abs(x) <= clip, 1.0, 0.0), x)


class StraightThrough(Surrogate, formula=Formula("straight_through", primitive, derivative)):
    r"""Straight-through estimator, clipped on request.

    Forward formula:
        $h(x) = \tfrac12 + \max(-c, \min(x, c))$

    Gradient formula:
        $h'(x) = 1$ for $|x| \le c$, 0 otherwise

    Args:
        clip: c > 0, infinite for no clipping. At hardness 0 h is a step from 0 to 1 at c = 1/2 only.

    Reference:
        Bengio, Leonard and Courville 2013, "Estimating or propagating gradients through stochastic neurons",
        arXiv 1308.3432; clipped: Hubara et al. 2016, "Binarized neural networks", NeurIPS.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.5], requires_grad=True)
        >>> StraightThrough(clip=1.0)(x).sum().backward()
        >>> x.grad
        tensor([1., 1., 0.])
    """

    clip: float = inf
