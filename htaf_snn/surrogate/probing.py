"""Probes in place of a network's surrogates: they record potentials and let gradients of any width through."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import Foreign, Surrogate
from .specifications import resolve
from .steepness import Steepness, gradient


class Moments(NamedTuple):
    """The slopes of one layer at its potentials, in two numbers.

    Attributes:
        mean_square: of the slopes.
        coherence: the share of it that is due to what each neuron's slopes have in common over the batch.
    """

    mean_square: float
    coherence: float


class _Hard(torch.autograd.Function):
    """The spikes of a probe, with the gradient of the width that it has when the backward pass runs."""

    @staticmethod
    def forward(ctx, x, probe):
        ctx.save_for_backward(x)
        ctx.probe = probe
        return probe.function.at_hardness(1.0, x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return ctx.probe.backward(grad, x), None


class Probe(Foreign):
    """A surrogate's stand-in: gives its spikes, records the potentials, and has a gradient of any width.

    Args:
        function: the surrogate.
        layer: the name of the layer that holds it.
        stretch, scale: its gradient is that of function(stretch * x), times the scale.
        is_linear: take the mean over the batch in place of the slopes, so that all samples have the same.
    """

    function: Surrogate
    layer: str = ""
    stretch: float = 1.0
    scale: float = 1.0
    is_linear: bool = False

    def __post_init__(self):
        self.steepness = Steepness.of(self.function)
        self.order: list[Probe] = []
        self.calls: list[Tensor] = []
        self.is_recording, self.batch = True, 0

    def _at(self, hardness: float | Tensor, x: Tensor, parameters: dict[str, float | Tensor]) -> Tensor:
        if torch.is_grad_enabled() and not x.requires_grad:
            x = x.detach().requires_grad_()
        if self.is_recording and torch.is_grad_enabled():
            if not x.detach().isfinite().all():
                raise ValueError(f"batch: expected finite potentials, got NaN or infinity in layer {self.layer!r}")
            if not self.calls:
                self.order.append(self)
            self.calls.append(x)
        return _Hard.apply(x, self)

    def set_width(self, stretch: float, is_linear: bool = False) -> None:
        """Set the width of the gradient."""
        if stretch != self.stretch:
            self.scale = self.scale_at(stretch)
        self.stretch, self.is_linear = stretch, is_linear

    def scale_at(self, stretch: float) -> float:
        """Return the factor between the gradient of the specification at a width and that of a stretched argument."""
        return self.steepness.scale(stretch) if self.steepness else 1.0

    def name_at(self, stretch: float) -> str | None:
        """Return the specification of the surrogate at a width; None if it has none."""
        return self.steepness.specification(stretch) if self.steepness else None

    def backward(self, grad: Tensor, x: Tensor) -> Tensor:
        """Return the gradient at the potentials x for that at the spikes."""
        slopes = self._slopes(x, self.stretch)
        return (grad * (self._over_batch(slopes) if self.is_linear else slopes) * self.scale).to(grad.dtype)

    def _slopes(self, x: Tensor, stretch: float) -> Tensor:
        wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
        return gradient(self.function, wide, stretch)

    def _samples(self, x: Tensor) -> int:
        """Return the dimension of the samples: 1 in a sequence (T, B, F) or (T, B, C, H, W), else 0."""
        if x.ndim == 3 and x.shape[0] == x.shape[1] == self.batch:
            raise ValueError(
                f"batch: expected another number of samples than of time steps or channels, got {self.batch} of both "
                f"in layer {self.layer!r}"
            )
        is_sequence = x.ndim > 2 and x.shape[1] == self.batch and (x.ndim == 5 or x.shape[0] != self.batch)
        return int(is_sequence)

    def differs(self, x: Tensor) -> bool:
        """Return whether the potentials of any neuron differ between samples."""
        return bool((x.amax(self._samples(x)) > x.amin(self._samples(x))).any())

    def _over_batch(self, slopes: Tensor) -> Tensor:
        return slopes.mean(self._samples(slopes), keepdim=True)

    def moments(self, stretch: float) -> Moments:
        """Return the moments of the slopes at a width, without the scale."""
        squares, common, count = 0.0, 0.0, sum(x.numel() for x in self.calls)
        for x in self.calls:
            slopes = self._slopes(x, stretch)
            squares += slopes.square().mean().item() * x.numel() / count
            common += self._over_batch(slopes).square().mean().item() * x.numel() / count
        return Moments(squares, min(1.0, common / squares) if 0 < squares < math.inf else 0.0)

    def within(self, stretch: float) -> float:
        """Return the share of potentials at which the gradient is at least half of that at the threshold."""
        found = 0.0
        for x in self.calls:
            slopes, peak = (self._slopes(at, stretch).abs() for at in (x, torch.zeros_like(x)))
            found += ((slopes >= peak / 2) & (slopes > 0)).sum().item()
        return found / sum(x.numel() for x in self.calls)


@contextmanager
def _unchanged(net: nn.Module) -> Iterator[None]:
    """Restore all that a network's modules hold after the block: attributes, modes, states and buffers."""
    held = [vars(module) for module in net.modules()]
    inner = [value for values in held for value in values.values() if isinstance(value, (dict, list, set))]
    containers = [(container, copy.copy(container)) for container in (*held, *inner)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        for container, before in containers:
            container.clear()
            container.extend(before) if isinstance(container, list) else container.update(before)
        with torch.no_grad():
            for buffer, value in buffers:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def places(net: nn.Module) -> Iterator[tuple[str, nn.Module, str, Surrogate]]:
    """Yield each surrogate of potentials: the name of its layer, the module that holds it, as what, and itself."""
    for name, module in net.named_modules():
        if isinstance(module, Surrogate) or getattr(module, "surrogate_acts_on_weights", False):
            continue
        found = {key: child for key, child in module.named_children() if isinstance(child, Surrogate)}
        if callable(vars(module).get("spike_grad")):  # a library's own, which is no module
            found["spike_grad"] = resolve(module.spike_grad)
        for key, surrogate in found.items():
            parts = name, "" if key in ("surrogate", "spike_grad") else key
            yield ".".join(filter(None, parts)) or type(module).__name__, module, key, surrogate


@contextmanager
def replaced(net: nn.Module, stand_in: Callable[[str, str, Surrogate], Surrogate | None]) -> Iterator[None]:
    """Put other surrogates in place of a network's own, and it into training mode, within the block.

    Args:
        net: restored afterwards, also after an error, like the state of the random number generators.
        stand_in: called with the name of a layer, that of the attribute and the surrogate; None leaves the layer alone.
    """
    with ExitStack() as stack:
        on_gpu = {tensor.device for tensor in (*net.parameters(), *net.buffers()) if tensor.is_cuda}
        stack.enter_context(torch.random.fork_rng(list(on_gpu)))
        stack.enter_context(_unchanged(net))
        if any(hasattr(module, "_orig_mod") or module._compiled_call_impl for module in net.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))  # it would compile what stands in
        if not net.training:
            net.train()
        for name, module, key, own in list(places(net)):
            other = stand_in(name, key, own)
            if other is None:
                continue
            setattr(module, key, other)
            if hasattr(module, "backend"):
                module.backend = "torch"  # type: ignore[assignment]  # kernels call no surrogate
        yield


@contextmanager
def probed(net: nn.Module, surrogate: Surrogate | None) -> Iterator[list[Probe]]:
    """Put probes in place of a network's surrogates, as `replaced` does, within the block.

    Args:
        net: as for `replaced`.
        surrogate: probed in place of the network's own; None for those.

    Yields:
        A list that fills with the probes in the order of their first call.
    """
    order: list[Probe] = []

    def stand_in(name: str, key: str, own: Surrogate) -> Probe:
        probe = Probe(own if surrogate is None else surrogate, layer=name)
        probe.order = order
        return probe

    with torch.enable_grad(), replaced(net, stand_in):
        yield order
