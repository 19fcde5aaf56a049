from ..base import Formula, Surrogate
from ..vocabulary import where
from ._stable import logistic, sech


def primitive(x, t):
    k = 0.5 * (1.0 + 1.0 / t + abs(1.0 / t - 1.0))
    below = 0.5 * (1.0 - k) + k * logistic(-2.0 * t * abs(x))
    return where(x < 0, below, 1.0 - below)


def derivative(x, t):
    bump = sech(t * x)
    return 0.25 * (1.0 + t + abs(t - 1.0)) * bump * bump


class EDE(Surrogate, formula=Formula("ede", primitive, derivative)):
    r"""Error decay estimator (EDE), whose steepness is raised during the training.

    Forward formula:
        $h(x) = \tfrac12\big(1 + k \tanh(t x)\big)$ with $k = \max(1/t, 1)$, so that $2h - 1$ is the published
        function; for $t < 1$ it leaves $[0, 1]$

    Gradient formula:
        $h'(x) = \tfrac12 \max(1, t)\,\big(1 - \tanh^2(t x)\big)$

    Args:
        t: steepness, > 0; the peak slope is max(1, t) / 2. IR-Net raises it from 0.1 to 10.

    Reference:
        Qin et al. 2020, "Forward and backward information retention for accurate binary neural networks", CVPR.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
        >>> EDE(t=2.0)(x).sum().backward()
        >>> x.grad
        tensor([1.0000, 0.4200, 0.0707])
    """

    t: float = 1.0
