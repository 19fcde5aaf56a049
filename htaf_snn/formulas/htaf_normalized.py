r"""HTAF stretched so that it reaches 0 and 1.

Forward formula:
    $n(x) = \dfrac{h(x) - \sigma(-\beta)}{\sigma(\beta) - \sigma(-\beta)}$, with $h$ of `htaf`;
    the denominator is $\tanh(\beta/2)$

Gradient formula:
    $n'(x) = h'(x) / \tanh(\beta/2)$

Figure:
    `htaf-snn profile "htaf(normalized=True)" --plot htaf_normalized.png`

Args:
    alpha: steepness, > 0.
    beta: saturation, > 0.

Reference:
    As for `htaf`; the normalisation is ours.

Example:
    >>> import torch
    >>> from htaf_snn.surrogate import HTAF
    >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    >>> HTAF(alpha=1.0, beta=4.0, normalized=True)(x).sum().backward()
    >>> x.grad
    tensor([1.0373, 0.3836, 0.0755])
"""

from . import htaf
from ._shared import logistic, sech
from ._vocabulary import exp, tanh, where

htaf_derivative = htaf.derivative


def primitive(x, alpha=1.0, beta=4.0):
    # sigma(u) - sigma(-beta) = sigma(u) sigma(beta) (1 - exp(-2y)) with 2y = u + beta, written with tanh(y).
    r = exp(-alpha * abs(x))
    y = beta * r * r / (1.0 + r * r)
    rise = 2.0 * tanh(y) / (1.0 + tanh(y))
    below = logistic(-beta * tanh(alpha * abs(x))) * rise / (1.0 + exp(-beta)) / tanh(0.5 * beta)
    return where(x < 0, below, 1.0 - below)


def derivative(x, alpha=1.0, beta=4.0):
    return htaf_derivative(x, alpha, beta) / tanh(0.5 * beta)


def parameter_gradients(x, alpha=1.0, beta=4.0):
    t = tanh(alpha * x)
    full = tanh(0.5 * beta)
    inner = sech(0.5 * beta * t)
    outer = sech(0.5 * beta)
    by_beta = 0.25 * (t * inner * inner - tanh(0.5 * beta * t) / full * outer * outer) / full
    return x * derivative(x, alpha, beta) / alpha, by_beta
