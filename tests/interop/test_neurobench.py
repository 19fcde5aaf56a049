"""A run's network in NeuroBench's harness, whose figures are those of `measures.activity`."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from htaf_snn import interop, models, register, training
from htaf_snn import nn as hnn
from htaf_snn.compare import measures

benchmarks = pytest.importorskip("neurobench.benchmarks", reason="neurobench is not installed")
static = pytest.importorskip("neurobench.metrics.static")
workload = pytest.importorskip("neurobench.metrics.workload")

STATIC = [static.Footprint, static.ParameterCount, static.ConnectionSparsity]
WORKLOAD = [workload.ActivationSparsity, workload.ClassificationAccuracy, workload.SynapticOperations]
SPIKING = [
    {"hidden": (12, 7), "lr": 0.01},
    {"hidden": (12, 7), "lr": 0.01, "library": "snntorch"},
    {"hidden": (12, 7), "lr": 0.01, "library": "norse"},
    {"model": "cnn", "hidden": (3, 4), "lr": 0.02},
    {"model": "sew-resnet18", "width": 2},
    {"model": "plif-net", "width": 2},
]
IMAGES = [
    {"model": "dhn", "hidden": (24, 16)},
    {"model": "relu", "hidden": (24, 16)},
    {"model": "bnn", "hidden": (24, 16)},
    {"model": "binary-cnn", "hidden": (4, 6)},
]


def figures(net, loader, metrics=WORKLOAD):
    """Return NeuroBench's figures of a network, over batches with the samples first."""
    return benchmarks.Benchmark(interop.to_neurobench(net), loader, [], [], [STATIC, metrics]).run(quiet=True)


def trained(settings, folder, **data):
    """Return a trained network, and the loaders of its test data for us and for NeuroBench."""
    config = training.Run(**{"epochs": 2, "batch_size": 8} | settings | data)
    training.train(config, folder, progress=False)
    ours = training.make_loaders(config)[2]
    return training.load(folder), ours, DataLoader(ours.dataset, config.batch_size)


def n_neurons(net, loader):
    """Return the number of neurons of each layer."""
    sizes, x = [], next(iter(loader))[0]
    hooks = [
        neuron.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[x.ndim - 3 :].numel()))
        for neuron in net.neurons
    ]
    net(x)
    for hook in hooks:
        hook.remove()
    return sizes


def check(net, ours, theirs):
    """Compare all figures that both have; return the sparsity that NeuroBench finds, and what it follows from."""
    expected, found = measures.activity(net, ours), figures(net, theirs)
    operations = found["SynapticOperations"]
    assert operations["Effective_ACs"] == pytest.approx(expected["acs"], rel=1e-6)
    assert operations["Effective_MACs"] == pytest.approx(expected["macs"], rel=1e-6)
    assert operations["Dense"] >= expected["acs"] + expected["macs"] > 0
    assert found["ClassificationAccuracy"] == pytest.approx(training.evaluate(net, ours)["accuracy"])
    sizes, rates = n_neurons(net, ours), expected["spike_rate"]
    assert sum(rates) > 0
    return found["ActivationSparsity"], sum(map(math.prod, zip(sizes, rates, strict=True))) / sum(sizes)


@pytest.mark.parametrize("settings", SPIKING, ids=lambda settings: " ".join(map(str, settings.values())))
def test_figures_of_spiking_networks_equal_ours(recordings, tmp_path, settings):
    with register():
        loaded = trained(settings, tmp_path / "run", dataset="nmnist", data_root=str(recordings), n_time_bins=3)
        sparsity, rate = check(*loaded)
    assert sparsity == pytest.approx(1 - rate)


@pytest.mark.parametrize("settings", IMAGES, ids=lambda settings: settings["model"])
def test_figures_of_networks_of_images_equal_ours(tmp_path, settings):
    sparsity, rate = check(*trained(settings, tmp_path / "run", batch_size=128))
    # Neither -1 nor +1 is zero.
    assert sparsity == (pytest.approx(1 - rate) if settings["model"] in ("dhn", "relu") else 0)


def batches(*shape, classes=3):
    """Return loaders of the same data for us, time first, and for NeuroBench, samples first."""
    torch.manual_seed(0)
    x, labels = torch.randint(2, shape).float(), torch.randint(classes, shape[:1])
    theirs = DataLoader(TensorDataset(x, labels), 2)
    return [(x.transpose(0, 1) if x.ndim == 5 else x, labels) for x, labels in theirs], theirs


def test_zero_weights_are_no_connections():
    net = models.SpikingMLP(32, [12, 12], 3, lambda: hnn.Leaky(beta=0.9))
    with torch.no_grad():
        net.layers[0][1].weight[:6] = 0
    ours, theirs = batches(5, 4, 2, 4, 4)
    found = figures(net, theirs)
    assert found["ConnectionSparsity"] == round(6 * 32 / (32 * 12 + 12 * 12 + 12 * 3), 4)
    assert found["ParameterCount"] == sum(p.numel() for p in net.parameters())
    tensors = [*net.parameters(), *net.buffers()]
    assert found["Footprint"] == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert found["SynapticOperations"]["Effective_ACs"] == pytest.approx(measures.activity(net, ours)["acs"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_networks_are_counted(wrapped):
    """Those without a list of neurons, and neurons that are no module of a library that we know."""
    if wrapped:
        net, shape = models.SpikingMLP(32, [12], 3, nn.Softsign), (5, 4, 2, 4, 4)
    else:
        net, shape = models.BinaryResNet(8, in_channels=2, n_classes=3, width=4), (5, 2, 8, 8)
        net.neurons = [module for module in net.modules() if isinstance(module, hnn.BinaryActivation)]
    ours, theirs = batches(*shape)
    expected = measures.activity(net, ours)
    layers = len(net.neurons)
    if not wrapped:
        del net.neurons
    found = figures(net, theirs)
    assert found["SynapticOperations"]["Effective_ACs"] == pytest.approx(expected["acs"])
    assert found["SynapticOperations"]["Effective_MACs"] == pytest.approx(expected["macs"])
    assert len(interop.to_neurobench(net).activation_layers()) == layers


def test_concepts_are_activations():
    net = models.ICBM(models.ImageEncoder(1, 4), n_concepts=8, n_classes=3, in_features=16)
    ours, theirs = batches(5, 1, 8, 8)
    found, expected = figures(net, theirs)["SynapticOperations"], measures.activity(net, ours)
    assert (found["Effective_ACs"], found["Effective_MACs"]) == pytest.approx((expected["acs"], expected["macs"]))
    names = [layer["layer_name"] for layer in interop.to_neurobench(net).activation_layers()]
    assert names == ["backbone.2", "backbone.6", "backbone.10", "concept_layer.activation"]


def test_potentials_are_those_of_snntorch_alone(capsys):
    """All neurons of its networks are updated at every step; of others NeuroBench knows no potential."""
    metrics = [workload.ActivationSparsityByLayer, workload.MembraneUpdates]
    metrics = [workload.ActivationSparsity, *metrics]  # as the by-layer metric does not say that it needs hooks
    ours, theirs = batches(5, 4, 2, 4, 4)
    for library in ("snntorch", "fused"):
        torch.manual_seed(0)
        net = models.SpikingMLP(32, [12, 6], 3, lambda: models.neuron(library))  # noqa: B023
        model = interop.to_neurobench(net)
        found = benchmarks.Benchmark(model, theirs, [], [], [[], metrics]).run()
        rates = [1 - rate for rate in measures.activity(net, ours)["spike_rate"]]
        assert [*found["ActivationSparsityByLayer"].values()] == pytest.approx(rates)
        assert found["MembraneUpdates"] == (4 * (12 + 6) if library == "snntorch" else 0)
        message = "neurons.0: expected a neuron of snnTorch, whose potentials NeuroBench sees, got Leaky"
        assert (message in capsys.readouterr().out) == (library == "fused")


def test_one_model_serves_several_benchmarks():
    """NeuroBench's own models count twice for two benchmarks, and lose their hooks with the first."""
    _, theirs = batches(5, 4, 2, 4, 4)
    model = interop.to_neurobench(models.SpikingMLP(32, [12], 3, lambda: hnn.Leaky(beta=0.9)))
    parts = model, theirs, [], [], [STATIC, WORKLOAD]
    benchmark = benchmarks.Benchmark(*parts)
    first = benchmark.run(quiet=True)
    benchmark = benchmarks.Benchmark(*parts)
    assert benchmark.run(quiet=True) == first
    del benchmark
    assert not model.activation_hooks and not model.net.layers[0][1]._forward_pre_hooks


def test_what_cannot_be_counted_is_refused(recordings, tmp_path):
    with pytest.raises(TypeError, match=r"^model: expected a module, got 3"):
        interop.to_neurobench(3)
    data = {"dataset": "nmnist", "data_root": str(recordings), "n_time_bins": 3}
    net, time_first, _ = trained({"hidden": (4,), "epochs": 1}, tmp_path / "run", **data)
    message = r"frames: expected \(B, T, …\) with T = 3, got \(3, 8, 2, 34, 34\); write DataLoader"
    with pytest.raises(ValueError, match=message):
        figures(net, time_first)
