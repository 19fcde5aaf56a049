"""snnTorch: every surrogate of this package serves as `spike_grad`, and `snntorch.surrogate.htaf` can be had.

A neuron evaluates `spike_grad` twice a step, for its output and for its reset. In smooth mode the output is
meant to be smooth and the reset is not, and the surrogate cannot tell the two calls apart. So the neurons'
classes are changed, as soon as both libraries are imported: with a smooth surrogate of ours they reset as in
spike mode, and with anything else they run their own code. A class-level change needs no call by the user,
holds for models unpickled in a fresh process, follows a change of mode, and is traced by torch.compile like
the original.

Only a surrogate given to the neuron itself is seen, not one inside another callable.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor, nn

from ..surrogate import HTAF, Surrogate
from ._hooks import when_imported

__all__ = [
    "FAULTS",
    "LeakyOverTime",
    "htaf",
    "is_installed",
    "is_registered",
    "library_surrogate",
    "register",
    "surrogate_names",
    "unregister",
]

FAULTS = {
    "LSO": "raises when called: it calls another operator",
    "SFS": "zero gradient for x <= B, so none near the threshold",
    "SSO": "the gradient is random, and 1 wherever it spikes",
    "atan": "the gradient is pi * alpha / 2 times the documented one",
    "heaviside": "the gradient is 1 where it spikes, else 0",
    "sigmoid": "NaN gradient below x = -3.4 at the default slope, by overflow",
    "spike_rate_escape": "the peak lies one above the threshold",
    "straight_through_estimator": "documented as a fast sigmoid",
    "triangular": "no triangle: +threshold below 0, -threshold from 0 on, everywhere",
}
"""What is known to be odd in snnTorch 1.0's surrogates, by name."""

# Neurons whose forward pass, where reset_delay=False, resets by the spikes that it returns.
_IMMEDIATE = ("Leaky", "Synaptic", "RLeaky", "RSynaptic")

BETA = 0.9
"""Decay of the membrane potential a step, in the networks that this package trains."""

# What `snntorch.surrogate` was and the `htaf` that it had (None: none) before `register`.
_replaced: tuple[ModuleType, Callable | None] | None = None


def htaf(alpha: float | Tensor = 1.0, beta: float | Tensor = 4.0, **options) -> HTAF:
    """The HTAF surrogate, in snnTorch's way of naming: `snntorch.surrogate.htaf(alpha, beta)`.

    Args:
        alpha, beta, **options: as `htaf_snn.surrogate.HTAF`.

    Returns:
        A module that maps membrane potential minus threshold, floating-point of any shape, to spikes of the
        same shape and dtype.

    Raises:
        TypeError, ValueError: as `htaf_snn.surrogate.HTAF`.

    Example:
        >>> htaf(beta=8.0)
        HTAF(alpha=1.0, beta=8.0, mode='spike')
    """
    return HTAF(alpha, beta, **options)


def library_surrogate(name: str, **parameters) -> Callable[[Tensor], Tensor]:
    """One of snnTorch's own surrogates, exactly as snnTorch computes it.

    Args:
        name: of a factory in `snntorch.surrogate`, such as "atan".
        **parameters: as the factory takes them; numbers, and those that set a scale > 0.

    Returns:
        A callable from a floating-point tensor to spikes of its shape.

    Raises:
        ValueError: if there is no such factory (the message lists them), or it does not take the parameters.

    Example:
        >>> library_surrogate("atan", alpha=2.0)(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    factories = _factories()
    if name not in factories:
        raise ValueError(f"unknown surrogate 'snntorch.{name}'; expected one of: {', '.join(sorted(factories))}")
    for key, value in parameters.items():
        is_scale = key in ("alpha", "beta", "slope", "variance")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (is_scale and not value > 0):
            expected = "a positive number" if is_scale else "a number"
            raise ValueError(f"surrogate 'snntorch.{name}': {key}: expected {expected}, got {value!r}")
    try:
        return factories[name](**parameters)
    except TypeError as error:
        raise ValueError(f"surrogate 'snntorch.{name}': {error}") from error


def _factories() -> dict[str, Callable]:
    module = import_module("snntorch.surrogate")
    return {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and key != "custom_surrogate"
        if not key.startswith("_")
    }


def surrogate_names() -> list[str]:
    """The names that `library_surrogate` accepts, sorted.

    Example:
        >>> surrogate_names()[:4]
        ['LSO', 'SFS', 'SSO', 'atan']
    """
    return sorted(_factories())


class LeakyOverTime(nn.Module):
    """`snntorch.Leaky` stepped over a sequence, from rest.

    Args:
        spike_grad: any callable that snnTorch takes.
        beta: decay of the membrane potential a step, in [0, 1].

    Shape:
        currents (T, B, *features) to spikes of the same shape.

    Example:
        >>> LeakyOverTime(HTAF())(torch.ones(3, 1, 1)).flatten()
        tensor([0., 1., 1.])
    """

    def __init__(self, spike_grad: Callable[[Tensor], Tensor], beta: float = BETA):
        super().__init__()
        self.leaky = import_module("snntorch").Leaky(beta=beta, spike_grad=spike_grad)

    def forward(self, currents: Tensor) -> Tensor:
        mem = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            spike, mem = self.leaky(current, mem)
            spikes.append(spike)
        return torch.stack(spikes)


def is_installed() -> bool:
    """Whether snnTorch can be imported.

    Example:
        >>> is_installed()
        True
    """
    return find_spec("snntorch") is not None


def is_registered() -> bool:
    """Whether `register` is in force.

    Example:
        >>> register()
        >>> is_registered()
        True
        >>> unregister()
    """
    return _replaced is not None


def register() -> None:
    """Make `snntorch.surrogate.htaf` exist; once more is no error.

    Example:
        >>> import snntorch
        >>> register()
        >>> snntorch.Leaky(beta=0.9, spike_grad=snntorch.surrogate.htaf(beta=8.0)).spike_grad
        HTAF(alpha=1.0, beta=8.0, mode='spike')
        >>> unregister()
    """
    global _replaced
    if _replaced is None:
        surrogate = import_module("snntorch.surrogate")
        _replaced = surrogate, getattr(surrogate, "htaf", None)
        surrogate.htaf = htaf


def unregister() -> None:
    """Leave `snntorch.surrogate` as it was before `register`; once more is no error.

    Example:
        >>> import snntorch.surrogate
        >>> register()
        >>> unregister()
        >>> hasattr(snntorch.surrogate, "htaf")
        False
    """
    global _replaced
    if _replaced is not None:
        surrogate, before = _replaced
        _replaced = None
        if before is None:
            del surrogate.htaf
        else:
            surrogate.htaf = before


def _is_smooth(neuron) -> bool:
    return isinstance(neuron.spike_grad, Surrogate) and neuron.spike_grad.mode == "smooth"


def _keep_resets_hard(neurons: ModuleType) -> None:
    base = neurons.SpikingNeuron
    base.mem_reset = _with_hard_reset(base.mem_reset)
    for name in _IMMEDIATE:
        cls = getattr(neurons, name)
        cls.forward = _with_hard_immediate_reset(cls.forward)


def _with_hard_reset(mem_reset: Callable) -> Callable:
    @wraps(mem_reset)
    def hard_mem_reset(self, mem: Tensor) -> Tensor:
        if not _is_smooth(self):
            return mem_reset(self, mem)
        return (mem - self.threshold > 0).to(mem.dtype)

    return hard_mem_reset


def _with_hard_immediate_reset(forward: Callable) -> Callable:
    @wraps(forward)
    def hard_reset_forward(self, *args, **kwargs) -> Tensor | tuple[Tensor, ...]:
        if self.reset_delay or not _is_smooth(self):
            return forward(self, *args, **kwargs)
        self.reset_delay = True
        try:
            outputs = forward(self, *args, **kwargs)
        finally:
            self.reset_delay = False
        self.mem = _reset(self, _hard_spikes(self))
        return (*outputs[:-1], self.mem) if isinstance(outputs, tuple) else outputs

    return hard_reset_forward


def _hard_spikes(neuron) -> Tensor:
    neuron.spike_grad.mode = "spike"
    try:
        if neuron.inhibition:
            return neuron.fire_inhibition(neuron.mem.size(0), neuron.mem)
        return neuron.fire(neuron.mem)
    finally:
        neuron.spike_grad.mode = "smooth"


def _reset(neuron, spikes: Tensor) -> Tensor:
    # What the delayed reset of this step has already taken from a neuron is not taken twice.
    amount = spikes / neuron.graded_spikes_factor - neuron.reset
    if neuron.reset_mechanism_val == 0:
        return neuron.mem - amount * neuron.threshold
    if neuron.reset_mechanism_val == 1:
        return neuron.mem - amount * neuron.mem
    return neuron.mem


when_imported("snntorch._neurons", _keep_resets_hard)


def describe_leaky(neuron: nn.Module) -> dict:
    """The arguments of `htaf_snn.nn.Leaky` that make it equal to a `snntorch.Leaky`.

    Raises:
        TypeError: if it is another neuron.
        ValueError: if it uses what is not fused.
    """
    if type(neuron) is not import_module("snntorch").Leaky:
        raise TypeError(f"neuron: expected a snntorch.Leaky, got {type(neuron).__name__}")
    for name in ("inhibition", "state_quant"):
        if getattr(neuron, name):
            raise ValueError(f"neuron: expected one without {name}, which the fused neuron lacks")
    learned = ("beta", "threshold", "graded_spikes_factor")
    return {
        **{name: getattr(neuron, name).detach() for name in learned},
        **{f"learn_{name}": isinstance(getattr(neuron, name), nn.Parameter) for name in learned},
        "surrogate": neuron.spike_grad,
        "reset_mechanism": neuron.reset_mechanism,
        "reset_delay": neuron.reset_delay,
    }


def make_leaky(neuron: nn.Module) -> nn.Module:
    """The `snntorch.Leaky` that is equal to a `htaf_snn.nn.Leaky`, sharing its tensors and surrogate."""
    learned = ("beta", "threshold", "graded_spikes_factor")
    return import_module("snntorch").Leaky(
        **{name: getattr(neuron, name).detach() for name in learned},
        **{f"learn_{name}": isinstance(getattr(neuron, name), nn.Parameter) for name in learned},
        spike_grad=neuron.surrogate,
        reset_mechanism=neuron.reset_mechanism,
        reset_delay=neuron.reset_delay,
    )
