"""Activity, operations and gradients of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from ..models import BinaryMLP, DeepHeavisideNet, ReLUNet, SpikingCNN, SpikingMLP
from ..nn import BinaryConv2d, BinaryLinear
from ..surrogate import Surrogate

_SATURATED = 0.95
# Energy of one 32-bit floating-point operation in 45 nm (Horowitz 2014): an addition, and a multiply-accumulate.
_PJ_PER_AC, _PJ_PER_MAC = 0.9, 4.6

Network = SpikingMLP | SpikingCNN | BinaryMLP | DeepHeavisideNet | ReLUNet


def _batch_dims(x: Tensor) -> int:
    """Return the number of dimensions before a sample's own: two for frames (T, B, C, H, W), one for images."""
    return x.ndim - 3


@contextmanager
def _hooked(handles: list[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activity(model: Network, loader: Iterable[tuple[Tensor, Tensor]]) -> dict:
    """Run a network over a loader and count its spikes and operations.

    A neuron spikes where its output is above 0. Synaptic operations are NeuroBench's effective ones: a synapse counts
    where both its input and its weight are non-zero; if all inputs are -1, 0 or 1 it is an accumulation (AC), otherwise
    a multiply-accumulate (MAC). Energy assumes 0.9 pJ per AC and 4.6 pJ per MAC.

    Args:
        model: a network with `layers` and `neurons`; it is left in eval mode.
        loader: batches of (frames (T, B, C, H, W) or images (B, C, H, W), labels).

    Returns:
        {"spike_rate": the fraction of neurons and time steps with a spike, "dead": the fraction of neurons that never
        spike, "saturated": the fraction that spike in at least 95 % of all time steps, each a list over layers; "acs",
        "macs", "energy_nj": means per sample}.
    """
    model.eval()
    device = next(model.parameters()).device
    counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in model.neurons]
    operations = {"acs": 0.0, "macs": 0.0}
    batch_dims = steps = samples = 0

    def spikes(number: int) -> Callable[[nn.Module, tuple, Tensor], None]:
        def hook(module, inputs, output):
            output = output[0] if isinstance(output, tuple) else output  # with the state
            counts[number] = counts[number] + (output > 0).flatten(0, batch_dims - 1).sum(0).flatten()

        return hook

    def synapses(module, inputs, output):
        x = inputs[0].detach()
        binary = bool(((x == 0) | (x.abs() == 1)).all())
        operations["acs" if binary else "macs"] += _effective(module, x)

    weighted = (nn.Linear, nn.Conv2d, BinaryLinear, BinaryConv2d)
    handles = [neuron.register_forward_hook(spikes(number)) for number, neuron in enumerate(model.neurons)]
    handles += [module.register_forward_hook(synapses) for module in model.modules() if isinstance(module, weighted)]
    with _hooked(handles), torch.no_grad():
        for x, labels in loader:
            batch_dims = _batch_dims(x)
            model(x.to(device))
            steps += x.shape[:batch_dims].numel()
            samples += len(labels)
    rates = [count / steps for count in counts]
    acs, macs = operations["acs"] / samples, operations["macs"] / samples
    return {
        "spike_rate": [rate.mean().item() for rate in rates],
        "dead": [(rate == 0).float().mean().item() for rate in rates],
        "saturated": [(rate >= _SATURATED).float().mean().item() for rate in rates],
        "acs": acs,
        "macs": macs,
        "energy_nj": (acs * _PJ_PER_AC + macs * _PJ_PER_MAC) / 1e3,
    }


def _effective(module: nn.Linear | nn.Conv2d | BinaryLinear | BinaryConv2d, x: Tensor) -> float:
    """Return the number of pairs of a non-zero input and a non-zero weight."""
    # A binary weight is never zero, whatever its latent weight is.
    weight = module.binary_weight() if isinstance(module, (BinaryLinear, BinaryConv2d)) else module.weight
    inputs, weights = (x != 0).to(x.dtype), (weight != 0).to(x.dtype)
    if isinstance(module, (nn.Linear, BinaryLinear)):
        return (inputs.sum(tuple(range(x.ndim - 1))) * weights.sum(0)).sum(dtype=torch.float64).item()
    pairs = conv2d(inputs, weights, None, module.stride, module.padding, module.dilation, module.groups)
    return pairs.sum(dtype=torch.float64).item()


def batch_gradient(model: Network, x: Tensor, labels: Tensor) -> dict:
    """Return the gradient of one batch's loss in training mode, without changing the network.

    Returns:
        {"flat": with respect to all parameters but a surrogate's own, one vector; "layers": its norm at the weights of
        each layer; "steps": for each layer the norms at its neurons' currents, one per time step; images have one}.
    """
    currents: list[Tensor] = []

    def keep(module, inputs):
        currents.append(inputs[0])

    handles = [neuron.register_forward_pre_hook(keep) for neuron in model.neurons]
    learned = {id(p) for m in model.modules() if isinstance(m, Surrogate) for p in m.parameters()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in learned]
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    training = model.training
    with _hooked(handles):
        model.train()
        loss = cross_entropy(model(x), labels)
        gradients = torch.autograd.grad(loss, [*parameters, *currents], allow_unused=True, materialize_grads=True)
    model.train(training)
    for buffer, before in statistics:
        buffer.copy_(before)
    flat = {p: gradient.flatten() for p, gradient in zip(parameters, gradients, strict=False)}
    layers = [torch.cat([flat[p] for p in _weights(layer) if p in flat]) for layer in model.layers]
    steps = x.shape[0] if _batch_dims(x) == 2 else 1
    return {
        "flat": torch.cat([*flat.values()]),
        "layers": [gradient.norm().item() for gradient in layers],
        "steps": [g.reshape(steps, -1).norm(dim=1).tolist() for g in gradients[len(parameters) :]],
    }


def _weights(layer: nn.Module) -> Iterator[nn.Parameter]:
    """Yield a layer's parameters without those of its BatchNorm."""
    for module in layer.modules():
        if not isinstance(module, _BatchNorm):
            yield from module.parameters(recurse=False)


def cosine(a: Tensor, b: Tensor) -> float | None:
    """Return the cosine of the angle between two vectors; None if either is 0."""
    a, b = a.double(), b.double()
    norms = a.norm() * b.norm()
    return (a @ b / norms).item() if norms > 0 else None
