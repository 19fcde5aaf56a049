from ..base import Formula, Surrogate
from .rectangle import derivative, primitive


class ClippedSTE(Surrogate, formula=Formula("clipped_ste", primitive, derivative)):
    r"""Clipped straight-through estimator of binary networks: the rectangle whose gradient reaches from -1 to 1.

    Forward formula:
        $h(x) = \max(0, \min(\tfrac12 + x/w, 1))$; with levels -1 and 1, $2h - 1$ is the hard tanh

    Gradient formula:
        $h'(x) = 1/w$ for $|x| \le w/2$, 0 otherwise

    Args:
        width: w > 0; the peak slope is 1 / width.

    Reference:
        Hubara et al. 2016, "Binarized neural networks", NeurIPS.

    Example:
        >>> import torch
        >>> x = torch.tensor([0.0, 0.5, 1.5], requires_grad=True)
        >>> ClippedSTE()(x).sum().backward()
        >>> x.grad
        tensor([0.5000, 0.5000, 0.0000])
    """

    width: float = 2.0
