"""Networks over sequences: fused neurons and layers without time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, TypeVar

from torch import Tensor, nn

from .._checks import describe
from ._graphs import has_hooks
from .spiking import OverTime

# Attributes that only neurons of other libraries have. Applied to T * B rows at once they would lose time.
_NEURON_ATTRIBUTES = ("_memories", "init_hidden", "is_state_initialised", "state_fallback")


class TimeDistributed(nn.Module):
    """A layer without time, applied to all time steps of a sequence at once.

    Args:
        layer: any module from (N, *in_features) to (N, *out_features) that treats the N rows independently.

    Shape:
        (T, B, *in_features) to (T, B, *out_features).

    Raises:
        TypeError: in the forward pass, if the layer holds a neuron or a recurrent layer, or does not return a tensor.
        ValueError: in the forward pass, if a shape does not fit.

    Example:
        >>> import torch
        >>> TimeDistributed(nn.Conv2d(2, 4, 3))(torch.zeros(5, 3, 2, 8, 8)).shape
        torch.Size([5, 3, 4, 6, 6])
    """

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        if _takes_sequences(self.layer):
            raise TypeError(
                f"layer: expected a layer without time, got {type(self.layer).__name__}; use it without TimeDistributed"
            )
        return _over_steps(self.layer, x, "layer")


class Sequential(nn.Sequential):
    """A chain over sequences: neurons run through time, from rest; other layers are applied to all time steps at once.

    A module that contains fused neurons, such as a residual block, is called with the whole sequence and returns one;
    inside it, layers without time belong in a chain like this one or in `TimeDistributed`. A plain
    `torch.nn.Sequential` with neurons in it is treated like this one.

    Args:
        *args: layers, or one `OrderedDict` of them, as in `torch.nn.Sequential`.

    Shape:
        (T, B, *features) to (T, B, *features) of the last layer; neurons pass on their spikes.

    Raises:
        TypeError: in the forward pass, with the layer's name, if a layer is a neuron of another library, is recurrent,
            or does not return a tensor.
        ValueError: in the forward pass, with the layer's name, if a layer loses the time or the batch dimension.

    Example:
        >>> import torch
        >>> from htaf_snn.nn import Leaky
        >>> net = Sequential(nn.Linear(20, 10), Leaky(beta=0.9), nn.Linear(10, 2), Leaky(beta=0.9))
        >>> net(torch.rand(5, 3, 20)).shape
        torch.Size([5, 3, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        return _chain(self, x, "")[0]

    def stream(self, x: Tensor, state: list | None = None) -> tuple[Tensor, list]:
        """Run over a part of a sequence, from where an earlier part has ended.

        The parts, however a sequence is divided, give what the whole gives, but for layers that mix samples, such as a
        BatchNorm in training mode, and for the rounding of matrix products, which may depend on the number of rows.

        Args:
            x: as for the forward pass.
            state: what the call for the part before has returned; at rest by default. For truncated backpropagation
                through time pass `detached(state)`.

        Returns:
            The output, and a list with an entry per layer: the state of a neuron, the list of a nested chain, None for
            any other layer.

        Raises:
            TypeError, ValueError: as in the forward pass; TypeError also, with the layer's name, for a module that is
                no chain and contains neurons, such as a residual block, and for a nested chain with hooks; ValueError
                if the state is of another form.

        Example:
            >>> import torch
            >>> from htaf_snn.nn import Leaky
            >>> net, x = Sequential(nn.Flatten(), Leaky(beta=0.9)), torch.rand(6, 3, 2, 2)
            >>> first, state = net.stream(x[:2])
            >>> rest, state = net.stream(x[2:], detached(state))
            >>> torch.equal(torch.cat([first, rest]), net(x))
            True
        """
        return _chain(self, x, "", state, streams=True)


_State = TypeVar("_State")


def detached(state: _State) -> _State:
    """Return the same state without its gradient, for truncated backpropagation through time.

    Args:
        state: of a neuron or of `Sequential.stream`: tensors, None, and tuples and lists of them.

    Example:
        >>> import torch
        >>> detached([torch.ones(1, requires_grad=True), None])
        [tensor([1.]), None]
    """
    kept: Any = state
    if isinstance(state, Tensor):
        kept = state.detach()
    elif isinstance(state, (list, tuple)):
        values = [detached(value) for value in state]
        kept = type(state)(*values) if hasattr(state, "_fields") else type(state)(values)
    return kept


_CHAINS = (nn.Sequential.forward, Sequential.forward)


def _chain(
    layers: nn.Sequential, x: Tensor, prefix: str, state: Sequence | None = None, streams: bool = False
) -> tuple[Tensor, list]:
    """Return the output and the state of each layer; `streams` refuses layers whose state would be lost."""
    if not isinstance(x, Tensor) or x.ndim < 3:
        raise ValueError(f"x: expected a sequence of shape (T, B, features, ...), got {describe(x)}")
    before, after = _states(layers, state, prefix), []
    # Not `named_children`, which leaves out a layer that occurs again.
    for (name, layer), start in zip(layers._modules.items(), before, strict=True):
        assert layer is not None  # `nn.Sequential` would call it
        where, last = f"{prefix}{name}", None
        # A subclass or an instance of nn.Sequential with its own forward pass is no chain.
        forward = getattr(layer.forward, "__func__", None)
        if isinstance(getattr(layer, "_orig_mod", layer), OverTime):  # compiled by itself or not
            x, last = layer(x, start)
        elif not _takes_sequences(layer):
            x = _over_steps(layer, x, where)
        elif isinstance(layer, nn.Sequential) and forward in _CHAINS and not has_hooks(layer):
            x, last = _chain(layer, x, f"{where}.", start, streams)
        elif forward is nn.Sequential.forward:
            got = "a plain one with hooks, which would not run"
            raise TypeError(f"layer {where!r} (Sequential): expected htaf_snn.nn.Sequential around neurons, got {got}")
        elif streams and any(isinstance(module, OverTime) for module in layer.modules()):
            expected = "a chain without hooks around neurons that stream"
            got = "a module whose forward pass loses their state"
            raise TypeError(f"layer {where!r} ({type(layer).__name__}): expected {expected}, got {got}")
        else:
            x = _as_sequence(_as_tensor(layer(x), layer, where), x, layer, where)
        if start is not None and last is None:
            got = describe(start)
            raise ValueError(f"state: expected None for layer {where!r} ({type(layer).__name__}), got {got}")
        after.append(last)
    return x, after


def _states(layers: nn.Sequential, state: Sequence | None, prefix: str) -> Sequence:
    """Return the state of each layer of a chain, given those of all or none."""
    if state is None:
        return [None] * len(layers)
    if not isinstance(state, (list, tuple)) or len(state) != len(layers):
        place = f"layer {prefix[:-1]!r}" if prefix else "the chain"
        got = f"a list of {len(state)}" if isinstance(state, (list, tuple)) else describe(state)
        raise ValueError(f"state: expected a list of {len(layers)} for {place}, as stream returns it, got {got}")
    return state


def _takes_sequences(layer: nn.Module) -> bool:
    over_time = OverTime, Sequential, TimeDistributed
    return any(isinstance(module, over_time) for module in layer.modules())


def _over_steps(layer: nn.Module, x: Tensor, where: str) -> Tensor:
    _check_timeless(layer, x, where)
    rows = x.flatten(0, 1)
    y = _as_tensor(layer(rows), layer, where)
    if y.shape[:1] != rows.shape[:1]:
        title, expected = f"layer {where!r} ({type(layer).__name__})", f"{len(rows)} rows, one per time step and sample"
        raise ValueError(f"{title}: expected {expected}, got {describe(y)}")
    return y.unflatten(0, x.shape[:2])


def _check_timeless(layer: nn.Module, x: Tensor, where: str) -> None:
    """Raise TypeError or ValueError unless the layer treats the rows of (T * B, *features) independently."""
    title = f"layer {where!r} ({type(layer).__name__})"
    for module in layer.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or is_foreign_neuron(module):
            remedy = "use this package's, as of htaf_snn.fuse, interop.from_snntorch or interop.from_norse, or step it"
            raise TypeError(
                f"{title}: expected a layer without time, got {type(module).__name__}, which has its own; {remedy}"
            )
        if isinstance(module, nn.MultiheadAttention) and (x.ndim < 4 or not module.batch_first):
            expected = "(T, B, tokens, features) and batch_first=True"
            raise ValueError(f"{title}: expected {expected} for attention, got {describe(x)}; it would mix samples")
        if isinstance(module, (nn.Softmax, nn.LogSoftmax, nn.Softmin)) and module.dim in (0, None, 1 - x.ndim):
            raise ValueError(f"{title}: expected a dimension of features, got dim={module.dim}, which mixes samples")
    for module in takewhile(_keeps_dimensions, (m for m in layer.modules() if not isinstance(m, nn.Sequential))):
        kernel = getattr(module, "kernel_size", None)
        if isinstance(kernel, tuple) and hasattr(module, "in_channels") and x.ndim != len(kernel) + 3:
            expected = f"(T, B, channels, ...) with {len(kernel)} spatial dimensions"
            raise ValueError(f"{title}: expected {expected} for {type(module).__name__}, got {describe(x)}")


def is_foreign_neuron(module: nn.Module) -> bool:
    """Return whether a module is a neuron of another library."""
    from_torch = type(module).__module__.startswith("torch.")  # most are, and searching for absent attributes is slow
    return not from_torch and any(hasattr(module, name) for name in _NEURON_ATTRIBUTES)


def _keeps_dimensions(module: nn.Module) -> bool:
    """Return whether the next layer in a chain gets as many dimensions as this one."""
    own = type(module).__module__.startswith(("torch.nn.", "htaf_snn.nn."))
    return own and not isinstance(module, (nn.Flatten, nn.Unflatten))


def _as_tensor(y: object, layer: nn.Module, where: str) -> Tensor:
    if not isinstance(y, Tensor):
        title, got = f"layer {where!r} ({type(layer).__name__})", type(y).__name__
        remedy = "return the spikes alone, as hnn.Sequential does"
        raise TypeError(f"{title}: expected one tensor from its forward pass, got {got}; {remedy}")
    return y


def _as_sequence(y: Tensor, x: Tensor, layer: nn.Module, where: str) -> Tensor:
    if y.ndim < 3 or y.shape[:2] != x.shape[:2]:
        title, (time, batch) = f"layer {where!r} ({type(layer).__name__})", x.shape[:2]
        expected = f"a sequence of shape ({time}, {batch}, features, ...) from its forward pass"
        raise ValueError(f"{title}: expected {expected}, got {describe(y)}")
    return y
