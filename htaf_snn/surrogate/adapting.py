"""Surrogates whose width follows the spread of their layer's potentials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._checks import describe
from .base import Foreign, Surrogate
from .elementwise import heaviside
from .probing import places, replaced
from .rescaled import Rescaled
from .steepness import Steepness, gradient

_NEGLIGIBLE = 1e-6
"""Spread relative to the potentials' magnitude below which it is rounding."""


class AdaptiveWidth:
    r"""Sets the width of each layer's surrogate to twice the standard deviation of the layer's potentials.

    This is the rule of MPD-AGL, an adaptive gradient: the rectangle of width $w = 2\sigma$ reaches one standard
    deviation to each side of the threshold, and its height is $1/w$. Of any other surrogate, $w$ is the full width at
    half maximum, which is that of the rectangle; the parameter that sets it, such as alpha of HTAF, is changed.

    The paper derives the spread of the potentials $\tau u + I$ from the BatchNorm before them, whose currents have the
    standard deviation $\gamma V_{th}$: $\sigma = \gamma V_{th}$ in the first time step and
    $\sigma = \sqrt{1 + \tau^2}\,\gamma V_{th}$ in all later ones, with the mean of $\gamma$ over channels. Ours is
    measured, so that it needs no BatchNorm and holds for any neuron: over the samples, neurons and time steps of a
    batch together. All time steps have one width, and the potential is counted where the surrogate sees it, after a
    delayed reset. The mean of the potentials plays no part: without BatchNorm, which keeps it near the threshold, a
    compact surrogate such as the rectangle may reach none of them.

    Args:
        net: its surrogates that have such a parameter as a number are changed, each for its own layer, but none of
            binary weights and none of other libraries' neurons. `Rescaled` stays outside: a stretch of 2 halves the
            width.

    Raises:
        TypeError: if the network is no module.
        ValueError: if no layer has such a surrogate.

    Reference:
        Jiang et al. 2025, "Adaptive gradient learning for spiking neural networks by exploiting membrane potential
        dynamics", IJCAI, arXiv 2505.11863. Its abstract and the authors' code (github.com/jqjiang1999/MPD-AGL) were
        available to us; the rule is that of the code.

    Example:
        >>> from htaf_snn.nn import BinaryActivation
        >>> net = BinaryActivation("rectangle")
        >>> width, x = AdaptiveWidth(net), torch.tensor([-3.0, 3.0])
        >>> with width.measuring():
        ...     _ = net(x)
        >>> net.surrogate.width
        6.0
    """

    def __init__(self, net: nn.Module):
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected a module, got {describe(net)}")
        self._net = net
        self._layers: dict[Surrogate, _Layer] = {}
        for _, _, key, surrogate in places(net):
            width = None if key == "spike_grad" else Width.of(surrogate)
            if width is not None:
                self._layers[surrogate] = _Layer(width, _Recorder())
        if not self._layers:
            raise ValueError(
                "net: expected a layer of this package whose surrogate has a width, such as nn.Leaky or "
                "BinaryActivation with htaf, got none; for neurons of snnTorch or Norse write htaf_snn.fuse(net) first"
            )

    @contextmanager
    def measuring(self, total: Callable[..., list[float]] | None = None) -> Iterator[None]:
        """Measure the potentials of forward passes within the block, and at its end set the widths.

        The passes have no gradient, are stepped in plain torch, in training mode and with spikes at any hardness, and
        leave the network as it was: modes, BatchNorm's statistics, states and the random number generators. Padded time
        steps count. A layer whose potentials are all the same, or that is not used, keeps its width. Reading the spread
        waits for a GPU.

        Args:
            total: returns the sums of numbers over processes, in each of which the block is run; None for one process.

        Raises:
            FloatingPointError: if a potential is NaN or infinite; the widths are then as before.
        """
        for layer in self._layers.values():
            layer.recorder.clear()

        def stand_in(name: str, key: str, own: Surrogate) -> Surrogate | None:
            return self._layers[own].recorder if key != "spike_grad" and own in self._layers else None

        with torch.no_grad(), replaced(self._net, stand_in):
            yield
        sums = [number for layer in self._layers.values() for number in layer.recorder.sums()]
        moments = iter(sums if total is None else total(*sums))
        spreads = [spread(*three) for three in zip(moments, moments, moments, strict=True)]
        for layer, found in zip(self._layers.values(), spreads, strict=True):
            if found:
                layer.width.set(2 * found)


def spread(count: float, sum_: float, squares: float) -> float:
    """Return the standard deviation of so many numbers with this sum and sum of squares; 0 if it is only rounding.

    Raises:
        FloatingPointError: if it is not finite.
    """
    if not count:
        return 0.0
    mean, square = sum_ / count, squares / count
    if not math.isfinite(square):
        raise FloatingPointError("potentials: expected finite ones to measure their spread, got NaN or infinity")
    variance = square - mean * mean
    return math.sqrt(variance) if variance > _NEGLIGIBLE**2 * square else 0.0


@dataclass(frozen=True)
class Width:
    """The parameter that sets a surrogate's width.

    Attributes:
        surrogate: whose parameter is set.
        key: its name.
        unit: its value at a full width at half maximum of 1.
        power: 1 if a larger value is narrower, -1 if it is wider.
    """

    surrogate: Surrogate
    key: str
    unit: float
    power: int

    @classmethod
    def of(cls, surrogate: Surrogate) -> Width | None:
        """Return the width of a surrogate, or of the one that `Rescaled` holds; None if no number sets it."""
        while isinstance(surrogate, Rescaled):
            surrogate = surrogate.function
        steepness = _steepness(surrogate)
        if steepness is None:
            return None
        key, power = steepness.key, steepness.power
        surrogate.make_variable(key)  # else a compiled network would be compiled again at every step
        unit = getattr(surrogate, key) * _full_width(surrogate) ** power
        return cls(surrogate, key, float(f"{unit:.12g}"), power)

    def set(self, width: float) -> None:
        """Set the full width at half maximum."""
        setattr(self.surrogate, self.key, self.unit * width**-self.power)


def has_width(surrogate: Surrogate) -> bool:
    """Return whether a number sets the width of a surrogate, not of one that `Rescaled` holds."""
    return _steepness(surrogate) is not None


def _steepness(surrogate: Surrogate) -> Steepness | None:
    """Return the steepness of a surrogate of this package; None if it has none or learns it."""
    steepness = Steepness.of(surrogate)
    return steepness if steepness and steepness.key in surrogate.numbers() else None


def _full_width(surrogate: Surrogate) -> float:
    """Return the full width at half maximum of a gradient that falls evenly from its peak at 0."""

    def slope(x: float) -> float:
        return gradient(surrogate, torch.tensor([x], dtype=torch.float64)).item()

    low, high, half = 1e-12, 1e12, slope(0.0) / 2
    while high / low > 1 + 1e-13:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) >= half else (low, middle)
    return 2 * low


class _Recorder(Foreign):
    """A surrogate's stand-in: gives spikes, and adds up the potentials that are turned into outputs."""

    function: Callable[[Tensor], Tensor] = heaviside

    def __post_init__(self):
        self.clear()

    def clear(self) -> None:
        self.count = 0
        self.moments: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        # Resets call `at_hardness`, and their potentials are those of the time step before.
        wide = x.detach().double()
        self.count += x.numel()
        self.moments.append(torch.stack([wide.sum(), wide.square().sum()]))
        return heaviside(x)

    def at_hardness(self, hardness: float, x: Tensor, /, **parameters: float | Tensor) -> Tensor:
        return heaviside(x)

    def sums(self) -> tuple[float, float, float]:
        """Return how many potentials there were, their sum, and that of their squares."""
        if not self.moments:
            return 0.0, 0.0, 0.0
        first, second = torch.stack(self.moments).sum(0).tolist()
        return float(self.count), first, second


@dataclass(frozen=True)
class _Layer:
    """What is measured of a layer, and what is set by it."""

    width: Width
    recorder: _Recorder
