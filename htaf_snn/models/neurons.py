"""The spiking neurons of a network, by the library whose code computes them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._checks import check_choice
from .._hints import did_you_mean
from ..configuration import NEURONS
from ..surrogate import Surrogate, SurrogateLike, resolve
from ..surrogate.libraries.norse import as_method, is_extended
from ..surrogate.libraries.snntorch import as_spike_grad, check_reset
from ..surrogate.specifications import parse

LIBRARIES = tuple(NEURONS)


class SteppedNeuron(hnn.OverTime):
    """A neuron of snnTorch, or a cell of Norse, stepped over a sequence.

    Args:
        neuron: the library's module for one time step. Those of snnTorch have ``init_hidden=False``.

    Shape:
        currents (T, B, *features), and the state of the part before or None, to spikes of the same shape and the
        library's state.

    Raises:
        ValueError: if a neuron of snnTorch keeps its state hidden.
        RuntimeError: in the forward pass, if a hardness is below 1 and `htaf_snn.register()` is not in force: snnTorch
            would reset softly.

    Example:
        >>> import snntorch
        >>> SteppedNeuron(snntorch.Leaky(beta=0.9))(torch.ones(3, 1, 1))[0].flatten()
        tensor([0., 1., 1.])
    """

    def __init__(self, neuron: nn.Module):
        super().__init__()
        if getattr(neuron, "init_hidden", False):
            raise ValueError("neuron: expected init_hidden=False, as a sequence starts from rest, got init_hidden=True")
        self.neuron = neuron

    def forward(self, currents: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        rest = getattr(self.neuron, "reset_mem", None)  # of snnTorch
        if rest is not None:
            check_reset(self.neuron)
            state = rest() if state is None else state
        spikes = []
        for current in currents:
            values = state if isinstance(state, tuple) and rest is not None else (state,)
            spike, *after = self.neuron(current, *values)
            state = after[0] if len(after) == 1 else tuple(after)
            spikes.append(spike)
        return torch.stack(spikes), state


class NorseOverTime(hnn.OverTime):
    """A neuron of Norse over sequences, such as `norse.torch.LIF`.

    Args:
        neuron: the library's module.

    Shape:
        currents (T, B, *features), and the state of the part before or None, to spikes of the same shape and Norse's
        state.

    Raises:
        RuntimeError: in the forward pass, if the surrogate is of this package and `htaf_snn.register()` is not in
            force.

    Example:
        >>> import norse.torch
        >>> spikes, state = NorseOverTime(norse.torch.LIF())(torch.ones(6, 1, 1))
        >>> spikes.shape
        torch.Size([6, 1, 1])
    """

    def __init__(self, neuron: nn.Module):
        super().__init__()
        self.neuron = neuron

    def forward(self, currents: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        method: Any = self.neuron.p.method  # type: ignore[union-attr]  # parameters of Norse
        if "(" in method and not is_extended():
            raise RuntimeError(f"method: Norse does not know {method!r}; call htaf_snn.register() first")
        return self.neuron(currents, state)


class Alone(hnn.OverTime):
    """Any other module over sequences, which starts from rest in every call.

    Args:
        module: maps currents (T, B, *features) to spikes of that shape, or to a tuple that begins with them.

    Example:
        >>> Alone(nn.Identity())(torch.ones(3, 1, 1))[0].shape
        torch.Size([3, 1, 1])
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, currents: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if isinstance(self.module, hnn.Sequential):
            return self.module.stream(currents, state)
        spikes = self.module(currents)
        return (spikes[0] if isinstance(spikes, tuple) else spikes), None

    @property
    def streams(self) -> bool:
        """Whether a sequence may be given in parts: a chain of this package, or a module without a state."""
        return isinstance(self.module, (hnn.Sequential, nn.Identity))


def over_time(module: nn.Module) -> hnn.OverTime:
    """Return a neuron of this package, snnTorch or Norse, or any module over sequences, as one that returns its state.

    Args:
        module: the neuron.

    Raises:
        ValueError: as `SteppedNeuron`.

    Example:
        >>> type(over_time(hnn.Leaky(beta=0.9))).__name__, type(over_time(nn.Identity())).__name__
        ('Leaky', 'Alone')
    """
    if isinstance(module, hnn.OverTime):
        return module
    if hasattr(module, "reset_mem") or (hasattr(module, "state_fallback") and _is_cell(module)):
        return SteppedNeuron(module)
    return NorseOverTime(module) if hasattr(module, "state_fallback") else Alone(module)


def _is_cell(module: nn.Module) -> bool:
    """Return whether a neuron of Norse takes one time step, rather than a sequence."""
    return isinstance(module, import_module("norse.torch.module.snn").SNNCell)


def neuron(library: str, surrogate: SurrogateLike = "htaf", kind: str | None = None) -> hnn.OverTime:
    """Make the spiking layer of a network, with a surrogate that its library can use.

    Args:
        library: "fused", this package's; "snntorch", with the same results; or "norse".
        surrogate: in any form, see `htaf_snn.surrogate.resolve`; it must have a gradient. Norse takes this package's
            and its own.
        kind: name of the neuron and its parameters, such as "leaky(beta=0.9)" or, of Norse, "lif(v_th=0.3)"; for
            "fused" any of `htaf_snn.nn`, by the name of its file in `htaf_snn.neurons`, for the others a class of the
            library. None for the two examples.

    Returns:
        A module from currents (T, B, *features), and a state or None for rest, to spikes of that shape and the state.
        "norse" with a surrogate of this package, and "snntorch" with a hardness below 1, work only while
        `htaf_snn.register()` is in force.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`; ValueError also if the library or the kind
            is unknown, or the library cannot use the surrogate, ImportError if it is not installed.

    Example:
        >>> spikes, state = neuron("fused", "htaf", "synaptic(alpha=0.8, beta=0.9)")(torch.ones(3, 2, 4))
        >>> spikes.shape
        torch.Size([3, 2, 4])
    """
    check_choice("library", library, LIBRARIES)
    if library != "fused" and find_spec(library) is None:
        raise ImportError(f"library: {library} is not installed; pip install {library}")
    resolved = resolve(surrogate)
    _check_usable(resolved, surrogate)
    name, parameters = _read(NEURONS[library] if kind is None else kind)
    cls = _layers(library).get(name)
    if cls is None:
        expected = f"one of {', '.join(_layers(library))}"
        raise ValueError(f"neuron: expected {expected} of {library}, got {name!r}{did_you_mean(name, expected)}")
    try:
        return _made(library, cls, resolved, parameters)
    except TypeError as error:
        raise ValueError(f"neuron: {kind!r} does not fit {library}: {error}") from error


def _made(library: str, cls: type[hnn.NeuronLayer], surrogate: Surrogate, parameters: dict) -> hnn.OverTime:
    """Return the neuron of a library that has the name of one of this package's layers."""
    if library == "fused":
        return cls(**parameters, surrogate=surrogate)
    if library == "snntorch":
        theirs = getattr(import_module("snntorch"), cls.__name__)
        return SteppedNeuron(theirs(**parameters, spike_grad=as_spike_grad(surrogate)))
    method, alpha = as_method(surrogate)
    module = import_module("norse.torch")
    values = {name: torch.as_tensor(value) for name, value in (parameters | {"alpha": alpha}).items()}
    p = getattr(module, f"{cls.__name__}Parameters")(method=method, **values)
    return NorseOverTime(getattr(module, cls.__name__)(p))


def _read(kind: str) -> tuple[str, dict]:
    """Return the name and the parameters of a neuron's specification."""
    try:
        return parse(kind)
    except ValueError:
        raise ValueError(f"neuron: expected a name and parameters, such as 'leaky(beta=0.9)', got {kind!r}") from None


def _layers(library: str) -> dict[str, type[hnn.NeuronLayer]]:
    """Return this package's layers whose kinds of neurons a library has, by name."""
    layers = {
        layer.definition.name: layer
        for layer in vars(hnn).values()
        if isinstance(layer, type) and issubclass(layer, hnn.NeuronLayer) and hasattr(layer, "definition")
        if layer.definition.spikes and not issubclass(layer, hnn.RecurrentLayer)
    }
    kept = {
        "fused": layers,
        "snntorch": ("leaky", "synaptic", "alpha", "lapicque"),
        "norse": ("lif", "lif_ex", "lif_adex"),
    }
    return {name: layer for name, layer in layers.items() if name in kept[library]}


def needs_register(library: str, surrogate: SurrogateLike, is_annealed: bool = False) -> bool:
    """Return whether a network of `neuron`'s runs only while `htaf_snn.register()` is in force.

    Args:
        library, surrogate: as for `neuron`.
        is_annealed: whether its hardness will be below 1, whatever the surrogate's is now.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.

    Example:
        >>> needs_register("norse", "htaf"), needs_register("snntorch", "htaf"), needs_register("fused", "htaf")
        (True, False, False)
    """
    resolved = resolve(surrogate)
    is_soft = is_annealed or resolved.hardness < 1
    return (library == "norse" and resolved.formula is not None) or (library == "snntorch" and is_soft)


def _check_usable(surrogate: Surrogate, original: SurrogateLike) -> None:
    """Try a callable on two numbers: some of the libraries' own fail only when they are called, or have no gradient."""
    if surrogate.formula is not None:
        return
    try:
        with torch.enable_grad():
            x = torch.tensor([-0.5, 0.5], requires_grad=True)
            torch.autograd.grad(surrogate(x).sum(), x)
    except (RuntimeError, TypeError) as error:
        message = f"surrogate: expected one that can be called and has a gradient, got {original!r}: {error}"
        raise ValueError(message) from error
