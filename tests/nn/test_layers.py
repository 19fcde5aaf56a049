"""The fused layers: conversion from and to snnTorch and Norse, networks, compilation, saving, several processes."""

import copy
import io
import os
import subprocess
import sys
import textwrap
from functools import partial

import norse.torch as norse
import pytest
import snntorch as snn
import torch

from htaf_snn import HTAF, interop, models
from htaf_snn import nn as hnn
from htaf_snn.bench.peers import OutputOf


def currents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step_through(neuron, x):
    mem, spikes = torch.zeros_like(x[0]), []
    for current in x:
        spike, mem = neuron(current, mem)
        spikes.append(spike)
    return torch.stack(spikes), mem


def gradients(module, run, x):
    x = x.clone().requires_grad_()
    outputs = run(x)
    module.zero_grad()
    sum((y * y).sum() for y in outputs).backward()
    named = {name.replace("spike_grad", "surrogate"): p.grad for name, p in module.named_parameters()}
    return [y.detach() for y in outputs], {"x": x.grad, **named}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learn_beta": True, "learn_threshold": True, "threshold": 0.7},
        {"reset_mechanism": "zero", "reset_delay": False},
        {"reset_mechanism": "none", "spike_grad": HTAF(alpha=2.0)},
        {"graded_spikes_factor": 2.0, "learn_graded_spikes_factor": True, "spike_grad": HTAF(learn=("alpha", "beta"))},
        {"spike_grad": HTAF(hardness=0.0), "reset_delay": False},
    ],
    ids=str,
)
def test_leaky_from_and_to_snntorch(options):
    original = snn.Leaky(beta=torch.linspace(0.3, 0.9, 7), **copy.deepcopy(options))
    layer = interop.from_snntorch(original)
    back = interop.to_snntorch(layer)
    x = currents(11, 3, 7)
    expected, grads = gradients(original, lambda x: step_through(original, x), x)
    for module, run in ((layer, layer), (back, lambda x: step_through(back, x))):
        outputs, layer_grads = gradients(module, run, x)
        assert torch.equal((outputs[0] > 0), (expected[0] > 0))
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(layer_grads, grads)
    names = {name.replace("spike_grad", "surrogate") for name in original.state_dict()}
    # A factor of 1 is kept as a number.
    assert layer.graded_spikes_factor == options.get("graded_spikes_factor", 1.0)
    plain = {"graded_spikes_factor"} if isinstance(layer.graded_spikes_factor, float) else set()
    assert names - set(layer.state_dict()) <= {"reset_mechanism_val"} | plain
    assert layer.beta.data_ptr() != original.beta.data_ptr() != back.beta.data_ptr()


@pytest.mark.parametrize("neuron", [snn.SLSTM(3, 3), snn.Leaky(0.5, state_quant=lambda v: v), torch.nn.ReLU()])
def test_what_is_not_fused_is_refused(neuron):
    with pytest.raises((TypeError, ValueError), match="neuron: expected"):
        interop.from_snntorch(neuron)
    with pytest.raises(TypeError, match=r"expected one of norse\.torch's IAF, "):
        interop.from_norse(neuron)


@pytest.mark.parametrize("neuron", [partial(hnn.Leaky, 0.9), hnn.LIF])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surrogate": "hat"}, "unknown surrogate 'hat'"),
        ({"surrogate": "htaf(beta=-1)"}, "beta"),
        ({"surrogate": 3}, "^surrogate: expected a module, its specification or a callable, got 3"),
        ({"save_dtype": torch.int8}, r"^save_dtype: expected None or bfloat16, got torch\.int8"),
        ({"checkpoint_every": 0}, "^checkpoint_every: expected a number of steps, at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_at_once(neuron, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        neuron(**options)


@pytest.mark.usefixtures("registered")
def test_a_specification_makes_a_module():
    lif = hnn.Leaky(0.9, surrogate="htaf(hardness=0.0)")
    assert lif.surrogate.hardness == 0
    spikes, _ = interop.to_snntorch(lif)(torch.rand(2, 3), torch.zeros(2, 3))
    assert spikes.shape == (2, 3)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "parameters",
    [{"method": "super"}, {"method": "htaf", "alpha": 2.0}, {"method": "htaf(normalized=True)", "alpha": 1.0},
     {"method": "atan(alpha=3)", "alpha": 1.0}],
    ids=str,
)  # fmt: skip
def test_lif_from_and_to_norse(parameters):
    tensors = {"v_th": torch.linspace(0.2, 0.5, 7), "tau_mem_inv": torch.tensor(90.0)}
    original = norse.LIF(norse.LIFParameters(**parameters, **tensors))
    layer = interop.from_norse(original)
    back = interop.to_norse(layer)
    x = currents(11, 3, 7)
    expected, grads = gradients(original, lambda x: (lambda s, state: (s, *state))(*original(x)), x)
    for module in (layer, back):
        outputs, layer_grads = gradients(module, lambda x, m=module: (lambda s, state: (s, *state))(*m(x)), x)
        assert torch.equal(outputs[0], expected[0])
        torch.testing.assert_close(outputs, expected)
        torch.testing.assert_close(layer_grads, grads)


def test_norse_refuses_what_it_cannot_do():
    for layer in (hnn.LIF(surrogate=HTAF(hardness=0.0)), hnn.LIF(surrogate=HTAF(learn=("alpha", "beta"))),
                  hnn.LIF(surrogate=torch.sigmoid), hnn.LIF(detach_reset=True)):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            interop.to_norse(layer)


def test_lif_learns_the_named_parameters():
    layer = hnn.LIF(learn=["tau_mem_inv", "v_th"])
    assert {name for name, _ in layer.named_parameters()} == {"tau_mem_inv", "v_th"}
    layer(currents(5, 2, 3).mul(5))[0].sum().backward()
    assert layer.v_th.grad != 0
    with pytest.raises(ValueError, match=r"learn: expected names of tau_syn_inv.*got tau"):
        hnn.LIF(learn=["tau"])


def test_sequential_equals_the_stepped_network():
    net = hnn.Sequential(
        torch.nn.Conv2d(2, 3, 3), hnn.Leaky(0.9), torch.nn.Flatten(), torch.nn.Linear(48, 5), hnn.Leaky(0.8)
    )
    x = currents(6, 4, 2, 6, 6)
    first, second = interop.to_snntorch(net[1]), interop.to_snntorch(net[4])
    hidden, _ = step_through(first, torch.stack([net[0](frame) for frame in x]))
    expected, _ = step_through(second, torch.stack([net[3](frame.flatten(1)) for frame in hidden]))
    assert torch.equal(net(x), expected)
    assert torch.equal(hnn.TimeDistributed(net[0])(x)[2], net[0](x[2]))


def test_a_sequence_may_come_in_pieces():
    for layer in (hnn.Leaky(0.9), hnn.LIF(v_th=0.3)):
        x = currents(9, 2, 5)
        whole, _ = layer(x)
        first, state = layer(x[:4])
        second, _ = layer(x[4:], state)
        assert torch.equal(torch.cat([first, second]), whole)


LAYERS = {
    "leaky": lambda: hnn.Leaky(0.9),
    "learned": lambda: hnn.Leaky(0.9, learn_beta=True, learn_threshold=True, reset_mechanism="zero", reset_delay=False),
    "learnable surrogate": lambda: hnn.Leaky(0.9, surrogate=HTAF(learn=("alpha", "beta"))),
    "bfloat16 trace": lambda: hnn.Leaky(0.9, save_dtype=torch.bfloat16),
    "checkpointed": lambda: hnn.Leaky(0.9, checkpoint_every=3),
    "torch": lambda: hnn.Leaky(0.9, backend="torch"),
    "lif": lambda: hnn.LIF(learn=["tau_mem_inv"]),
    "net": lambda: hnn.Sequential(torch.nn.Linear(7, 5), hnn.Leaky(0.9), torch.nn.Linear(5, 2), hnn.LIF()),
}


def spikes_and_grad(module, x):
    x = x.clone().requires_grad_()
    out = module(x)
    spikes = out if isinstance(out, torch.Tensor) else out[0]
    spikes.sum().backward()
    return spikes.detach(), x.grad


@pytest.mark.thorough
@pytest.mark.parametrize("name", LAYERS)
def test_layers_survive_copies_and_compilation(name):
    torch._dynamo.reset()
    layer, x, buffer = LAYERS[name](), currents(7, 3, 7).mul(3), io.BytesIO()
    expected = spikes_and_grad(layer, x)
    torch.save(layer, buffer)
    buffer.seek(0)
    variants = {
        "deepcopy": copy.deepcopy(layer),
        "torch.save": torch.load(buffer, weights_only=False),
        "compile": torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager"),
    }
    for label, variant in variants.items():
        torch.testing.assert_close(spikes_and_grad(variant, x), expected, msg=label)


def test_autocast():
    net = hnn.Sequential(torch.nn.Linear(7, 5), hnn.Leaky(0.9))
    with torch.autocast("cpu", torch.bfloat16):
        spikes = net(currents(6, 2, 7))
    assert spikes.dtype == torch.bfloat16
    spikes.float().sum().backward()
    assert net[0].weight.grad.dtype == torch.float32 and net[0].weight.grad.any()


def test_fused_neurons_train_as_snntorch_does():
    x = currents(8, 4, 6).mul(2)
    for spec in ("htaf", "snntorch.atan"):
        expected = spikes_and_grad(OutputOf(models.neuron("snntorch", spec)), x)
        torch.testing.assert_close(spikes_and_grad(OutputOf(models.neuron("fused", spec)), x), expected)


DDP = """
    import sys
    import torch
    import torch.distributed as dist
    from htaf_snn import nn as hnn
    rank, path = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    torch.manual_seed(0)
    net = hnn.Sequential(torch.nn.Linear(6, 5), hnn.Leaky(0.9, learn_beta=True, learn_threshold=True))
    x = torch.randn(7, 4, 6)
    alone = [g / 2 for g in torch.autograd.grad(net(x).sum(), list(net.parameters()))]
    ddp = torch.nn.parallel.DistributedDataParallel(net)
    ddp(x[:, 2 * rank : 2 * rank + 2]).sum().backward()
    for p, g in zip(net.parameters(), alone, strict=True):
        torch.testing.assert_close(p.grad, g)
    # Neither may leave while the other still talks to it, nor exit with gloo's threads running.
    del ddp
    dist.barrier()
    dist.destroy_process_group()
"""


@pytest.mark.thorough
def test_two_processes_average_their_gradients(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(DDP)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors


@pytest.mark.parametrize("neuron", [hnn.Leaky, hnn.LIF])
def test_any_callable_works_without_gradients(neuron):
    """As in an evaluation."""
    lif = neuron(surrogate=lambda x: HTAF()(x)) if neuron is hnn.LIF else neuron(0.9, surrogate=lambda x: HTAF()(x))
    current = torch.rand(7, 3, 5) * 3
    with torch.no_grad():
        without = lif(current)[0]
    assert torch.equal(without, lif(current.requires_grad_())[0])
    assert without.sum() > 0
