from torch import Tensor

from ..base import Formula, Surrogate
from ..vocabulary import exp, tanh, where
from ._stable import logistic, sech


def primitive(x, alpha, beta, normalized):
    below = logistic(-beta * tanh(alpha * abs(x)))
    if normalized > 0:
        # sigma(u) - sigma(-beta) = sigma(u) sigma(beta) (1 - exp(-2y)) with 2y = u + beta, written with tanh(y).
        r = exp(-alpha * abs(x))
        y = beta * r * r / (1.0 + r * r)
        below = below * (2.0 * tanh(y) / (1.0 + tanh(y))) / (1.0 + exp(-beta)) / tanh(0.5 * beta)
    return where(x < 0, below, 1.0 - below)


def derivative(x, alpha, beta, normalized):
    a = alpha * abs(x)
    # v = 1 - tanh(a), which would underflow before the gradient does: far out v is 2 * exp(-a), and squared below.
    far = a > 40.0
    e = exp(where(far, -a, -2.0 * a))
    v = e / (0.5 + 0.5 * e)
    # Near zero 1 - v cancels, but there h * (1 - h) is flat.
    q = exp(beta * v - beta)
    peak = alpha * beta / where(normalized > 0, tanh(0.5 * beta), 1.0)
    # sech(a)**2 = v * (2 - v); h * (1 - h) = q / (1 + q)**2, multiplied out so as to round once.
    return peak * v * where(far, v, 2.0 - v) * (q / (1.0 + q * (2.0 + q)))


def parameter_gradients(x, alpha, beta, normalized):
    t = tanh(alpha * x)
    root = sech(0.5 * beta * t)
    by_beta = 0.25 * t * root * root
    if normalized > 0:
        full, edge = tanh(0.5 * beta), sech(0.5 * beta)
        by_beta = (by_beta - 0.25 * tanh(0.5 * beta * t) / full * edge * edge) / full
    return x * derivative(x, alpha, beta, normalized) / alpha, by_beta


class HTAF(Surrogate, formula=Formula("htaf", primitive, derivative, parameter_gradients)):
    r"""Heavy-tailed activation function: a sigmoid of a hyperbolic tangent, our reading of arXiv 2605.11558.

    Forward formula:
        $h(x) = \sigma(\beta \tanh(\alpha x))$; normalized,
        $\dfrac{h(x) - \sigma(-\beta)}{\sigma(\beta) - \sigma(-\beta)}$, whose denominator is $\tanh(\beta/2)$

    Gradient formula:
        $h'(x) = \alpha\beta\,h(1-h)(1-\tanh^2(\alpha x))
               = \tfrac{\alpha\beta}{4}\,\mathrm{sech}^2(\alpha x)\,\mathrm{sech}^2(\tfrac{\beta}{2}\tanh(\alpha x))$,
        normalized divided by $\tanh(\beta/2)$. The defaults give peak 1.

    Args:
        alpha: steepness, > 0. The tail decays as exp(-2 alpha |x|). A number, or a tensor that broadcasts to the input,
            such as (C, 1, 1) for one value per channel of (B, C, H, W).
        beta: saturation, > 0; likewise. h runs from sigma(-beta) to sigma(beta). The tail is heavier than that of the
            plain sigmoid with the same peak, alpha * beta / 4, exactly when beta > 2.
        normalized: stretch the smooth step so that it reaches 0 and 1; the gradient is stretched with it.
        learn: names of alpha and beta to make trainable.

    Shape:
        As in `Surrogate`; at hardness 0 from sigma(-beta) to sigma(beta), normalized from 0 to 1.

    Raises:
        TypeError: if alpha or beta is neither a number nor a floating-point tensor.
        ValueError: if a value is not positive and finite, a tensor requires a gradient but `learn` does not name it, or
            as `Surrogate`.

    Reference:
        Park et al. 2026, arXiv 2605.11558. Only the abstract was available to us; the constants are our reading, the
        normalisation is ours.

    Example:
        >>> import torch
        >>> HTAF(alpha=0.5, beta=8.0)
        HTAF(alpha=0.5, beta=8.0, hardness=1.0)
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> HTAF(alpha=1.0, beta=4.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.3698, 0.0728])
    """

    alpha: float | Tensor = 1.0
    beta: float | Tensor = 4.0
    normalized: bool = False
