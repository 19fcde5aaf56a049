"""Networks over sequences: fused neurons and layers without time."""

from __future__ import annotations

from itertools import takewhile

from torch import Tensor, nn

from .._checks import describe
from ._graphs import has_hooks
from .spiking import Neuron

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
        return _chain(self, x, "")


_CHAINS = (nn.Sequential.forward, Sequential.forward)


def _chain(layers: nn.Sequential, x: Tensor, prefix: str) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim < 3:
        raise ValueError(f"x: expected a sequence of shape (T, B, features, ...), got {describe(x)}")
    for name, layer in layers.named_children():
        where = f"{prefix}{name}"
        # A subclass or an instance of nn.Sequential with its own forward pass is no chain.
        forward = getattr(layer.forward, "__func__", None)
        if isinstance(getattr(layer, "_orig_mod", layer), Neuron):  # compiled by itself or not
            x = layer(x)[0]
        elif not _takes_sequences(layer):
            x = _over_steps(layer, x, where)
        elif isinstance(layer, nn.Sequential) and forward in _CHAINS and not has_hooks(layer):
            x = _chain(layer, x, f"{where}.")
        elif forward is nn.Sequential.forward:
            got = "a plain one with hooks, which would not run"
            raise TypeError(f"layer {where!r} (Sequential): expected htaf_snn.nn.Sequential around neurons, got {got}")
        else:
            x = _as_sequence(_as_tensor(layer(x), layer, where), x, layer, where)
    return x


def _takes_sequences(layer: nn.Module) -> bool:
    return any(isinstance(module, (Neuron, Sequential, TimeDistributed)) for module in layer.modules())


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
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)) or _is_foreign_neuron(module):
            remedy = (
                "use this package's, as from interop.from_snntorch or interop.from_norse, or step the network yourself"
            )
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


def _is_foreign_neuron(module: nn.Module) -> bool:
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
