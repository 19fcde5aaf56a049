from math import pi

from ..base import Formula, Surrogate
from ..vocabulary import atan, where


def primitive(x, alpha):
    tail = atan(1.0 / abs(0.5 * pi * alpha * x)) / pi
    return where(x < 0, tail, 1.0 - tail)


def derivative(x, alpha):
    # Beyond 1 the reciprocal is squared instead: z**2 would overflow while the gradient is still normal.
    z = abs(0.5 * pi * alpha * x)
    inverse = 1.0 / z
    root = where(z > 1.0, inverse, 1.0)
    small = where(z > 1.0, inverse, z)
    return 0.5 * alpha * root * root / (1.0 + small * small)


class ATan(Surrogate, formula=Formula("atan", primitive, derivative)):
    r"""Arc tangent.

    Forward formula:
        $h(x) = \tfrac12 + \tfrac1\pi \arctan(\tfrac{\pi}{2}\alpha x)$

    Gradient formula:
        $h'(x) = \dfrac{\alpha/2}{1 + (\tfrac{\pi}{2}\alpha x)^2}$

    Args:
        alpha: steepness, > 0; the peak slope is alpha / 2. The tail decays as 1 / x**2.

    Reference:
        Fang et al. 2021, "Incorporating learnable membrane time constant to enhance learning of spiking neural
        networks", ICCV. snnTorch and SpikingJelly compute the same gradient; snnTorch's text states another.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> ATan(alpha=2.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.2884, 0.0920])
    """

    alpha: float = 2.0
