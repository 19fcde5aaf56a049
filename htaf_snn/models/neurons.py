"""The spiking neurons of a network, by the library whose code computes them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from .. import nn as hnn
from .._checks import check_choice
from ..surrogate import Surrogate, SurrogateLike, resolve
from ..surrogate.libraries.norse import as_method, is_extended
from ..surrogate.libraries.snntorch import as_spike_grad, check_reset

LIBRARIES = ("snntorch", "norse", "fused")

BETA = 0.9
"""Decay of the membrane potential per time step, in the networks that this package trains."""


class LeakyOverTime(nn.Module):
    """`snntorch.Leaky`, run over a sequence from rest.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`.
        beta: decay of the membrane potential per time step, in [0, 1].

    Shape:
        currents (T, B, *features) to spikes of the same shape.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`.
        RuntimeError: in the forward pass, if the hardness is below 1 and `htaf_snn.register()` is not in force:
            snnTorch would reset softly.

    Example:
        >>> LeakyOverTime("htaf")(torch.ones(3, 1, 1)).flatten()
        tensor([0., 1., 1.])
    """

    def __init__(self, surrogate: SurrogateLike = "htaf", beta: float = BETA):
        super().__init__()
        self.leaky = import_module("snntorch").Leaky(beta=beta, spike_grad=as_spike_grad(resolve(surrogate)))

    def forward(self, currents: Tensor) -> Tensor:
        check_reset(self.leaky)
        mem = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            spike, mem = self.leaky(current, mem)
            spikes.append(spike)
        return torch.stack(spikes)


class LIFOverTime(nn.Module):
    """`norse.torch.LIF`, run over a sequence from rest, without its state.

    Args:
        surrogate: in any form, see `htaf_snn.surrogate.resolve`; one of this package, at hardness 1 and with numbers as
            parameters, or of Norse.
        v_th: threshold. Norse's LIF integrates only a fifth of a current in its first two time steps, so the default is
            lower than Norse's 1.

    Shape:
        currents (T, B, *features) to spikes of the same shape.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`; ValueError if Norse cannot use the
            surrogate.
        RuntimeError: in the forward pass, if the surrogate is of this package and `htaf_snn.register()` is not in
            force.

    Example:
        >>> LIFOverTime("norse.super(alpha=1.0)")(torch.ones(6, 1, 1)).detach().flatten()
        tensor([0., 0., 1., 0., 1., 1.])
    """

    def __init__(self, surrogate: SurrogateLike = "htaf", v_th: float = 0.3):
        super().__init__()
        method, alpha = as_method(resolve(surrogate))
        norse = import_module("norse.torch")
        p = norse.LIFParameters(method=method, alpha=torch.as_tensor(alpha), v_th=torch.as_tensor(v_th))
        self.lif = norse.LIF(p)

    def forward(self, currents: Tensor) -> Tensor:
        if "(" in self.lif.p.method and not is_extended():
            raise RuntimeError(f"method: Norse does not know {self.lif.p.method!r}; call htaf_snn.register() first")
        return self.lif(currents)[0]


def neuron(library: str, surrogate: SurrogateLike = "htaf") -> nn.Module:
    """Make the spiking layer of a network, with a surrogate that its library can use.

    Args:
        library: "snntorch" (`Leaky`, any surrogate), "norse" (`LIF`; this package's surrogates and Norse's own), or
            "fused" (this package's `nn.Leaky`, with the same results as "snntorch").
        surrogate: in any form, see `htaf_snn.surrogate.resolve`; it must have a gradient.

    Returns:
        A module from currents (T, B, *features) to spikes of that shape, from rest. "norse" with a surrogate of this
        package, and "snntorch" with a hardness below 1, work only while `htaf_snn.register()` is in force.

    Raises:
        TypeError, ValueError, ImportError: as `htaf_snn.surrogate.resolve`; ValueError also if the library is unknown
            or cannot use the surrogate, ImportError if it is not installed.

    Example:
        >>> neuron("snntorch", "htaf")(torch.ones(3, 2, 4)).shape
        torch.Size([3, 2, 4])
    """
    check_choice("library", library, LIBRARIES)
    if library != "fused" and find_spec(library) is None:
        raise ImportError(f"library: {library} is not installed; pip install {library}")
    resolved = resolve(surrogate)
    _check_usable(resolved, surrogate)
    if library == "fused":
        return hnn.Sequential(hnn.Leaky(beta=BETA, surrogate=resolved))
    return LeakyOverTime(resolved) if library == "snntorch" else LIFOverTime(resolved)


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
