r"""Complementary error function.

Forward formula:
    $h(x) = \tfrac12\,\mathrm{erfc}(-\alpha x)$

Gradient formula:
    $h'(x) = \dfrac{\alpha}{\sqrt\pi} \exp(-(\alpha x)^2)$

Figure:
    `htaf-snn profile erfc --plot erfc.png`

Arguments:
    alpha: steepness, > 0; the peak slope is alpha / sqrt(pi). It is `gaussian` with sigma = 1 / (alpha sqrt(2)).

Reference:
    Esser et al. 2015, "Backpropagation for energy-efficient neuromorphic computing", NeurIPS.
"""

from math import pi, sqrt

from ._shared import bell
from ._vocabulary import erfc

ROOT_PI = sqrt(pi)


def primitive(x, alpha=2.0):
    return 0.5 * erfc(-alpha * x)


def derivative(x, alpha=2.0):
    return bell(alpha * x, alpha / ROOT_PI, 1.0)
