from ..base import Formula, Surrogate
from ..vocabulary import clamp, where


def primitive(x, width):
    return clamp(0.5 + x / width, 0.0, 1.0)


def derivative(x, width):
    return where(x == x, where(abs(x) <= 0.5 * width, 1.0, 0.0), x) / width


class Rectangle(Surrogate, formula=Formula("rectangle", primitive, derivative)):
    r"""Rectangle (piecewise linear step).

    Forward formula:
        $h(x) = \max(0, \min(\tfrac12 + x/w, 1))$

    Gradient formula:
        $h'(x) = 1/w$ for $|x| \le w/2$, 0 otherwise

    Args:
        width: w > 0; the peak slope is 1 / width.

    Reference:
        Wu et al. 2018, "Spatio-temporal backpropagation for training high-performance spiking neural networks",
        Frontiers in Neuroscience 12:331.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.25, 0.75], requires_grad=True)
        >>> Rectangle(width=1.0)(x).sum().backward()
        >>> x.grad
        tensor([1., 1., 0.])
    """

    width: float = 1.0
