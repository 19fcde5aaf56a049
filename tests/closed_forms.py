"""The surrogates' closed forms, derived independently of the package, in 400-digit arithmetic."""

import mpmath
from mpmath import atan2, cosh, exp, inf, mp, mpf, pi, sqrt, tanh

from htaf_snn import HTAF, surrogate

HARDNESSES = [0.0, 0.3, 1.0]
mp.dps = 400


def erfc(z):
    """mpmath overflows beyond 1e300; the value has been 0 or 2 to 400 digits since 100."""
    return mpmath.erfc(max(-100, min(z, 100)))


def logistic(z):
    return 1 / (1 + exp(-z))


def htaf(x, alpha, beta):
    return logistic(beta * tanh(alpha * x))


def htaf_derivative(x, alpha, beta):
    h = htaf(x, alpha, beta)
    return alpha * beta * h * (1 - h) / cosh(alpha * x) ** 2


def span(beta):
    return logistic(beta) - logistic(-beta)


def triangle(x, alpha):
    z = max(-1, min(alpha * x, 1))
    return (1 + z) ** 2 / 2 if z < 0 else 1 - (1 - z) ** 2 / 2


PRIMITIVES = {
    "htaf": htaf,
    "htaf_normalized": lambda x, a, b: (htaf(x, a, b) - logistic(-b)) / span(b),
    "atan": lambda x, a: atan2(1, -pi * a * x / 2) / pi,
    "fast_sigmoid": lambda x, k: mpf(1) / 2 + x / (1 + k * abs(x)),
    "sigmoid": lambda x, k: logistic(k * x),
    "triangle": triangle,
    "piecewise_exp": lambda x, a: exp(a * x) / 2 if x < 0 else 1 - exp(-a * x) / 2,
    "gaussian": lambda x, s: erfc(-x / s / sqrt(2)) / 2,
    "erfc": lambda x, a: erfc(-a * x) / 2,
    "straight_through": lambda x, c: mpf(1) / 2 + max(-c, min(x, c)),
    "rectangle": lambda x, w: max(mpf(0), min(mpf(1) / 2 + x / w, mpf(1))),
    "swish_sign": lambda x, b: (1 + 2 * logistic(b * x) * (1 + b * x * logistic(-b * x)) - 1) / 2,
    "ede": lambda x, t: (1 + max(1 / t, mpf(1)) * tanh(t * x)) / 2,
}
DERIVATIVES = {
    "htaf": htaf_derivative,
    "htaf_normalized": lambda x, a, b: htaf_derivative(x, a, b) / span(b),
    "atan": lambda x, a: a / 2 / (1 + (pi * a * x / 2) ** 2),
    "fast_sigmoid": lambda x, k: 1 / (1 + k * abs(x)) ** 2,
    "sigmoid": lambda x, k: k * logistic(k * x) * logistic(-k * x),
    "triangle": lambda x, a: a * max(0, 1 - a * abs(x)),
    "piecewise_exp": lambda x, a: a / 2 * exp(-a * abs(x)),
    "gaussian": lambda x, s: exp(-((x / s) ** 2) / 2) / (s * sqrt(2 * pi)),
    "erfc": lambda x, a: a * exp(-((a * x) ** 2)) / sqrt(pi),
    "straight_through": lambda x, c: mpf(1) if abs(x) <= c else mpf(0),
    "rectangle": lambda x, w: 1 / w if abs(x) <= w / 2 else mpf(0),
    "swish_sign": lambda x, b: b * (2 - b * x * tanh(b * x / 2)) / (1 + cosh(b * x)) / 2,
    "ede": lambda x, t: max(1 / t, mpf(1)) * t * (1 - tanh(t * x) ** 2) / 2,
}
# Values that float16 holds exactly, so that the parameter itself is never rounded. The powers of two keep the edges
# of compact supports, where the relative condition number is infinite, exactly representable.
PARAMETERS = {
    "htaf": [(1.0, 4.0), (0.5, 8.0), (1.0, 1.0), (2.0, 16.0), (25.0, 2.5)],
    "htaf_normalized": [(1.0, 4.0), (0.5, 8.0), (25.0, 1.0)],
    "atan": [(2.0,), (0.0625,), (100.0,)],
    "fast_sigmoid": [(25.0,), (2.0,), (100.0,)],
    "sigmoid": [(4.0,), (25.0,), (0.0625,)],
    "triangle": [(1.0,), (0.25,), (8.0,)],
    "piecewise_exp": [(2.0,), (25.0,), (0.0625,)],
    "gaussian": [(0.5,), (2.0,), (0.03125,)],
    "erfc": [(2.0,), (0.0625,), (25.0,)],
    "straight_through": [(float("inf"),), (1.0,), (0.25,)],
    "rectangle": [(1.0,), (0.25,), (8.0,)],
    "swish_sign": [(5.0,), (0.25,), (32.0,)],
    "ede": [(1.0,), (0.25,), (8.0,)],
}


def steepness(name, parameters):
    """What multiplies |x| inside the formula: the alpha of the error bound 1e-6 * max(1, alpha * |x|)."""
    if parameters[0] == float("inf"):
        return 1.0
    return 1 / parameters[0] if name in ("gaussian", "rectangle", "straight_through") else parameters[0]


def evaluate(function, x, parameters):
    return function(mpf(x), *(inf if p == float("inf") else mpf(p) for p in parameters))


def make(name, parameters=(), hardness=1.0):
    """A surrogate by the name of its closed form."""
    if name == "htaf_normalized":
        return HTAF(*parameters, normalized=True, hardness=hardness)
    return type(surrogate.resolve(name))(*parameters, hardness=hardness)
