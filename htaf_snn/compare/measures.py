"""What is measured of a network beside its accuracy: activity, gradients, operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..nn import BinaryConv2d, BinaryLinear
from ..surrogate import Surrogate

__all__ = ["activity", "batch_gradient", "cosine"]

_SATURATED = 0.95
# Energy of one 32-bit floating-point operation in 45 nm (Horowitz 2014): an addition, and a multiplication with it.
_PJ_PER_AC, _PJ_PER_MAC = 0.9, 4.6
_WEIGHTED = (nn.Linear, nn.Conv2d, BinaryLinear, BinaryConv2d)


def _leading(x: Tensor) -> int:
    """The dimensions before a sample's own: of frames (T, B, C, H, W) two, of images (B, C, H, W) one."""
    return x.ndim - 3


@contextmanager
def _hooked(handles: list) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def activity(model: nn.Module, loader) -> dict:
    """Run a network over a loader and count its spikes and operations.

    A neuron spikes where its output is above 0. Synaptic operations are NeuroBench's effective ones: a synapse counts
    where its input and its weight are not zero; with inputs of -1, 0 and 1 it is an accumulation (AC), else a
    multiplication and accumulation (MAC). Energy takes 0.9 pJ an AC and 4.6 pJ a MAC.

    Args:
        model: a network with `layers` and `neurons`; it is left in eval mode.
        loader: of (frames (T, B, C, H, W) or images (B, C, H, W), labels).

    Returns:
        {"spike_rate": a layer's share of neurons and steps with a spike, "dead": share of its neurons that never spike,
        "saturated": share that spike in at least 95 % of all steps, each a list over layers; "acs", "macs",
        "energy_nj": a sample's mean}.
    """
    model.eval()
    counts: list[Tensor | float] = [0.0] * len(model.neurons)
    operations = {"acs": 0.0, "macs": 0.0}
    leading = steps = samples = 0
    device = next(model.parameters()).device

    def spikes(number: int) -> Callable:
        def hook(module, inputs, output):
            counts[number] = counts[number] + (output > 0).flatten(0, leading - 1).sum(0).flatten()

        return hook

    def synapses(module, inputs, output):
        x = inputs[0].detach()
        binary = bool(((x == 0) | (x.abs() == 1)).all())
        operations["acs" if binary else "macs"] += _effective(module, x)

    weighted = [module for module in model.modules() if isinstance(module, _WEIGHTED)]
    handles = [neuron.register_forward_hook(spikes(number)) for number, neuron in enumerate(model.neurons)]
    handles += [module.register_forward_hook(synapses) for module in weighted]
    with _hooked(handles), torch.no_grad():
        for x, labels in loader:
            leading = _leading(x)
            model(x.to(device))
            steps += x.shape[:leading].numel()
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


def _effective(module: nn.Module, x: Tensor) -> float:
    """The number of pairs of an input that is not zero and a weight that is not zero."""
    # A binary weight is never zero, whatever the real one behind it is.
    weight = module.binary_weight() if isinstance(module, (BinaryLinear, BinaryConv2d)) else module.weight
    ones, weights = (x != 0).to(x.dtype), (weight != 0).to(x.dtype)
    if isinstance(module, (nn.Linear, BinaryLinear)):
        return (ones.sum(tuple(range(x.ndim - 1))) * weights.sum(0)).sum(dtype=torch.float64).item()
    options = (module.stride, module.padding, module.dilation, module.groups)
    return torch.nn.functional.conv2d(ones, weights, None, *options).sum(dtype=torch.float64).item()


def batch_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> dict:
    """The gradient of the loss of one batch in training mode, without a change of the network.

    Returns:
        {"flat": of all parameters but a surrogate's own, one vector; "layers": norm at the weights of each layer;
        "steps": for each layer the norms at its neurons' currents, one a time step; images have one step}.
    """
    currents: list[Tensor] = []

    def keep(module, inputs):
        current = inputs[0]
        current.retain_grad()
        currents.append(current)

    handles = [neuron.register_forward_pre_hook(keep) for neuron in model.neurons]
    learned = {id(p) for m in model.modules() if isinstance(m, Surrogate) for p in m.parameters()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in learned]
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]
    training = model.training
    with _hooked(handles):
        model.train()
        model.zero_grad()
        cross_entropy(model(x), labels).backward()
    model.train(training)
    for buffer, before in statistics:
        buffer.copy_(before)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters]
    by_layer = [torch.cat([p.grad.flatten() for p in layer.parameters()]).norm().item() for layer in model.layers]
    steps = x.shape[0] if _leading(x) == 2 else 1
    by_step = [current.grad.reshape(steps, -1).norm(dim=1).tolist() for current in currents]
    model.zero_grad()
    return {"flat": torch.cat([g.flatten() for g in gradients]), "layers": by_layer, "steps": by_step}


def cosine(a: Tensor, b: Tensor) -> float | None:
    """The cosine of two vectors; None if one of them is 0."""
    a, b = a.double(), b.double()
    norms = a.norm() * b.norm()
    return (a @ b / norms).item() if norms > 0 else None
