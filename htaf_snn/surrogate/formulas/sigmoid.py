from ..base import Formula, Surrogate
from ..vocabulary import where
from ._stable import logistic, sech


def primitive(x, slope):
    below = logistic(-slope * abs(x))
    return where(x < 0, below, 1.0 - below)


def derivative(x, slope):
    root = sech(0.5 * slope * x)
    return 0.25 * slope * root * root


class Sigmoid(Surrogate, formula=Formula("sigmoid", primitive, derivative)):
    r"""Logistic sigmoid.

    Forward formula:
        $h(x) = \sigma(kx)$

    Gradient formula:
        $h'(x) = k\,\sigma(kx)\,\sigma(-kx) = \tfrac{k}{4}\,\mathrm{sech}^2(kx/2)$

    Args:
        slope: k > 0; the peak slope is k / 4. The tail decays as exp(-k |x|).

    Reference:
        Zenke and Vogels 2021, "The remarkable robustness of surrogate gradient learning", Neural Computation 33:899.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> Sigmoid(slope=4.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.4200, 0.0707])
    """

    slope: float = 4.0
