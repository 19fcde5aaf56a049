"""snnTorch: hard resets for its neurons, whose `spike_grad` can be any surrogate; conversions of `Leaky`.

A neuron evaluates `spike_grad` twice per time step, for its output and for its reset. Below hardness 1 the output is
meant to be smooth and the reset is not, and the surrogate cannot tell the two calls apart. So `register` changes the
neurons' classes: with a surrogate of ours they reset as at hardness 1, with anything else they run their own code.
Changed classes serve unpickled models too, follow the hardness when it is set, and are traced by torch.compile like the
originals. Only a surrogate given to the neuron itself is recognised, not one inside another callable.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..nn import Leaky
from ..surrogate import HTAF, Foreign, Surrogate
from ..surrogate.elementwise import heaviside

if TYPE_CHECKING:
    import snntorch

__all__ = ["from_snntorch", "to_snntorch"]

# Neurons whose forward pass, where reset_delay=False, resets by the spikes that it returns.
_IMMEDIATE = ("Leaky", "Synaptic", "RLeaky", "RSynaptic")
_PARAMETERS = ("beta", "threshold", "graded_spikes_factor")

# The attributes that `register` has replaced: object, name, and the value before, _ABSENT for none.
_ABSENT = object()
_replaced: list[tuple[object, str, object]] = []


def htaf(
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 4.0,
    normalized: bool = False,
    *,
    learn: Collection[str] = (),
    hardness: float = 1.0,
) -> HTAF:
    """Make an HTAF surrogate under the name that snnTorch's conventions give it, `snntorch.surrogate.htaf`.

    Args:
        alpha: as in `htaf_snn.HTAF`, like the others.
        beta: likewise.
        normalized: likewise.
        learn: likewise.
        hardness: likewise.

    Returns:
        A module from membrane potential minus threshold, floating-point of any shape, to spikes of the same shape and
        dtype.

    Raises:
        TypeError, ValueError: as `htaf_snn.HTAF`.

    Example:
        >>> htaf(beta=8.0)
        HTAF(alpha=1.0, beta=8.0, hardness=1.0)
    """
    return HTAF(alpha, beta, normalized, learn=learn, hardness=hardness)


def is_installed() -> bool:
    """Whether snnTorch can be imported."""
    return find_spec("snntorch") is not None


def is_registered() -> bool:
    """Whether `register` is in force."""
    return bool(_replaced)


def register() -> None:
    """Add `snntorch.surrogate.htaf`, and let neurons reset hard at any hardness; calling it again is no error."""
    if _replaced:
        return
    neurons = import_module("snntorch._neurons")
    _replace(import_module("snntorch.surrogate"), "htaf", htaf)
    _replace(neurons.SpikingNeuron, "mem_reset", _with_hard_reset(neurons.SpikingNeuron.mem_reset))
    for cls in (getattr(neurons, name) for name in _IMMEDIATE):
        _replace(cls, "forward", _with_hard_immediate_reset(cls.forward))


def _replace(owner: object, name: str, value: object) -> None:
    _replaced.append((owner, name, vars(owner).get(name, _ABSENT)))
    setattr(owner, name, value)


def unregister() -> None:
    """Restore snnTorch as it was before `register`; calling it again is no error."""
    while _replaced:
        owner, name, before = _replaced.pop()
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _has_surrogate_of_ours(neuron: snntorch.SpikingNeuron) -> bool:
    return isinstance(neuron.spike_grad, Surrogate) and neuron.spike_grad.formula is not None


def _with_hard_reset(mem_reset: Callable) -> Callable:
    @wraps(mem_reset)
    def hard_mem_reset(self: snntorch.SpikingNeuron, mem: Tensor) -> Tensor:
        return heaviside(mem - self.threshold) if _has_surrogate_of_ours(self) else mem_reset(self, mem)

    return hard_mem_reset


def _with_hard_immediate_reset(forward: Callable) -> Callable:
    @wraps(forward)
    def hard_reset_forward(self: snntorch.SpikingNeuron, *args, **kwargs) -> Tensor | tuple[Tensor, ...]:
        if self.reset_delay or not _has_surrogate_of_ours(self) or self.spike_grad.hardness == 1:
            return forward(self, *args, **kwargs)
        self.reset_delay = True
        try:
            outputs = forward(self, *args, **kwargs)
        finally:
            self.reset_delay = False
        self.mem = _reset(self, _hard_spikes(self))
        return (*outputs[:-1], self.mem) if isinstance(outputs, tuple) else outputs

    return hard_reset_forward


def _hard_spikes(neuron: snntorch.SpikingNeuron) -> Tensor:
    before = neuron.spike_grad.hardness
    neuron.spike_grad.hardness = 1.0
    try:
        if neuron.inhibition:
            return neuron.fire_inhibition(neuron.mem.size(0), neuron.mem)
        return neuron.fire(neuron.mem)
    finally:
        neuron.spike_grad.hardness = before


def _reset(neuron: snntorch.SpikingNeuron, spikes: Tensor) -> Tensor:
    # Neurons that the delayed reset of this time step has already reset are not reset twice.
    amount = spikes / neuron.graded_spikes_factor - neuron.reset
    if neuron.reset_mechanism_val == 0:
        return neuron.mem - amount * neuron.threshold
    if neuron.reset_mechanism_val == 1:
        return neuron.mem - amount * neuron.mem
    return neuron.mem


def from_snntorch(neuron: snntorch.Leaky) -> Leaky:
    """Return a fused copy of a `snntorch.Leaky`.

    Args:
        neuron: its parameters and surrogate are copied; it is left unchanged.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if it uses inhibition or quantised states, which are not fused.

    Example:
        >>> import snntorch as snn
        >>> from_snntorch(snn.Leaky(beta=0.9, spike_grad=HTAF())).beta
        tensor(0.9000)
    """
    if type(neuron) is not import_module("snntorch").Leaky:
        raise TypeError(f"neuron: expected a snntorch.Leaky, got {type(neuron).__name__}")
    for name in ("inhibition", "state_quant"):
        if getattr(neuron, name):
            raise ValueError(f"neuron: expected one without {name}, which the fused neuron lacks")
    options = {**_parameters(neuron), "surrogate": neuron.spike_grad, **_reset_options(neuron)}
    return Leaky(**copy.deepcopy(options))


def to_snntorch(layer: Leaky) -> snntorch.Leaky:
    """Return a `snntorch.Leaky` with copies of a layer's parameters, and of its surrogate as `spike_grad`.

    Below hardness 1 its resets are hard, like those of the layer, while `htaf_snn.register()` is in force.

    Args:
        layer: left unchanged.

    Raises:
        TypeError: if it is another layer.

    Example:
        >>> type(to_snntorch(Leaky(beta=0.9))).__module__
        'snntorch._neurons.leaky'
    """
    if not isinstance(layer, Leaky):
        raise TypeError(f"layer: expected a htaf_snn.nn.Leaky, got {type(layer).__name__}")
    surrogate = layer.surrogate.function if isinstance(layer.surrogate, Foreign) else layer.surrogate
    options = {**_parameters(layer), "spike_grad": surrogate, **_reset_options(layer)}
    return import_module("snntorch").Leaky(**copy.deepcopy(options))


def _parameters(neuron: nn.Module) -> dict:
    values = {name: getattr(neuron, name).detach() for name in _PARAMETERS}
    return values | {f"learn_{name}": isinstance(getattr(neuron, name), nn.Parameter) for name in _PARAMETERS}


def _reset_options(neuron: nn.Module) -> dict:
    return {name: getattr(neuron, name) for name in ("reset_mechanism", "reset_delay")}
