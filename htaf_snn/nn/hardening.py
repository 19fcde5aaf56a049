"""From the smooth network that is trained to the hard one that is used: schedules, the gap, recalibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice

import torch
from torch import nn

from ..surrogate import Surrogate
from ._batches import apply, class_scores, inputs_of, unpack
from ._modes import in_eval
from .binary import BinaryActivation, _BinaryWeight, smooth_activations

__all__ = ["AnnealAlpha", "clip_weights", "hardening_gap", "recalibrate"]

STAIRS = 5
SHAPES: dict[str, Callable[[float], float]] = {
    "exponential": lambda part: part,
    "cosine": lambda part: 0.5 - 0.5 * math.cos(math.pi * part),
    "stepwise": lambda part: min(math.floor(part * (STAIRS + 1)), STAIRS) / STAIRS,
}


class AnnealAlpha:
    """Raises the steepness of a network's activations during a training.

    After each `step()` a surrogate's parameter is start * (end / start) ** s, with s from 0 to 1 over the steps: evenly
    ("exponential"), slowly at both ends ("cosine"), or in five stairs ("stepwise").

    Args:
        model: its `BinaryActivation`s whose surrogate has the parameter are annealed.
        start, end: values, > 0.
        steps: calls of `step` until the end, >= 1.
        shape: "exponential", "cosine" or "stepwise".
        parameter: "alpha", or another parameter's name, such as "t" of EDE.
        ends: other ends for some activations, by their module's name.

    Attributes:
        done: how many steps have been gone, from 0 to `steps`.

    Raises:
        ValueError: if a value is out of range, a name in `ends` is none of an activation's, or there is none to anneal.

    Example:
        >>> from htaf_snn.nn import HTAFActivation
        >>> net = nn.Sequential(nn.Linear(2, 2), HTAFActivation())
        >>> anneal = AnnealAlpha(net, start=1.0, end=16.0, steps=4)
        >>> for _ in range(2):
        ...     anneal.step()
        >>> net[1].surrogate.alpha
        4.0
    """

    def __init__(
        self,
        model: nn.Module,
        start: float = 1.0,
        end: float = 20.0,
        *,
        steps: int,
        shape: str = "exponential",
        parameter: str = "alpha",
        ends: Mapping[str, float] | None = None,
    ):
        if shape not in SHAPES:
            raise ValueError(f"shape: expected one of {', '.join(SHAPES)}, got {shape!r}")
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")
        self._activations = {
            name: module.surrogate
            for name, module in model.named_modules()
            if isinstance(module, BinaryActivation)
            and isinstance(module.surrogate, Surrogate)
            and parameter in module.surrogate.values()
        }
        if not self._activations:
            raise ValueError(f"model: expected an activation with the parameter {parameter!r}, got none")
        unknown = set(ends or ()) - set(self._activations)
        if unknown:
            known = ", ".join(self._activations)
            raise ValueError(f"ends: expected names of {known}, got {', '.join(sorted(unknown))}")
        for value in (start, end, *(ends or {}).values()):
            if not 0 < value < math.inf:
                raise ValueError(f"start, end, ends: expected positive finite numbers, got {value!r}")
        self._start, self._ends = start, {name: (ends or {}).get(name, end) for name in self._activations}
        self._steps, self._shape, self._parameter = steps, shape, parameter
        self.at(0)

    def step(self) -> None:
        """Go one step on; at the end nothing changes any more."""
        self.at(self.done + 1)

    def at(self, done: int) -> None:
        """Set the values after so many steps, >= 0; beyond the end they are those of the end."""
        self.done = min(done, self._steps)
        part = SHAPES[self._shape](self.done / self._steps)
        for name, surrogate in self._activations.items():
            setattr(surrogate, self._parameter, self._start * (self._ends[name] / self._start) ** part)

    def state_dict(self) -> dict[str, int]:
        """What `load_state_dict` takes: {"done": steps}."""
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue after the steps that the state was saved at."""
        self.at(state["done"])


def _accuracy(model: nn.Module, loader: Iterable) -> float:
    right = count = 0
    with torch.no_grad():
        for batch in loader:
            scores, labels = class_scores(model, unpack(batch))
            if scores.isnan().any():
                raise FloatingPointError("the model gives scores of NaN")
            right += (scores.argmax(1) == labels).sum().item()
            count += len(labels)
    if not count:
        raise ValueError("loader: expected at least one sample, got none")
    return right / count


def hardening_gap(model: nn.Module, loader: Iterable) -> float:
    """The accuracy with smooth activations minus that with hard ones, both in eval mode.

    BatchNorm has the same statistics for both; `training.evaluate_hard` measures them for each.

    Args:
        model: a classifier with activations of two levels; its mode is restored.
        loader: of (inputs, labels).

    Returns:
        A difference of accuracies, from -1 to 1; 0 for a network whose activations are hard throughout.

    Raises:
        ValueError, TypeError, FloatingPointError: as `training.evaluate`.

    Example:
        >>> from htaf_snn.nn import HTAFActivation
        >>> net = nn.Sequential(nn.Linear(2, 4), HTAFActivation(), nn.Linear(4, 2))
        >>> abs(hardening_gap(net, [(torch.randn(5, 2), torch.zeros(5, dtype=torch.int64))])) <= 1
        True
    """
    with in_eval(model):
        with smooth_activations(model):
            smooth = _accuracy(model, loader)
        return smooth - _accuracy(model, loader)


@torch.no_grad()
def clip_weights(model: nn.Module, limit: float = 1.0) -> None:
    """Keep the latent weights of binary layers within ±limit; beyond it a clipped estimator lets no gradient through.

    Args:
        model: the latent weights of its `BinaryLinear` and `BinaryConv2d` layers are changed, in place.
        limit: > 0.

    Example:
        >>> from htaf_snn.nn import BinaryLinear
        >>> layer = BinaryLinear(2, 2)
        >>> _ = layer.weight.data.fill_(3.0)
        >>> clip_weights(layer)
        >>> layer.weight.max().item()
        1.0
    """
    for module in model.modules():
        if isinstance(module, _BinaryWeight):
            module.weight.clamp_(-limit, limit)


def _samples(batch) -> int:
    """The number of labels, or without labels of inputs."""
    x, _ = inputs_of(batch)
    return len(x if batch[1] is None else batch[1])


@torch.no_grad()
def recalibrate(model: nn.Module, loader: Iterable, batches: int = 50) -> None:
    """Measure the statistics of BatchNorm layers anew, with hard activations as in `eval()`.

    Those of the training are of smooth activations; the hard ones' differ while alpha is finite.

    Args:
        model: its BatchNorm layers are changed; its mode is restored.
        loader: of (inputs, labels); batches of one sample are left out.
        batches: how many are taken at most; the statistics are their mean.

    Raises:
        ValueError: if there is no batch of two samples or more; the statistics are then as before.

    Example:
        >>> from htaf_snn.nn import HTAFActivation
        >>> net = nn.Sequential(HTAFActivation(levels=(0, 1)), nn.BatchNorm1d(1))
        >>> recalibrate(net, [(torch.tensor([[1.0], [-1.0]]), None)])
        >>> net[1].running_mean
        tensor([0.5000])
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    # The variance of one sample is unknown.
    usable = islice((batch for batch in loader if _samples(batch) > 1), batches)
    first = next(usable, None)
    if first is None:
        raise ValueError(
            "loader: expected a batch of two samples or more to measure BatchNorm's statistics on, got none"
        )
    momenta = [norm.momentum for norm in norms]
    with in_eval(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean of all batches
            norm.train()
        try:
            for batch in chain([first], usable):
                apply(model, *inputs_of(batch))
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
