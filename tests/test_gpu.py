"""What only a GPU shows: networks that are trained, packed and captured there, beside the same on the CPU."""

import copy
from dataclasses import replace

import pytest
import torch
from studies import one_trial
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import neuromorphic_datasets as nd
from htaf_snn import HTAF, concepts, deploy, functional, models, training
from htaf_snn import nn as hnn
from htaf_snn.compare import stacking, trial
from htaf_snn.configuration import Recipe
from htaf_snn.neurons import NEURONS
from htaf_snn.training import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

SMALL = {"epochs": 2, "batch_size": 64}
MLP = {"hidden": (64,)}
DEEP = {"library": "fused", "n_time_bins": 4, "train_fraction": 0.2, "width": 16, "lr": 1e-2, "epochs": 4}
RUNS = {
    "mlp": MLP | {"library": "fused", "n_time_bins": 5, "train_fraction": 0.2},
    "cnn": {"library": "fused", "n_time_bins": 5, "train_fraction": 0.2, "hidden": (8, 16)},
    "bnn": MLP,
    "dhn": MLP,
    "relu": MLP,
    "plif-net": DEEP | {"loss": "tet", "dropout": 0.0},
    "sew-resnet18": DEEP | {"schedule": "cosine"},
}


@pytest.mark.parametrize("model", RUNS)
def test_training_is_that_on_a_cpu(model, tmp_path):
    on_gpu, on_cpu = (
        training.train(Run(model=model, device=device, **SMALL | RUNS[model]), tmp_path / device, progress=False)
        for device in ("cuda", "cpu")
    )
    assert on_gpu["device"] == "cuda" and on_gpu["test_loss"] == pytest.approx(on_cpu["test_loss"], rel=0.1)


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"compiled": True}], ids=str)
@pytest.mark.parametrize("model", ["mlp", "bnn"])
def test_training_in_mixed_precision_and_compiled(model, options, tmp_path):
    config = Run(model=model, device="cuda", **SMALL | RUNS[model] | options)
    result = training.train(config, tmp_path / "run", progress=False)
    plain = training.train(Run(model=model, device="cuda", **SMALL | RUNS[model]), tmp_path / "plain", progress=False)
    assert result["test_loss"] == pytest.approx(plain["test_loss"], rel=0.15)


@pytest.mark.parametrize("model", ["mlp", "cnn", "sew-resnet18"])
def test_a_run_continues(model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config = Run(model=model, device="cuda", **SMALL | RUNS[model] | {"schedule": "constant"})
    whole = training.train(config, tmp_path / "whole", progress=False)
    training.train(Run(**{**vars(config), "epochs": 1}), tmp_path / "parts", progress=False)
    parts = training.train(config, tmp_path / "parts", resume=True, progress=False)
    assert parts["test_loss"] == pytest.approx(whole["test_loss"], rel=1e-3)


def test_stacked_seeds_equal_separate_runs():
    trials = [one_trial(seed=seed, device="cuda", epochs=2, train_fraction=0.2) for seed in (0, 1)]
    for together, alone in zip(stacking.run(trials), map(trial.run, trials), strict=True):
        assert together["test_loss"] == pytest.approx(alone["test_loss"], rel=0.1)


def test_training_does_not_wait_for_the_gpu(tmp_path):
    data = TensorDataset(torch.rand(512, 20), torch.randint(3, (512,)))
    net = models.DeepHeavisideNet(20, (64,), 3).cuda()
    modes = {1: "error", 15: "default"}

    def before(number, optimizer):
        torch.cuda.set_sync_debug_mode(modes.get(number, torch.cuda.get_sync_debug_mode()))

    try:
        lines = training.fit(
            net,
            DataLoader(data, 32, pin_memory=True),
            out=tmp_path,
            recipe=Recipe(epochs=1),
            progress=False,
            before_step=before,
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0 < lines[0]["train_loss"] < 3 and 0 < lines[0]["spike_rate"][0] < 1


@pytest.mark.parametrize("what", ["the loss is nan", "1.bias: NaN gradient"])
def test_what_is_not_finite_is_reported_with_its_step(what, tmp_path):
    x = torch.rand(512, 20)
    x[100] = torch.nan if "loss" in what else 0.5
    net = nn.Sequential(nn.Linear(20, 8), nn.Linear(8, 3)).cuda()

    def before(number, optimizer):
        if number == 3 and "gradient" in what:
            handle = net[1].bias.register_hook(lambda grad: handle.remove() or grad * torch.nan)

    loader = DataLoader(TensorDataset(x, torch.randint(3, (512,))), 32, pin_memory=True)
    with pytest.raises(FloatingPointError, match=f"^{what}.* in epoch 1, step 4"):
        training.fit(net, loader, out=tmp_path, recipe=Recipe(epochs=1), progress=False, before_step=before)


def test_concepts_on_a_gpu(tmp_path):
    config = concepts.ConceptRun(device="cuda", epochs=2, n_concepts=16)
    result = concepts.train(config, tmp_path / "icbm", progress=False)
    on_cpu = concepts.train(replace(config, device="cpu"), tmp_path / "cpu", progress=False)
    assert result["test_accuracy"] == pytest.approx(on_cpu["test_accuracy"], abs=0.15)


@pytest.mark.parametrize("make", [
    lambda: models.BinaryMLP(784, (128, 65), 10), lambda: models.DeepHeavisideNet(784, (128, 65), 10),
])  # fmt: skip
def test_packed_networks_equal_those_of_a_cpu(make):
    torch.manual_seed(0)
    packed = deploy.pack(make().eval())
    images = torch.rand(33, 1, 28, 28)
    expected = packed(images)
    assert torch.equal(copy.deepcopy(packed).cuda()(images.cuda()).cpu(), expected)


def test_packed_networks_are_captured_in_graphs():
    packed, images = deploy.pack(models.BinaryMLP(784, (128,), 10).eval()).cuda(), torch.rand(16, 1, 28, 28).cuda()
    expected, graph = packed(images), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = packed(images)
    captured.zero_()
    graph.replay()
    assert torch.equal(captured, expected)


@pytest.mark.parametrize("layer", [lambda: hnn.Leaky(0.9), lambda: hnn.LIF(save_dtype=torch.bfloat16)])
def test_networks_are_trained_in_graphs(layer):
    torch.manual_seed(0)
    net = hnn.Sequential(nn.Linear(20, 65), layer(), nn.Linear(65, 10)).cuda()
    x = torch.randn(7, 3, 20, device="cuda")

    def run(module):
        net.zero_grad()
        output = module(x)
        output.square().sum().backward()
        return [output.detach().clone(), *(p.grad.clone() for p in net.parameters())]

    expected = run(net)
    for found, value in zip(run(torch.cuda.make_graphed_callables(net, (x,))), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


def test_numbers_are_given_without_waiting():
    x = torch.randn(5, 3, 65, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        spikes, _ = functional.leaky(x, beta=0.5, threshold=0.8)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(spikes, functional.leaky(x, beta=0.5, threshold=0.8, backend="torch")[0])


@pytest.mark.parametrize("name", NEURONS)
def test_large_inputs_equal_the_update(name):
    """More neurons than one block has; on one device, so bit for bit."""
    neuron = NEURONS[name]
    x = 2 * torch.randn(20, 3, 70_001, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    given = {option: values[0] for option, values in neuron.options.items()}
    given |= {"surrogate": HTAF()} if neuron.spikes else {}
    parameters = {key: 0.5 for key, value in neuron.parameters.items() if value is None}
    parameters |= {"alpha": 0.9} if name == "alpha" else {}
    (kernel, *_), (update, *_) = (
        functional.run(neuron, x, backend=backend, **given, **parameters) for backend in ("triton", "torch")
    )
    differing = (kernel != update).sum().item()
    # The exponentials of Norse's neurons round differently, which seldom moves a spike.
    assert differing <= (0 if name not in ("lif_ex", "lif_adex", "lif_adex_refrac") else 1e-4 * x.numel())


def test_more_than_two_billion_values():
    x = torch.randn(5, 1, 2**29 + 3, dtype=torch.bfloat16, device="cuda").requires_grad_()
    spikes, _ = functional.leaky(x, beta=0.5, surrogate="htaf")
    end = x.detach()[:, :, -4:].float().requires_grad_()
    expected, _ = functional.leaky(end, beta=0.5, surrogate="htaf", backend="torch")
    assert torch.equal(spikes[:, :, -4:].float(), expected)
    (grad,), (other,) = torch.autograd.grad(spikes.sum(), x), torch.autograd.grad(expected.sum(), end)
    torch.testing.assert_close(grad[:, :, -4:].float(), other, rtol=1e-2, atol=1e-2)


def test_bfloat16_has_the_spikes_of_its_values():
    x = torch.randn(30, 4, 1001, device="cuda").bfloat16().requires_grad_()
    layer = hnn.Leaky(0.9, surrogate=HTAF(), save_dtype=torch.bfloat16).cuda()
    spikes, _ = layer(x)
    expected, _ = functional.leaky(x.detach().float(), beta=0.9, surrogate="htaf", backend="torch")
    assert spikes.dtype == torch.bfloat16 and torch.equal(spikes.float(), expected)
    spikes.sum().backward()
    assert x.grad is not None and x.grad.dtype == torch.bfloat16 and x.grad.isfinite().all()


def test_a_compiled_network_trains():
    net = hnn.Sequential(nn.Linear(20, 65), hnn.Leaky(0.9, surrogate=HTAF()), nn.Linear(65, 10)).cuda()
    x = torch.randn(7, 3, 20, device="cuda")

    def run(module):
        net.zero_grad()
        output = module(x)
        output.sum().backward()
        return output.detach(), [p.grad.clone() for p in net.parameters()]

    (expected, grads), (found, others) = run(net), run(torch.compile(net))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for grad, other in zip(grads, others, strict=True):
        torch.testing.assert_close(other, grad, rtol=1e-3, atol=1e-3)


def test_frames_of_a_batch_are_made_on_the_gpu():
    dataset = nd.load("saccade-digits", "test")
    recordings = [dataset[i][0] for i in range(16)]
    on_gpu, on_cpu = (
        nd.batch_to_frames(recordings, dataset.sensor_size, n_time_bins=10, device=device) for device in ("cuda", "cpu")
    )
    assert on_gpu.is_cuda and torch.equal(on_gpu.cpu(), on_cpu)
