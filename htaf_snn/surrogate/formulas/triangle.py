from ..base import Formula, Surrogate
from ..vocabulary import clamp, where


def primitive(x, alpha):
    z = clamp(alpha * x, -1.0, 1.0)
    rest = 1.0 - abs(z)
    below = 0.5 * rest * rest
    return where(z < 0, below, 1.0 - below)


def derivative(x, alpha):
    return alpha * clamp(1.0 - abs(alpha * x), 0.0, 1.0)


class Triangle(Surrogate, formula=Formula("triangle", primitive, derivative)):
    r"""Triangle (piecewise quadratic step).

    Forward formula:
        $h(x) = \tfrac12(1 + \alpha x)^2$ for $-1 \le \alpha x < 0$, $1 - \tfrac12(1 - \alpha x)^2$ for
        $0 \le \alpha x \le 1$, 0 below and 1 above

    Gradient formula:
        $h'(x) = \alpha \max(0, 1 - \alpha|x|)$

    Args:
        alpha: steepness, > 0; the peak slope is alpha, the support [-1/alpha, 1/alpha].

    Reference:
        Bellec et al. 2018, "Long short-term memory and learning-to-learn in networks of spiking neurons", NeurIPS.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.5], requires_grad=True)
        >>> Triangle(alpha=1.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.5000, 0.0000])
    """

    alpha: float = 1.0
