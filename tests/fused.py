"""Leaky and current-based neurons in every backend, and snnTorch's stepped beside them."""

import snntorch as snn
import torch
from devices import DEVICES

from htaf_snn import functional

BACKENDS = list(DEVICES)
FUSED = ["numba", "triton"]


def leaves(tensors, dtype=None, device="cpu"):
    return {k: v.detach().to(device, dtype).requires_grad_() for k, v in tensors.items()}


def results(run, tensors):
    """Outputs and gradients by name, on the CPU; the outputs are weighted so that no gradient is trivial."""
    outputs = run(**tensors)
    weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).to(y.device) for y in outputs.values()]
    loss = sum((y * w).sum() for y, w in zip(outputs.values(), weights, strict=True))
    grads = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
    return (
        {k: v.detach().cpu() for k, v in outputs.items()},
        {
            f"grad {k}": (torch.zeros_like(v) if g is None else g).cpu()
            for (k, v), g in zip(tensors.items(), grads, strict=True)
        },
    )


def assert_close(actual, expected, rtol, label=""):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        worst = (actual[name].double() - value.double()).abs().max().item() if value.numel() else 0.0
        assert worst <= rtol * max(scale, 1e-30), f"{label} {name}: {worst} of {scale}"


def inputs(steps=13, batch=3, features=21, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(steps, batch, features, generator=g),
        "beta": torch.rand(features, generator=g),
        "threshold": 0.5 + torch.rand(batch, features, generator=g),
        "v0": torch.randn(batch, features, generator=g),
    }


def fused(backend, surrogate="htaf", **options):
    def run(x, beta, threshold, v0):
        given = {"beta": beta, "threshold": threshold, "state": v0, "surrogate": surrogate, "backend": backend}
        spikes, v, trace = functional.leaky(x, **given, return_states=True, **options)
        return {"spikes": spikes, "v": v, "trace": trace}

    return run


def stepped(reset, delay, spike_grad):
    """snnTorch's own neuron, one step after the other."""

    def run(x, beta, threshold, v0):
        neuron = snn.Leaky(0.5, spike_grad=spike_grad, reset_mechanism=reset, reset_delay=delay)
        del neuron.beta, neuron.threshold
        neuron.beta, neuron.threshold = beta, threshold
        spikes, trace, v = [], [], v0
        for current in x:
            s, v = neuron(current, v)
            spikes.append(s)
            trace.append(v)
        return {"spikes": torch.stack(spikes), "v": v, "trace": torch.stack(trace)}

    return run


def norse_inputs():
    g = torch.Generator().manual_seed(3)
    return {
        "x": 3 * torch.randn(17, 3, 11, generator=g),
        "tau_syn_inv": torch.tensor(200.0),
        "tau_mem_inv": 100 + 20 * torch.rand(11, generator=g),
        "v_leak": 0.1 * torch.randn(3, 11, generator=g),
        "v_th": 0.3 + 0.1 * torch.rand(3, 1, generator=g),
        "v_reset": 0.1 * torch.randn(11, generator=g),
        "v0": torch.randn(3, 11, generator=g),
        "i0": torch.randn(3, 11, generator=g),
    }


def fused_cuba(backend, **options):
    def run(v0=None, i0=None, **tensors):
        state = None if v0 is None else (v0, i0)
        spikes, (v, i) = functional.lif(**tensors, state=state, backend=backend, **options)
        return {"spikes": spikes, "v": v, "i": i}

    return run
