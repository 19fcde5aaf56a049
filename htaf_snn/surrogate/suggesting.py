"""The width of a network's surrogates that lets gradients through, measured on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .._checks import describe
from .probing import Probe, probed
from .specifications import SurrogateLike, resolve
from .suggestions import COHERENCE, SIGNAL, MeasuredLayer, MeasuredWidth, Suggestion

# Stretches are powers of 2; they are tried up to these, and found to this accuracy.
_WIDEST, _NARROWEST, _ACCURACY = -30.0, 30.0, 0.03


def suggest(net: nn.Module, batch: Sequence[Tensor], surrogate: SurrogateLike | None = None) -> Suggestion:
    """Suggest how wide a network's surrogates should be, from its potentials and gradients on one batch.

    Behind a layer of spikes the gradient is multiplied by the slopes h' of the surrogate at the potentials. What a
    neuron's slopes have in common over the batch is signal; their differences from sample to sample are noise to the
    layers before. Wide surrogates have more signal, narrow ones are closer to the step. The narrowest width is
    suggested at which signal is at least 0.1 of the gradient's energy at every layer, and 0.5 of what any single layer
    passes on, its coherence.

    The signal is measured: it is the squared cosine between the gradient and that of a network with mean slopes. In a
    chain of layers with BatchNorm it is the product of the coherences E[h']² / E[h'²] behind a layer; shortcuts and
    paths through time count as what they are.

    The limits were set by trainings of fully connected Heaviside networks of 2 to 16 layers with BatchNorm on
    Fashion-MNIST; `python -m benchmarks.evidence run suggestion` tests them on others. Elsewhere the suggestion is a
    place to begin.

    Whether the gradient "vanishes" (its norm at the first layer is less than 1/1000 of that at the last), "explodes"
    (more than 1000 times) or "passes" is a second question. BatchNorm and Adam make up for a constant factor, but not
    below Adam's `eps`; `Suggestion.gain` is the factor that evens the norms, for `Rescaled`.

    Args:
        net: a classifier with surrogates in its layers, such as `nn.BinaryActivation`, `nn.Leaky` or snnTorch's
            `Leaky(0.9, spike_grad=HTAF())`. It is measured in training mode and with spikes, at any hardness, and left
            as it was: gradients, modes, BatchNorm's statistics, states and the random number generators.
        batch: (inputs, labels), or (frames, labels, lengths), as a loader gives them, with class numbers as labels (B,)
            and as large as in training.
        surrogate: tried in place of the network's own, in any form, see `resolve`.

    Returns:
        A `Suggestion`: print it for a table, `plot` it for a figure. Stretches are relative to the surrogate as it is.

    Raises:
        TypeError: if the network is no module, or the batch or the scores have another form.
        ValueError: if no layer holds a surrogate, a shape or label does not fit, potentials are not finite or all the
            same, or the surrogate lets no gradient through at any width.

    Example:
        >>> from htaf_snn import models
        >>> _ = torch.manual_seed(0)
        >>> net = models.DeepHeavisideNet(20, [64] * 8, 10, surrogate="htaf")
        >>> suggestion = suggest(net, (torch.rand(128, 20), torch.randint(10, (128,))))
        >>> suggestion.verdict, 0.4 < suggestion.stretch < 0.7
        ('passes', True)
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected a module, got {describe(net)}")
    with probed(net, None if surrogate is None else resolve(surrogate)) as probes:
        loss = _loss(net, batch)
        return _suggestion(_Pass(probes, loss, len(batch[1])))


def _loss(net: nn.Module, batch: Any) -> Tensor:
    """Return the cross-entropy of a batch; raise TypeError or ValueError if the batch or the scores do not fit."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        got = f"{len(batch)} items" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"batch: expected (inputs, labels) or (frames, labels, lengths), got {got}")
    for name, value in zip(("inputs", "labels", "lengths"), batch, strict=False):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    x, labels, lengths = (*batch, None)[:3]
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool or len(labels) < 2:
        raise ValueError(f"labels: expected class numbers of two samples or more, int64 (B,), got {describe(labels)}")
    device = next(chain(net.parameters(), net.buffers()), x).device
    scores = net(x.to(device)) if lengths is None else net(x.to(device), lengths=lengths.to(device))
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        got = describe(scores) if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"net: expected class scores ({len(labels)}, n_classes), got {got}")
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"net: expected class scores ({len(labels)}, n_classes), got {describe(scores)}")
    if not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"labels: expected 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    return cross_entropy(scores.float(), labels.to(scores.device, torch.int64))


class _Pass:
    """One forward pass of a network with probes, whose gradient can be measured at any width."""

    def __init__(self, probes: list[Probe], loss: Tensor, batch: int):
        if not probes:
            raise ValueError(
                "net: expected layers that hold a surrogate and are used, such as BinaryActivation(), nn.Leaky(0.9) or "
                "snnTorch's Leaky(0.9, spike_grad=HTAF()), got none; for Norse's neurons write htaf_snn.fuse(net) first"
            )
        if not loss.isfinite():
            raise ValueError("net: expected finite class scores, got NaN or infinity")
        self.loss, self.probes = loss, probes
        # In deep networks a gradient leaves the range of its dtype; a multiple of it has more room below.
        is_half = any(x.dtype == torch.float16 for probe in probes for x in probe.calls)
        self.multiple = 2.0**10 if is_half else 2.0**80
        for probe in probes:
            probe.is_recording, probe.batch = False, batch
        self._leave_out_unreached()
        for probe in self.probes:
            _check_potentials(probe)

    def _leave_out_unreached(self) -> None:
        """Leave out calls that no gradient reaches, such as those for a detached reset."""
        reached = iter([grad is not None for grad in self._by_call()])
        for probe in self.probes:
            probe.calls = [x for x in probe.calls if next(reached)]
        self.probes = [probe for probe in self.probes if probe.calls]
        if not self.probes:
            raise ValueError("net: expected scores that depend on the spikes, got none that a gradient reaches")

    def _by_call(self) -> Sequence[Tensor | None]:
        """Return a multiple of the gradient at each call of each probe; None where there is none."""
        calls = [x for probe in self.probes for x in probe.calls]
        if not self.loss.requires_grad:
            return [None] * len(calls)
        multiple = torch.full_like(self.loss, self.multiple)
        return torch.autograd.grad(self.loss, calls, multiple, retain_graph=True, allow_unused=True)

    def _by_layer(self, stretch: float, is_linear: bool) -> list[list[Tensor]]:
        """Return a multiple of the gradient at the potentials of each layer."""
        for probe in self.probes:
            probe.set_width(stretch, is_linear)
        grads = iter(self._by_call())
        return [[next(grads) for _ in probe.calls] for probe in self.probes]  # type: ignore[misc]

    def at(self, stretch: float) -> MeasuredWidth:
        """Measure the gradient at one width."""
        gradients = self._by_layer(stretch, False), self._by_layer(stretch, True)
        norms, signals = zip(*map(_norm_and_signal, *gradients), strict=True)
        name = self.name_at(stretch) or f"stretch {stretch:.3g}"
        return MeasuredWidth(name, stretch, tuple(norm / self.multiple for norm in norms), signals)

    def name_at(self, stretch: float) -> str | None:
        """Return the surrogate's specification at a width, if all layers have the same."""
        names = {probe.name_at(stretch) for probe in self.probes}
        return names.pop() if len(names) == 1 else None

    def coherences(self, stretch: float) -> list[float]:
        """Return the coherence of each layer at one width."""
        return [probe.moments(stretch).coherence for probe in self.probes]

    def has_width(self) -> bool:
        """Return whether the width makes a difference."""
        ends = self.coherences(2.0**_WIDEST), self.coherences(2.0**_NARROWEST)
        return any(abs(wide - narrow) > 1e-4 for wide, narrow in zip(*ends, strict=True))


def _suggestion(measured: _Pass) -> Suggestion:
    has_width = measured.has_width()
    stretch = _narrowest(measured) if has_width else 1.0
    present, suggested = measured.at(1.0), measured.at(stretch)
    others = [measured.at(factor * stretch) for factor in (0.5, 2.0, 4.0)]
    widths = sorted([present, suggested, *others], key=lambda width: -width.stretch) if has_width else [present]
    return Suggestion(
        stretch=stretch,
        surrogate=measured.name_at(stretch),
        gain=_gain(suggested),
        has_width=has_width,
        layers=tuple(_layer(probe, place, present, suggested) for place, probe in enumerate(measured.probes)),
        present=present,
        suggested=suggested,
        widths=tuple(widths),
    )


def _narrowest(measured: _Pass) -> float:
    """Return the largest stretch at which both limits are kept."""
    # Coherences come first, as they take no backward pass.
    power = _largest(lambda power: min(measured.coherences(2.0**power)) >= COHERENCE, 0.0, _NARROWEST)
    if power is not None:
        power = _largest(lambda power: measured.at(2.0**power).signal >= SIGNAL, power, power)
    if power is None:
        raise ValueError(
            "surrogate: expected one that lets gradients through at some width, got "
            f"{measured.probes[0].function!r}, whose coherences by layer at the present width are "
            f"{', '.join(f'{coherence:.2g}' for coherence in measured.coherences(1.0))}"
        )
    return 2.0**power


def _largest(holds: Callable[[float], bool], start: float, end: float) -> float | None:
    """Return the largest power up to an end at which something holds that does below it; None if there is none."""
    low = start
    while not holds(low):
        low -= 1
        if low < _WIDEST:
            return None
    while start <= low < end and holds(low + 1):
        low += 1
    high = low + 1
    while low < end and high - low > _ACCURACY:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _gain(width: MeasuredWidth) -> float:
    """Return the factor per layer that makes the gradient's norm the same at both ends of a chain."""
    layers = len(width.gradients)
    return width.ratio ** (-1 / (layers - 1)) if layers > 1 and 0 < width.ratio < math.inf else 1.0


def _norm_and_signal(real: list[Tensor], linear: list[Tensor]) -> tuple[float, float]:
    """Return the norm of a gradient, and its squared cosine with another; 0 if it points against it."""
    (one, scale), (other, _) = _scaled(real), _scaled(linear)
    energies = [sum(part.square().sum().item() for part in parts) for parts in (one, other)]
    product = max(0.0, sum((a * b).sum().item() for a, b in zip(one, other, strict=True)))
    signal = product**2 / math.prod(energies) if math.prod(energies) > 0 else 0.0
    return math.sqrt(energies[0]) * scale, min(1.0, signal) if math.isfinite(signal) else 0.0


def _scaled(parts: list[Tensor]) -> tuple[list[Tensor], float]:
    """Return tensors in float32 divided by their largest magnitude, so that their squares are in range, and that."""
    scale = max(part.abs().max().item() for part in parts) or 1.0
    return [(part.to(torch.promote_types(part.dtype, torch.float32)) / scale).float() for part in parts], scale


def _check_potentials(probe: Probe) -> None:
    if not any(probe.differs(x) for x in probe.calls):
        raise ValueError(
            f"batch: expected potentials that differ between samples, got the same for all in layer {probe.layer!r}; "
            "scale the weights or inputs so that the neurons before it spike"
        )
    if not math.isfinite(probe.moments(1.0).mean_square):
        raise ValueError(
            f"surrogate: expected a finite gradient at all potentials, got NaN or infinity from {probe.function!r} in "
            f"layer {probe.layer!r}"
        )


def _layer(probe: Probe, place: int, present: MeasuredWidth, suggested: MeasuredWidth) -> MeasuredLayer:
    count, moments = sum(x.numel() for x in probe.calls), probe.moments(suggested.stretch)

    def mean(function: Callable[[Tensor], Tensor]) -> float:
        return sum(function(x.detach().float()).sum().item() for x in probe.calls) / count

    center = mean(lambda x: x)
    return MeasuredLayer(
        name=probe.layer,
        mean=center,
        std=math.sqrt(mean(lambda x: (x - center).square())),
        rate=mean(lambda x: x > 0),
        within=probe.within(suggested.stretch),
        coherence=moments.coherence,
        mean_square=moments.mean_square * probe.scale_at(suggested.stretch) ** 2,
        gradient=present.gradients[place],
        suggested_gradient=suggested.gradients[place],
        signal=present.signals[place],
        suggested_signal=suggested.signals[place],
    )
