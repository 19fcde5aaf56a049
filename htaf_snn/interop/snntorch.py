"""snnTorch: hard resets for its neurons, whose `spike_grad` can be any surrogate; conversions of `Leaky`.

A neuron evaluates `spike_grad` twice per time step, for its output and for its reset. Below hardness 1 the output is
meant to be smooth and the reset is not, and the surrogate cannot tell the two calls apart. So `register` changes the
neurons' classes: with a surrogate of ours they reset as at hardness 1, with anything else they run their own code.
Changed classes serve unpickled models too, follow the hardness when it is set, and are traced by torch.compile like the
originals. A surrogate is recognised that is given to the neuron itself or rescaled, not one inside another callable.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Collection
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._checks import full_name
from ..nn import Leaky
from ..surrogate import HTAF
from ..surrogate.elementwise import heaviside
from ..surrogate.libraries.snntorch import ORIGINAL, as_spike_grad, check_reset, own_surrogate

if TYPE_CHECKING:
    import snntorch


# Neurons whose forward pass, where reset_delay=False, resets by the spikes that it returns.
_IMMEDIATE = ("Leaky", "Synaptic", "RLeaky")
_PARAMETERS = ("beta", "threshold", "graded_spikes_factor")


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
    neurons = sys.modules.get("snntorch._neurons")
    return neurons is not None and hasattr(neurons.SpikingNeuron.mem_reset, ORIGINAL)


def register() -> None:
    """Add `snntorch.surrogate.htaf`, and let neurons reset hard at any hardness; calling it again is no error."""
    for owner, name, replacement in _replaceable():
        original = vars(owner).get(name)
        if not hasattr(original, ORIGINAL):
            value = replacement(original)
            setattr(value, ORIGINAL, original)
            setattr(owner, name, value)


def _replaceable() -> list[tuple[object, str, Callable]]:
    """Return the owners and names of what `register` replaces, and what makes the replacement from the original."""
    neurons = import_module("snntorch._neurons")
    immediate = [(getattr(neurons, name), "forward", _with_hard_immediate_reset) for name in _IMMEDIATE]
    surrogates = import_module("snntorch.surrogate")
    return [*immediate, (surrogates, "htaf", lambda _: htaf), (neurons.SpikingNeuron, "mem_reset", _with_hard_reset)]


def unregister() -> None:
    """Restore snnTorch as it was before `register`; calling it again is no error."""
    for owner, name, _ in _replaceable() if sys.modules.get("snntorch") else ():
        value = vars(owner).get(name)
        if hasattr(value, ORIGINAL):
            setattr(owner, name, getattr(value, ORIGINAL))
            if getattr(owner, name) is None:
                delattr(owner, name)


def _with_hard_reset(mem_reset: Callable) -> Callable:
    @wraps(mem_reset)
    def hard_mem_reset(self: snntorch.SpikingNeuron, mem: Tensor) -> Tensor:
        return mem_reset(self, mem) if own_surrogate(self) is None else heaviside(mem - self.threshold)

    return hard_mem_reset


def _with_hard_immediate_reset(forward: Callable) -> Callable:
    @wraps(forward)
    def hard_reset_forward(self: snntorch.SpikingNeuron, *args, **kwargs) -> Tensor | tuple[Tensor, ...]:
        surrogate = own_surrogate(self)
        if self.reset_delay or surrogate is None or surrogate.hardness == 1:
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
    """Return what `fire` or `fire_inhibition` would at hardness 1, which others who share the surrogate do not see."""
    mem = neuron.state_quant(neuron.mem) if neuron.state_quant and not neuron.inhibition else neuron.mem
    spikes = neuron.spike_grad.at_hardness(1.0, mem - neuron.threshold)
    if not neuron.inhibition:
        return spikes * neuron.graded_spikes_factor
    mask = torch.zeros_like(spikes)
    mask[torch.arange(len(mem)), torch.argmax(mem - neuron.threshold, dim=1)] = 1
    return spikes * mask


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
        raise TypeError(f"neuron: expected a snntorch.Leaky, got {full_name(neuron)}")
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
        RuntimeError: if its hardness is below 1 and `htaf_snn.register()` is not in force.

    Example:
        >>> type(to_snntorch(Leaky(beta=0.9))).__module__
        'snntorch._neurons.leaky'
    """
    if not isinstance(layer, Leaky):
        raise TypeError(f"layer: expected an htaf_snn.nn.Leaky, got {full_name(layer)}")
    options = {**_parameters(layer), "spike_grad": as_spike_grad(layer.surrogate), **_reset_options(layer)}
    neuron = import_module("snntorch").Leaky(**copy.deepcopy(options))
    check_reset(neuron)
    return neuron


def _parameters(neuron: nn.Module) -> dict:
    values = {name: getattr(neuron, name).detach() for name in _PARAMETERS}
    return values | {f"learn_{name}": isinstance(getattr(neuron, name), nn.Parameter) for name in _PARAMETERS}


def _reset_options(neuron: nn.Module) -> dict:
    return {name: getattr(neuron, name) for name in ("reset_mechanism", "reset_delay")}
