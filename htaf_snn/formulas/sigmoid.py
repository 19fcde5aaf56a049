r"""Logistic sigmoid.

Forward formula:
    $h(x) = \sigma(kx)$

Gradient formula:
    $h'(x) = k\,\sigma(kx)\,\sigma(-kx) = \tfrac{k}{4}\,\mathrm{sech}^2(kx/2)$

Figure:
    `htaf-snn profile sigmoid --plot sigmoid.png`

Arguments:
    slope: k > 0; the peak slope is k / 4. The tail decays as exp(-k |x|).

Reference:
    Zenke and Vogels 2021, "The remarkable robustness of surrogate gradient learning", Neural Computation 33:899.
"""

from ._shared import logistic, sech
from ._vocabulary import where


def primitive(x, slope=4.0):
    below = logistic(-slope * abs(x))
    return where(x < 0, below, 1.0 - below)


def derivative(x, slope=4.0):
    root = sech(0.5 * slope * x)
    return 0.25 * slope * root * root
