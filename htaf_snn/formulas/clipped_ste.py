r"""Clipped straight-through estimator of binary networks: the rectangle whose gradient reaches from -1 to 1.

Forward formula:
    $h(x) = \max(0, \min(\tfrac12 + x/w, 1))$; with levels -1 and 1, $2h - 1$ is the hard tanh

Gradient formula:
    $h'(x) = 1/w$ for $|x| \le w/2$, 0 otherwise

Figure:
    `htaf-snn profile clipped_ste --plot clipped_ste.png`

Arguments:
    width: w > 0; the peak slope is 1 / width.

Reference:
    Hubara et al. 2016, "Binarized neural networks", NeurIPS.
"""

from .rectangle import derivative as rectangle_derivative
from .rectangle import primitive as rectangle_primitive


def primitive(x, width=2.0):
    return rectangle_primitive(x, width)


def derivative(x, width=2.0):
    return rectangle_derivative(x, width)
