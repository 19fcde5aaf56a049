"""Pieces that several formulas are made of, each free of cancellation and overflow."""

from ..vocabulary import clamp, exp, floor


def sech(z):
    """Compute 1 / cosh(z), from 1 at 0 down to the smallest normal number."""
    r = exp(-abs(z))
    return 2.0 * r / (1.0 + r * r)


def logistic(z):
    """Compute 1 / (1 + exp(-z)) for z <= 0, with full relative accuracy; callers mirror it for z > 0."""
    e = exp(z)
    return e / (1.0 + e)


def bell(z, scale, weight):
    """Compute scale * exp(-weight * z**2); weight is a power of two.

    The rounding of z**2 alone would cost a relative error of z**2 ulps. Squaring the multiple of 1/16 below |z|
    is exact, and the rest of the exponent is small. Taking the square root of the large factor keeps it normal
    as long as the product is.
    """
    z = clamp(abs(z), 0.0, 64.0)
    coarse = floor(16.0 * z) / 16.0
    root = exp(-0.5 * weight * coarse * coarse)
    return scale * root * exp(-weight * (z - coarse) * (z + coarse)) * root
