"""snnTorch: hard resets for its neurons, whose `spike_grad` can be any surrogate; conversions of its neurons.

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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._checks import full_name
from ..functional.sequences import State, check_plain
from ..kernels.neuron.fused import is_in_kernel
from ..nn import Alpha, Lapicque, Leaky, NeuronLayer, RecurrentLayer, RLeaky, RSynaptic, StateLeaky, Synaptic
from ..surrogate import HTAF
from ..surrogate.elementwise import heaviside
from ..surrogate.libraries.snntorch import ORIGINAL, as_spike_grad, check_reset, own_surrogate
from ._tensors import check_layer, hold, states

if TYPE_CHECKING:
    import snntorch


NAME = "snntorch"
"""Where its neurons are found."""

# Neurons whose forward pass, where reset_delay=False, resets by the spikes that it returns.
_IMMEDIATE = ("Leaky", "Synaptic", "RLeaky")


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


LAYERS: dict[str, type[NeuronLayer]] = {
    layer.__name__: layer for layer in (Alpha, Lapicque, Leaky, RLeaky, RSynaptic, StateLeaky, Synaptic)
}
"""The layer of each neuron that can be converted, by the name that both have."""

_SPELT = {"reset": "reset_mechanism"}
# What a neuron may have that no layer has, and its value without.
_LACKING = {"inhibition": False, "state_quant": False, "kernel_truncation_steps": None}


def from_snntorch(neuron: snntorch.SpikingNeuron) -> NeuronLayer:
    """Return a fused copy of a neuron of snnTorch.

    Args:
        neuron: an `Alpha`, `Lapicque`, `Leaky`, `RLeaky`, `RSynaptic`, `StateLeaky` or `Synaptic`. Its parameters,
            weights and surrogate are copied, what it learns stays learnable, its hidden state is left behind; it is
            left unchanged.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if it has what the fused neuron lacks: inhibition, quantised states, a `StateLeaky` that learns tau
            in place of beta, truncates its kernel or returns the potential, a `Lapicque` that learns beta.

    Example:
        >>> import snntorch as snn
        >>> from_snntorch(snn.Leaky(beta=0.9, spike_grad=HTAF())).beta
        tensor(0.9000)
    """
    return fused(neuron)


def to_snntorch(layer: NeuronLayer) -> snntorch.SpikingNeuron:
    """Return a neuron of snnTorch with copies of a layer's parameters, and of its surrogate as `spike_grad`.

    Below hardness 1 its resets are hard, like those of the layer, while `htaf_snn.register()` is in force.

    Args:
        layer: an `Alpha`, `Lapicque`, `Leaky`, `RLeaky`, `RSynaptic`, `StateLeaky` or `Synaptic`; left unchanged.

    Raises:
        TypeError: if it is another layer.
        ValueError: if it is a `StateLeaky` that learns beta, where snnTorch's would learn tau, or an `RSynaptic`
            without `reset_delay`, which snnTorch's cannot compute.
        RuntimeError: if its hardness is below 1 and `htaf_snn.register()` is not in force.

    Example:
        >>> type(to_snntorch(Leaky(beta=0.9))).__module__
        'snntorch._neurons.leaky'
    """
    name = check_layer(layer, LAYERS)
    learned = dict(layer.named_parameters(recurse=False))
    values: dict[str, Any] = {key: torch.as_tensor(getattr(layer, key)) for key in _names(type(layer))}
    values = {key: value.detach().clone() for key, value in values.items()}
    given = {key: values[key] for key, default in layer.definition.parameters.items() if default is None}
    if name == "StateLeaky":
        if "beta" in learned:
            raise ValueError("beta: expected a buffer, as snntorch.StateLeaky learns tau instead, got a parameter")
        given = {"beta": values.pop("beta"), "channels": max(1, given["beta"].numel())}
    elif name == "Lapicque":  # its constructor takes numbers only
        values["beta"] = torch.exp(-values["time_step"] / (values["R"] * values["C"]))
        given = {"R": 1.0, "C": 1.0}
    elif name == "RSynaptic" and not layer.options["reset_delay"]:
        raise ValueError("reset_delay: expected True, without which snntorch.RSynaptic fails, got False")
    options = {_SPELT.get(key, key): value for key, value in layer.options.items()}
    options |= _sizes(layer) if isinstance(layer, RecurrentLayer) else {}
    spike_grad = copy.deepcopy(as_spike_grad(layer.surrogate))
    neuron = getattr(import_module("snntorch"), name)(**given, **options, spike_grad=spike_grad)
    for key, value in values.items():
        hold(neuron, key, nn.Parameter(value) if key in learned else value)
    if isinstance(layer, RecurrentLayer):
        _give_weights(layer, neuron, share=False)
    if options:
        check_reset(neuron)
    return neuron


def _sizes(layer: Any) -> dict[str, Any]:
    """Return what a recurrent layer or neuron is made with, for its weights."""
    weights = layer.recurrent
    if isinstance(weights, nn.Linear):
        return {"linear_features": weights.in_features}
    if isinstance(weights, nn.Conv2d):
        return {"conv2d_channels": weights.in_channels, "kernel_size": weights.kernel_size}
    return {"all_to_all": False, "learn_recurrent": weights.V.requires_grad}


def _give_weights(source: Any, target: Any, share: bool) -> None:
    """Let a recurrent layer or neuron have the weights of the other."""
    if isinstance(source.recurrent, (nn.Linear, nn.Conv2d)):
        target.recurrent = source.recurrent if share else copy.deepcopy(source.recurrent)
        return
    weight = source.recurrent.V if share else copy.deepcopy(source.recurrent.V)
    # snnTorch's neuron holds V itself too.
    for holder in (target.recurrent, target):
        if "V" in holder._parameters or "V" in holder._buffers:
            hold(holder, "V", weight)
    target.recurrent.V = weight


def fused(neuron: Any, share: bool = False) -> NeuronLayer:
    """Return the fused layer of a neuron, with copies of its tensors and its surrogate or, to share, with them."""
    kind = layer_of(neuron)
    if kind is None:
        raise TypeError(f"neuron: expected one of {known()}, got {full_name(neuron)}")
    _refuse_lacking(neuron, kind)
    tensors = {name: _tensor(neuron, name) for name in _names(kind)}
    given: dict[str, Any] = {name: value.detach() for name, value in tensors.items()}
    given |= {f"learn_{name}": isinstance(value, nn.Parameter) for name, value in tensors.items()}
    given |= {_SPELT.get(name, name): getattr(neuron, _SPELT.get(name, name)) for name in kind.definition.options}
    factor = tensors.get("graded_spikes_factor")
    if factor is not None and not share and not isinstance(factor, nn.Parameter) and bool((factor == 1).all()):
        given["graded_spikes_factor"] = 1.0
    is_recurrent = issubclass(kind, RecurrentLayer)
    given |= _sizes(neuron) if is_recurrent else {}
    layer = kind(**given, surrogate=neuron.spike_grad if share else copy.deepcopy(neuron.spike_grad))
    if is_recurrent:
        if isinstance(neuron.recurrent, (nn.Linear, nn.Conv2d)):
            check_plain(neuron.recurrent)
        _give_weights(neuron, layer, share)
        if not is_in_kernel(layer.surrogate):
            layer.backend = "torch"
    for name, value in tensors.items() if share else ():
        hold(layer, name, value)
    return layer


def layer_of(neuron: nn.Module) -> type[NeuronLayer] | None:
    """Return the class of the fused layer of a neuron, None if there is none."""
    kind = LAYERS.get(type(neuron).__name__)
    return kind if kind and getattr(sys.modules.get(NAME), kind.__name__, None) is type(neuron) else None


def known() -> str:
    """Return the neurons that can be converted, as messages show them."""
    return f"snntorch's {', '.join(LAYERS)}"


def _names(kind: type[NeuronLayer]) -> list[str]:
    """Return the names of the tensors that a layer and its neuron have in common."""
    return [*kind.definition.parameters, *(["graded_spikes_factor"] if kind is Leaky else [])]


def _tensor(neuron: Any, name: str) -> Tensor:
    """Return a tensor that a neuron computes with."""
    value, stored = getattr(neuron, name), neuron._buffers.get(name)
    # The beta of a StateLeaky is computed from its tau, and so is rounded.
    if stored is not None and name == "beta" and hasattr(neuron, "tau"):
        return stored if torch.equal(neuron.tau, 1 / (1 - stored + 1e-12)) else value
    return value


def _refuse_lacking(neuron: Any, kind: type[NeuronLayer]) -> None:
    """Raise ValueError if a neuron has what its layer lacks."""
    lacking = {**_LACKING, **({"output": True} if kind is StateLeaky else {})}
    for name, expected in lacking.items():
        value = getattr(neuron, name, expected)
        if value is not expected:
            raise ValueError(
                f"neuron: expected {name}={expected}, the only value that fused neurons support, got {value!r}"
            )
    factor = neuron.graded_spikes_factor
    if kind is not Leaky and (isinstance(factor, nn.Parameter) or not (factor == 1).all()):
        raise ValueError(f"neuron: expected graded_spikes_factor=1 but for a Leaky, got {factor!r}")
    if kind is RSynaptic and not neuron.reset_delay:
        raise ValueError("neuron: expected reset_delay=True, without which snntorch.RSynaptic fails, got False")
    if kind is Lapicque and neuron.C.grad_fn is not None:
        raise ValueError("neuron: expected learn_beta=False, as the fused neuron learns R and C instead, got True")
    if kind is StateLeaky and isinstance(neuron.tau, nn.Parameter):
        raise ValueError("neuron: expected learn_beta=False, as snnTorch's learns tau, where the fused one learns beta")


def reason_in_chain(neuron: Any, carries: bool, is_last: bool) -> str | None:
    """Return why a neuron does not work as a layer of a chain, which carries its state or not."""
    if not neuron.init_hidden:
        return "expected init_hidden=True, without which it returns its state too, which the next layer cannot take"
    if neuron.output and not is_last:
        return "expected output=False but for the last layer, as the next one cannot take the potential too"
    return None


def takes_sequence(neuron: nn.Module) -> bool:
    """Return whether a neuron takes all time steps in one call."""
    return layer_of(neuron) is StateLeaky


def state_from_snntorch(layer: NeuronLayer, state: State) -> State:
    """Return the state that a layer takes, from that of its neuron in snnTorch.

    Args:
        layer: as `from_snntorch` returns it.
        state: the tensors that the neuron returns after its spikes, such as (syn, mem), or mem alone.

    Raises:
        TypeError, ValueError: if the layer or the number of tensors is another.

    Example:
        >>> syn, mem = torch.zeros(2, 3), torch.ones(2, 3)
        >>> v, i = state_from_snntorch(Synaptic(0.9, 0.8), (syn, mem))
        >>> v is mem and i is syn
        True
    """
    check_layer(layer, LAYERS)
    *others, v = states(state, layer)
    spikes = [others.pop(0)] if isinstance(layer, RecurrentLayer) else []
    return (*spikes, v, *others) if spikes or others else v


def state_to_snntorch(layer: NeuronLayer, state: State) -> tuple[Tensor, ...]:
    """Return the tensors that a neuron of snnTorch takes after its input, from the state of its layer.

    Args:
        layer: as `to_snntorch` takes it.
        state: as the layer returns it.

    Raises:
        TypeError, ValueError: if the layer or the number of tensors is another.

    Example:
        >>> layer, x = Leaky(beta=0.9), torch.full((2, 1, 1), 0.6)
        >>> _, state = layer(x)
        >>> to_snntorch(layer)(x[0], *state_to_snntorch(layer, state))[1]
        tensor([[0.6260]])
    """
    check_layer(layer, LAYERS)
    tensors = [*states(state, layer)]
    v = tensors.pop(1 if isinstance(layer, RecurrentLayer) else 0)
    return (*tensors, v)


def is_stateful(module: nn.Module) -> bool:
    """Return whether a module is a neuron, of whichever kind."""
    return type(module).__module__.startswith("snntorch._neurons")
