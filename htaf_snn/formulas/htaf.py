r"""Heavy-tailed activation function: a sigmoid of a hyperbolic tangent.

Forward formula:
    $h(x) = \sigma(\beta \tanh(\alpha x))$

Gradient formula:
    $h'(x) = \alpha\beta\,h(1-h)(1-\tanh^2(\alpha x))
           = \tfrac{\alpha\beta}{4}\,\mathrm{sech}^2(\alpha x)\,\mathrm{sech}^2(\tfrac{\beta}{2}\tanh(\alpha x))$

Figure:
    `htaf-snn profile htaf --plot htaf.png`

Args:
    alpha: steepness, > 0. The tail decays as exp(-2 alpha |x|).
    beta: saturation, > 0. h runs from sigma(-beta) to sigma(beta). The tail is heavier than that of the plain
        sigmoid with the same peak, alpha * beta / 4, exactly when beta > 2.

Reference:
    Park et al. 2026, arXiv 2605.11558. Only the abstract was available to us; the constants are our reading.

Example:
    >>> import torch
    >>> from htaf_snn.surrogate import HTAF
    >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    >>> HTAF(alpha=1.0, beta=4.0)(x).sum().backward()
    >>> x.grad
    tensor([1.0000, 0.3698, 0.0728])
"""

from ._shared import logistic, sech
from ._vocabulary import tanh, where


def primitive(x, alpha=1.0, beta=4.0):
    below = logistic(-beta * tanh(alpha * abs(x)))
    return where(x < 0, below, 1.0 - below)


def derivative(x, alpha=1.0, beta=4.0):
    z = alpha * x
    root = sech(z) * sech(0.5 * beta * tanh(z))
    return 0.25 * alpha * beta * root * root


def parameter_gradients(x, alpha=1.0, beta=4.0):
    t = tanh(alpha * x)
    root = sech(0.5 * beta * t)
    return x * derivative(x, alpha, beta) / alpha, 0.25 * t * root * root
