from ..base import Formula, Surrogate
from ..vocabulary import where


def primitive(x, slope):
    rest = 1.0 / (1.0 + slope * abs(x)) / slope
    return where(x < 0, (0.5 - 1.0 / slope) + rest, (0.5 + 1.0 / slope) - rest)


def derivative(x, slope):
    root = 1.0 / (1.0 + slope * abs(x))
    return root * root


class FastSigmoid(Surrogate, formula=Formula("fast_sigmoid", primitive, derivative)):
    r"""Fast sigmoid, the gradient of SuperSpike.

    Forward formula:
        $h(x) = \tfrac12 + \dfrac{x}{1 + k|x|}$

    Gradient formula:
        $h'(x) = \dfrac{1}{(1 + k|x|)^2}$

    Args:
        slope: k > 0; it sets the width, the peak slope is always 1. The forward function runs from 1/2 - 1/k to
            1/2 + 1/k, so at hardness 0 it is a step from 0 to 1 at k = 2 only.

    Reference:
        Zenke and Ganguli 2018, "SuperSpike", Neural Computation 30:1514.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.04, 1.0], requires_grad=True)
        >>> FastSigmoid(slope=25.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.2500, 0.0015])
    """

    slope: float = 25.0
