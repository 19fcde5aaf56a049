"""A layer of discrete concepts, and the ways to make them discrete."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from ..surrogate import SurrogateLike
from ..surrogate.elementwise import heaviside
from .binary import BinaryActivation


class RelaxedBernoulli(nn.Module):
    """A relaxed Bernoulli variable with the input as its logit: a sample during training, its mode in `eval()`.

    Args:
        temperature: > 0; at 0 samples would be 0 and 1.

    Shape:
        Any floating-point tensor; the output has its shape and dtype, within [0, 1], in `eval()` 0 or 1.

    Reference:
        Maddison, Mnih and Teh 2017, "The concrete distribution", ICLR; Jang, Gu and Poole 2017, "Categorical
        reparameterization with Gumbel-Softmax", ICLR.

    Example:
        >>> RelaxedBernoulli().eval()(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0., 0., 1.])
    """

    def __init__(self, temperature: float = 0.5):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {temperature!r}")
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return heaviside(x)
        temperature = torch.tensor(self.temperature, dtype=x.dtype, device=x.device)
        return torch.distributions.RelaxedBernoulli(temperature, logits=x, validate_args=False).rsample()


# For comparison with surrogates; the concepts of "relu" stay real.
_BASELINES = {"relu": nn.ReLU, "relaxed_bernoulli": RelaxedBernoulli}


class ConceptLayer(nn.Module):
    """Concepts, 0 or 1, of features: a projection, BatchNorm and an activation.

    Args:
        in_features: values of a feature vector, or channels of feature maps, which are averaged over their positions;
            None to infer it from the first input.
        n_concepts: at least 1.
        surrogate: in any form, see `htaf_snn.surrogate.resolve`; or, for comparison, "relu" or "relaxed_bernoulli".

    Attributes:
        activation: a `BinaryActivation`, `torch.nn.ReLU` or `RelaxedBernoulli`.

    Shape:
        x (B, in_features) or (B, in_features, H, W) to (B, n_concepts), 0 or 1 in `eval()`, except for "relu".

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.
        ValueError: if a size is not positive, or x has another shape.

    Example:
        >>> layer = ConceptLayer(20, 5).eval()
        >>> layer(torch.randn(3, 20, 4, 4)).shape, set(layer(torch.randn(9, 20)).unique().tolist()) <= {0.0, 1.0}
        (torch.Size([3, 5]), True)
    """

    projection: nn.Linear
    norm: nn.BatchNorm1d

    def __init__(
        self,
        in_features: int | None,
        n_concepts: int,
        surrogate: SurrogateLike = "htaf(alpha=0.5)",
    ):
        super().__init__()
        for name, value in (("in_features", 1 if in_features is None else in_features), ("n_concepts", n_concepts)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {value!r}")
        if in_features is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Lazy modules")
                self.projection = nn.LazyLinear(n_concepts, bias=False)
        else:
            self.projection = nn.Linear(in_features, n_concepts, bias=False)
        self.norm = nn.BatchNorm1d(n_concepts)
        baseline = _BASELINES.get(surrogate) if isinstance(surrogate, str) else None
        self.activation: nn.Module = baseline() if baseline else BinaryActivation(surrogate, (0, 1))

    def potentials(self, x: Tensor) -> Tensor:
        """Return the concepts' potentials (B, n_concepts); a concept is 1 where its potential is greater than 0."""
        if x.ndim not in (2, 4):
            raise ValueError(f"x: expected features (B, D) or (B, C, H, W), got {tuple(x.shape)}")
        x = x.mean((2, 3)) if x.ndim == 4 else x
        try:
            projected = self.projection(x)
        except RuntimeError as error:  # not checked before, as a lazy projection gets its size from its first input
            expected = self.projection.in_features
            if x.shape[1] == expected:
                raise
            raise ValueError(f"x: expected {expected} features, got {x.shape[1]}") from error
        return self.norm(projected)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.potentials(x))
