from ..base import Formula, Surrogate
from ..vocabulary import clamp, tanh, where
from ._stable import logistic, sech


def primitive(x, beta):
    u = clamp(-beta * abs(x), -2000.0, 0.0)
    s = logistic(u)
    below = s + u * s * (1.0 - s)
    return where(x < 0, below, 1.0 - below)


def derivative(x, beta):
    # Bounded, or infinity times zero would be NaN.
    u = clamp(beta * x, -2000.0, 2000.0)
    bump = sech(0.5 * u)
    return 0.25 * beta * (2.0 - u * tanh(0.5 * u)) * bump * bump


class SwishSign(Surrogate, formula=Formula("swish_sign", primitive, derivative)):
    r"""SwishSign (half of SignSwish plus one half).

    Forward formula:
        $h(x) = \sigma(\beta x)\,\big(1 + \beta x\,(1 - \sigma(\beta x))\big)$, so that $2h - 1$ is the published SS; it
        leaves $[0, 1]$ by 0.1 on either side

    Gradient formula:
        $h'(x) = \dfrac{\beta\,(2 - \beta x \tanh(\beta x/2))}{2\,(1 + \cosh(\beta x))}$, negative far from zero

    Args:
        beta: steepness, > 0; the peak slope is beta / 2.

    Reference:
        Darabi et al. 2018, "BNN+: Improved binary network training", arXiv 1812.11800.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> SwishSign(beta=5.0)(x).sum().backward()
        >>> x.grad
        tensor([ 2.5000, -0.0423, -0.0975])
    """

    beta: float = 5.0
