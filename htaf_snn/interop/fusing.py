"""Networks of other libraries as networks over sequences, with the same parameters."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

from torch import nn

from .._checks import full_name
from ..nn import NeuronLayer, Sequential
from ..nn._graphs import has_hooks
from ..nn.sequential import is_foreign_neuron
from . import norse, snntorch

_LIBRARIES = (snntorch, norse)


def fuse(net: nn.Module) -> Sequential:
    """Return a network over sequences that computes what a stepped one does, and shares its parameters.

    The layers without time, the parameters and buffers of the neurons, and surrogates that are modules are those of the
    original, so an optimizer made for it goes on with the fused network. Layers keep their names. The original is left
    unchanged, and both can be used in turn. Whatever replaces tensors, such as `.to(device)` for buffers, is done
    before.

    Every call of the fused network starts from rest, as the original does after its states have been reset, and returns
    the output of the last layer alone; its method `stream` also takes and returns the states. Resets are hard at any
    hardness, as in snnTorch while `htaf_snn.register()` is in force.

    Args:
        net: an `nn.Sequential` of layers and snnTorch's neurons with `init_hidden=True`; a
            `norse.torch.SequentialState` of layers and neurons that all take sequences, or all single time steps;
            either nested at any depth; or a single neuron. Neurons are those of `from_snntorch` and `from_norse`.

    Warns:
        UserWarning: for a BatchNorm layer in training mode, whose statistics are then those of all time steps at once.

    Raises:
        TypeError: if it is no module.
        ValueError: if it holds no neuron, or layers that cannot be fused; it names all of them, and why.

    Example:
        >>> import snntorch as snn, torch
        >>> net = nn.Sequential(nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True))
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> fused, x = fuse(net), torch.rand(10, 2, 4)
        >>> torch.equal(fused(x), torch.stack([net(step) for step in x]))
        True
        >>> fused[0] is net[0] and fused[1].beta is net[1].beta
        True
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected a module, got {net!r}")
    walk = _Walk(net)
    fused = walk.layer(net, "", None, True)
    if not walk.problems and not walk.places:
        raise ValueError(f"net: expected neurons of snnTorch or Norse in it, got none in {full_name(net)}")
    if walk.problems:
        raise ValueError("net: expected layers that can be fused, got\n" + "\n".join(walk.problems))
    for warning in walk.warnings:
        warnings.warn(warning, stacklevel=2)
    if not isinstance(fused, Sequential):
        fused = _chain({"0": fused}, net.training)
    return fused


def _chain(layers: dict[str, nn.Module], training: bool) -> Sequential:
    made = Sequential(OrderedDict(layers))
    made.training = training  # `train` would set the layers too, which are shared
    return made


class _Walk:
    """One pass over a network, which collects what cannot be fused."""

    def __init__(self, net: nn.Module):
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.places: dict[nn.Module, str] = {}  # of the neurons so far
        over_time = [name for name, module in net.named_modules() if _takes_sequence(module)]
        self.over_time = over_time[0] if over_time else None

    def refuse(self, module: nn.Module, where: str, reason: str) -> nn.Module:
        place = repr(where) if where else "the network itself"
        self.problems.append(f"{place} ({_title(module)}): {reason}")
        return module

    def layer(self, module: nn.Module, where: str, chain: nn.Module | None, is_last: bool) -> nn.Module:
        """Return what takes the place of a layer of a chain."""
        if _has_time(module):
            return self.neuron(module, where, chain, is_last)
        inner = [name for name, other in module.named_modules(prefix=where) if _has_time(other)]
        if _is_chain(module) and (inner or self.over_time is not None):
            return self.chain(module, where, chain, is_last)
        if inner:
            remedy = f"replace {', '.join(map(repr, inner))} by what from_snntorch or from_norse makes of them"
            return self.refuse(module, where, f"its own forward pass steps neurons in an unknown way; {remedy}")
        if self.over_time is not None and not isinstance(module, NeuronLayer):
            timeless = norse.at_one_step(module)
            if timeless is None:
                reason = "expected norse.torch.Lift around it, as it is not known what it does to a whole sequence"
                return self.refuse(module, where, reason)
            module = timeless
        if any(map(_mixes_samples, module.modules())):
            text = "takes its statistics over all time steps at once, no longer at each; in eval mode both are the same"
            self.warnings.append(f"net: {where!r} ({type(module).__name__}) {text}")
        return module

    def chain(self, module: nn.Module, where: str, chain: nn.Module | None, is_last: bool) -> nn.Module:
        if has_hooks(module):
            return self.refuse(module, where, "expected one without hooks, which would not run")
        carries = norse.carries_state(module)
        if carries and chain is not None and not norse.carries_state(chain):
            return self.refuse(module, where, norse.reason_in_chain(module, False, is_last) or "")
        if getattr(module, "return_hidden", False):
            return self.refuse(module, where, "expected return_hidden=False, got True")
        layers, last = {}, len(module._modules) - 1
        for index, (name, layer) in enumerate(module._modules.items()):
            assert layer is not None
            inner = f"{where}.{name}" if where else name
            layers[name] = self.layer(layer, inner, module, is_last and index == last)
        return _chain(layers, module.training)

    def neuron(self, module: nn.Module, where: str, chain: nn.Module | None, is_last: bool) -> nn.Module:
        reason = self.reason(module, chain, is_last)
        if reason is None:
            self.places[module] = where
            try:
                fused = _library_of(module).fused(module, share=True)
                fused.training = module.training
                return fused
            except (ImportError, TypeError, ValueError) as error:
                reason = str(error).removeprefix("neuron: ")
        return self.refuse(module, where, reason)

    def reason(self, module: nn.Module, chain: nn.Module | None, is_last: bool) -> str | None:
        """Return why a neuron cannot be fused where it stands, as far as its library can be left out of it."""
        library = _library_of(module)
        if library is None:
            return "no fused neuron"
        if library.layer_of(module) is None:
            return f"no fused neuron; expected one of {library.known()}"
        if module in self.places:
            return f"expected neurons that are different, got {self.places[module]!r} again, which shares its state"
        if has_hooks(module):
            return "expected one without hooks, which would not run"
        if chain is None:
            return None
        reason = library.reason_in_chain(module, norse.carries_state(chain), is_last)
        if reason is None and self.over_time is not None and not library.takes_sequence(module):
            reason = f"expected one that takes sequences, as {self.over_time!r} does, got one for single time steps"
        return reason


def _library_of(module: nn.Module) -> Any:
    """Return the conversions of the library that a module comes from, None if there are none."""
    top = type(module).__module__.partition(".")[0]
    return next((library for library in _LIBRARIES if library.NAME.partition(".")[0] == top), None)


def _title(module: nn.Module) -> str:
    library = _library_of(module)
    return f"{library.NAME}.{type(module).__name__}" if library else full_name(module)


def _mixes_samples(module: nn.Module) -> bool:
    """Return whether a module is a BatchNorm that takes statistics."""
    is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
    return is_norm and (module.training or module.running_mean is None)


def _is_chain(module: nn.Module) -> bool:
    forward = getattr(module.forward, "__func__", None)
    return norse.carries_state(module) or forward in (nn.Sequential.forward, Sequential.forward)


def _has_time(module: nn.Module) -> bool:
    """Return whether a module steps through time by itself, or has a state between time steps."""
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or is_foreign_neuron(module):
        return True
    return any(library.is_stateful(module) for library in _LIBRARIES)


def _takes_sequence(module: nn.Module) -> bool:
    library = _library_of(module)
    is_neuron = library is not None and library.layer_of(module) is not None and library.takes_sequence(module)
    return is_neuron or norse.is_lift(module)
