"""NeuroBench: the network of a run in its harness."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from .._checks import describe
from .._packages import needs
from ..nn import BinaryActivation, BinaryConv2d, BinaryLinear, NeuronLayer, OverTime
from ..nn._batches import Batch, class_scores
from ..surrogate import Surrogate
from . import norse, snntorch

if TYPE_CHECKING:
    from neurobench.models import NeuroBenchModel

_OURS = (NeuronLayer, BinaryActivation, Surrogate, nn.ReLU, nn.Sigmoid)
_BINARY = (BinaryLinear, BinaryConv2d)


def to_neurobench(model: nn.Module) -> NeuroBenchModel:
    """Return a network as a model of NeuroBench, for its `Benchmark`.

    NeuroBench then counts what `htaf-snn evaluate` counts. On the same batches its Effective_ACs and Effective_MACs are
    our `acs` and `macs`, its accuracy is ours, and its activation sparsity is 1 minus our spike rates, averaged over
    all neurons rather than by layer. Activations of -1 and +1 are never 0, so their sparsity is 0. NeuroBench counts
    the latent float32 weights of binary layers in its footprint, and leaves those layers out of its connection
    sparsity; neither it nor we count the products within attention.

    Its `MembraneUpdates` and `NeuronOperations` need snnTorch's own neurons, as of a run with `library="snntorch"`; for
    other networks NeuroBench prints an error and reports 0.

    Args:
        model: a network of a run, as `training.load` returns it, or another classifier of images (B, …), or of frames
            (T, B, …) with spiking neurons of this package, snnTorch or Norse. It is not copied, and left in eval mode.

    Returns:
        A model from images (B, …) or frames (B, T, …), floating-point and of one length, to classes, int64 (B,); it
        needs no postprocessors. `DataLoader(loader.dataset, batch_size)` makes such frames of a loader's. Norse's
        neurons with a surrogate of this package work only while `htaf_snn.register()` is in force.

    Raises:
        ImportError: if NeuroBench is not installed.
        TypeError: if the model is no module.
        ValueError: when the model is called, if frames have the time first, and as the network's forward pass.

    Example:
        >>> from importlib.util import find_spec
        >>> from htaf_snn import nn as hnn
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), hnn.BinaryActivation(), nn.Linear(8, 10))
        >>> to_neurobench(net)(torch.rand(3, 1, 8, 8)).shape if find_spec("neurobench") else torch.Size([3])
        torch.Size([3])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {describe(model)}")
    return _model_class()(model)


@cache
def _model_class() -> Callable[[nn.Module], NeuroBenchModel]:
    """Return the class of the models, which NeuroBench's own is a base of."""
    with needs("neurobench"):
        from neurobench.models import NeuroBenchModel
    return type("Model", (_Model, NeuroBenchModel), {"__doc__": _Model.__doc__})


class _Model:
    """A network with hooks that NeuroBench reads."""

    activation_hooks: list[Any]
    connection_hooks: list[Any]

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net.eval()
        self._is_over_time = any(isinstance(module, OverTime) or _is_foreign(module) for module in net.modules())
        self._users = 0

    def __call__(self, batch: Tensor) -> Tensor:
        x, labels = batch, torch.zeros(len(batch), dtype=torch.int64)
        if self._is_over_time:
            self._check_order(batch)
            x = batch.transpose(0, 1)
        with torch.no_grad():  # NeuroBench keeps what the layers see
            scores, _ = class_scores(self.net, Batch(x, labels, None))
        return scores.argmax(1).to(batch.device)

    def __net__(self) -> nn.Module:
        return self.net

    def _check_order(self, frames: Tensor) -> None:
        """Raise ValueError for frames with the time first, whose time steps NeuroBench would count as samples."""
        steps, *_ = getattr(self.net, "frame_shape", None) or (None,)
        if steps is not None and frames.shape[0] == steps != frames.shape[1]:
            remedy = "write DataLoader(loader.dataset, batch_size)"
            raise ValueError(f"frames: expected (B, T, …) with T = {steps}, got {tuple(frames.shape)}; {remedy}")

    def activation_layers(self) -> list[dict[str, Any]]:
        """Return the neurons and activations, and their names within the network."""
        return [{"layer_name": name, "layer": layer} for name, layer in _activations(self.net)]

    def register_hooks(self) -> None:
        """Add hooks to neurons, activations, and layers with weights."""
        from neurobench.blocks.layer import SUPPORTED_LAYERS
        from neurobench.hooks.layer import LayerHook
        from neurobench.hooks.neuron import NeuronHook

        # A benchmark removes all hooks when it is deleted, even after the next one has been made.
        self._users += 1
        if self._users > 1:
            return
        for found in self.activation_layers():
            kind = NeuronHook if snntorch.is_stateful(found["layer"]) else _ActivationHook
            self.activation_hooks.append(kind(found["layer"], found["layer_name"]))
        for module in self.net.modules():
            if isinstance(module, (*SUPPORTED_LAYERS, *_BINARY)):
                self.connection_hooks.append(_BinaryHook(module) if isinstance(module, _BINARY) else LayerHook(module))

    def cleanup_hooks(self) -> None:
        """Remove all hooks, once no benchmark needs them."""
        self._users -= 1
        if not self._users:
            super().cleanup_hooks()  # type: ignore[misc]  # of NeuroBench's class


def _is_foreign(module: nn.Module) -> bool:
    return snntorch.is_stateful(module) or norse.is_stateful(module)


def _activations(net: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return a network's neurons and activations and their names: the innermost ones that a library knows."""
    wrapped = [*getattr(net, "neurons", ())]  # of any origin

    def within(name: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
        if isinstance(module, _OURS) or _is_foreign(module):
            return [(name, module)]
        if isinstance(module, _BINARY):  # the surrogate of its weights is no activation
            return []
        children = module.named_children()
        inner = [pair for key, child in children for pair in within(f"{name}.{key}" if name else key, child)]
        return inner or [(name, module)] * (module in wrapped)

    return within("", net)


class _ActivationHook:
    """What NeuroBench's `NeuronHook` is for snnTorch, for neurons that return their spikes and state, and others."""

    def __init__(self, layer: nn.Module, name: str):
        self.layer, self.name = layer, name
        self.activation_outputs: list[Tensor] = []
        self._handle = layer.register_forward_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple, output: Any) -> None:
        self.activation_outputs.append(output[0] if isinstance(output, tuple) else output)

    @property
    def pre_fire_mem_potential(self) -> NoReturn:
        """Raise TypeError: without it NeuroBench would report no updates."""
        kind = type(self.layer).__name__
        raise TypeError(f"{self.name}: expected a neuron of snnTorch, whose potentials NeuroBench sees, got {kind}")

    def reset(self) -> None:
        """Forget the outputs."""
        self.activation_outputs.clear()

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()


class _BinaryHook:
    """What NeuroBench's `LayerHook` is for layers of torch, for binary ones."""

    def __init__(self, module: BinaryLinear | BinaryConv2d):
        self.inputs: list[tuple[Tensor, ...]] = []
        self.layer = _plain(module)  # NeuroBench counts with it
        self._module = module
        self.register_hook()

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.inputs.append(inputs)

    def register_hook(self) -> None:
        """Add the hook: NeuroBench removes it while it counts, and adds it again."""
        self.hook = self._module.register_forward_pre_hook(self._keep)

    def reset(self) -> None:
        """Forget the inputs."""
        self.inputs.clear()

    def close(self) -> None:
        """Remove the hook."""
        self.hook.remove()


def _plain(module: BinaryLinear | BinaryConv2d) -> nn.Linear | nn.Conv2d:
    """Return a layer of torch with the weights -1 and +1 of a binary one."""
    layer: nn.Linear | nn.Conv2d
    if isinstance(module, BinaryLinear):
        layer = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
    else:
        sizes = module.kernel_size, module.stride, module.padding, module.dilation, module.groups
        layer = nn.Conv2d(module.in_channels, module.out_channels, *sizes, bias=False, device="meta")
    layer.weight = nn.Parameter(module.binary_weight().detach(), requires_grad=False)
    return layer
