"""Functions that a backend lacks, written in terms of those that it has; bound like the formulas."""

from ..surrogate.vocabulary import exp, where


def tanh(z):
    """Compute tanh in float32: near zero, where the quotient would cancel, by a polynomial of the Cephes library."""
    square = z * z
    near = -5.70498872e-3
    near = near * square + 2.06390887e-2
    near = near * square - 5.37397155e-2
    near = near * square + 0.133314422
    near = near * square - 0.333332819
    e = exp(-2.0 * abs(z))
    far = (1.0 - e) / (1.0 + e)
    return where(abs(z) < 0.625, z + z * square * near, where(z < 0.0, -far, far))


def clamp(z, low, high):
    """Clamp z; NaN stays NaN."""
    return where(z < low, low, where(z > high, high, z))


def atan(z):
    """Compute atan in float32: range reduction at tan(pi / 8) and tan(3 pi / 8), then Cephes' polynomial."""
    a = abs(z)
    far = a > 2.414213562373095
    middle = a > 0.4142135623730950
    start = where(far, 1.5707963267948966, where(middle, 0.7853981633974483, 0.0))
    r = where(far, -1.0 / a, where(middle, (a - 1.0) / (a + 1.0), a))
    square = r * r
    p = (8.05374449538e-2 * square - 1.38776856032e-1) * square + 1.99777106478e-1
    y = start + ((p * square - 3.33329491539e-1) * square * r + r)
    return where(z < 0.0, -y, y)


ELEMENTARY = (atan, clamp, tanh)
