"""Between smooth and hard: the hardening gap, and what is restored afterwards."""

import copy
import io
import pickle

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from htaf_snn import HTAF, hardening, models, training
from htaf_snn import nn as hnn
from htaf_snn.configuration import Recipe

SMOOTH = "htaf(normalized=True, hardness=0.0)"
SMOOTH_NEURON = "htaf(hardness=0.0)"


class FirstSpikes(nn.Module):
    """An snnTorch network that is stepped through time."""

    def __init__(self):
        super().__init__()
        self.layer, self.leaky = nn.Linear(16, 3), snn.Leaky(0.9, spike_grad=HTAF(hardness=0.0))

    def forward(self, x):
        mem, rates = torch.zeros(x.shape[1], 3), 0.0
        for current in x:
            spikes, mem = self.leaky(self.layer(current), mem)
            rates = rates + spikes / len(x)
        return rates


class MeanOverTime(nn.Module):
    def forward(self, x):
        return x.mean(0)


def fused():
    return nn.Sequential(hnn.Sequential(nn.Linear(16, 3), hnn.Leaky(0.9, surrogate=SMOOTH_NEURON)), MeanOverTime())


NETWORKS = {
    "SNN": (fused, (5, 20, 16)),
    "SNN of snnTorch": (FirstSpikes, (5, 20, 16)),
    "BNN": (lambda: models.BinaryMLP(16, [9, 8], 3, surrogate=SMOOTH), (20, 16)),
    "binary convolutions": (lambda: models.BinaryResNet(8, 1, 3, width=4, surrogate=SMOOTH), (20, 1, 4, 4)),
    "DHN": (lambda: models.DeepHeavisideNet(16, [9, 8], 3, surrogate=SMOOTH), (20, 16)),
    "ICBM": (lambda: models.ICBM(nn.Linear(16, 9), 8, 3, in_features=9, surrogate=SMOOTH), (20, 16)),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name):
    """A network as in the middle of its training, with statistics of BatchNorm, and its inputs."""
    make, shape = NETWORKS[name]
    net, x = make(), torch.rand(shape)
    with torch.no_grad():
        for _ in range(3):
            net(x)
    return net, x


def outputs(net, x):
    """What every surrogate's layer gives in a forward pass in eval mode."""
    seen = []
    surrogates = [module for module in net.modules() if isinstance(module, hnn.BinaryActivation)]
    surrogates = surrogates or list(hardening.surrogates(net).values())
    neurons = [module for module in net.modules() if isinstance(module, (hnn.Leaky, snn.Leaky))]

    def keep(module, inputs, output):
        seen.append((output[0] if isinstance(output, tuple) else output).detach())

    handles = [module.register_forward_hook(keep) for module in neurons or surrogates]
    with torch.no_grad():
        net.train(False)(x)
    for handle in handles:
        handle.remove()
    return torch.cat([output.flatten() for output in seen])


def is_of_two_levels(values):
    return len(values.unique()) <= 2 and set(values.unique().tolist()) <= {-1.0, 0.0, 1.0}


def state(net):
    """All that hardening may change for a while."""
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    kept = [module.smooth_in_eval for module in net.modules() if isinstance(module, hnn.BinaryActivation)]
    momenta = [getattr(module, "momentum", None) for module in net.modules()]
    return tensors, modes, kept, momenta, [surrogate.hardness for surrogate in hardening.surrogates(net).values()]


def assert_same_state(before, after):
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)
    assert before[1:] == after[1:]


@every_network
@pytest.mark.usefixtures("registered")
def test_hard_and_smooth_in_every_kind_of_network(name):
    net, x = network(name)
    assert not hardening.is_hard(net)
    with hardening.hard(net):
        assert hardening.is_hard(net)
        hard = outputs(net, x)
    with hardening.smooth(net):
        smooth = outputs(net, x)
    assert is_of_two_levels(hard) and not is_of_two_levels(smooth)
    assert is_of_two_levels(outputs(net, x)) == (not name.startswith("SNN"))  # neurons keep their hardness in eval
    hardening.harden(net)
    assert hardening.is_hard(net) and torch.equal(outputs(net, x), hard)
    with hardening.smooth(net):
        assert torch.equal(outputs(net, x), hard)


@every_network
@pytest.mark.usefixtures("registered")
def test_training_is_smooth_outside_of_hard_alone(name):
    net, x = network(name)
    before = net.train()(x)
    with hardening.hard(net):
        assert not torch.equal(net(x), before)
    assert torch.equal(net(x), before)


@every_network
@pytest.mark.parametrize("within", [hardening.hard, hardening.smooth])
def test_an_error_within_the_block_restores_too(name, within):
    net = NETWORKS[name][0]()
    surrogates = hardening.surrogates(net)
    for number, surrogate in enumerate(surrogates.values()):
        surrogate.hardness = number / 10
    before = state(net)
    with pytest.raises(RuntimeError, match="stop"), within(net):
        raise RuntimeError("stop")
    assert_same_state(before, state(net))


def test_blocks_can_be_nested():
    activation = hnn.BinaryActivation(SMOOTH_NEURON, (0, 1)).eval()
    x = torch.zeros(1)
    with hardening.smooth(activation):
        with hardening.smooth(activation):
            pass
        assert activation.smooth_in_eval and activation(x) == 0.5
        with hardening.hard(activation):
            assert activation(x) == 0
            with hardening.hard(activation):
                pass
            assert activation(x) == 0
        assert activation(x) == 0.5
    assert not activation.smooth_in_eval and activation(x) == 0


def test_a_surrogate_shared_by_weights_and_activations_is_hardened():
    shared = HTAF(hardness=0.0)
    net = nn.Sequential(hnn.BinaryLinear(2, 2, surrogate=shared), hnn.BinaryActivation(shared))
    assert not hardening.is_hard(net)
    with hardening.hard(net):
        assert shared.hardness == 1
    assert not hardening.is_hard(shared)


def batches(x, n_classes=3, size=10):
    """A loader of random labels; a batch of sequences (T, B, …) has its samples second."""
    samples = x.transpose(0, 1) if x.ndim == 3 else x
    data = TensorDataset(samples, torch.randint(n_classes, (len(samples),)))

    def collate(batch):
        xs, labels = (torch.stack(values) for values in zip(*batch, strict=True))
        return xs.transpose(0, 1) if x.ndim == 3 else xs, labels

    return DataLoader(data, batch_size=size, collate_fn=collate)


def in_mixed_modes(net):
    """As a user may have set them: some modules in eval mode, some activations smooth in it, hardnesses between."""
    net.train()
    for number, module in enumerate(net.modules()):
        if number % 3 == 2:
            module.training = False
        if isinstance(module, hnn.BinaryActivation):
            module.smooth_in_eval = number % 2 == 0
    for number, surrogate in enumerate(hardening.surrogates(net).values()):
        surrogate.hardness = 0.1 * number
    return net


@every_network
@pytest.mark.usefixtures("registered")
def test_an_evaluation_changes_nothing(name):
    net, x = network(name)
    before = state(in_mixed_modes(net))
    result = hardening.evaluate(net, batches(x), batches(x))
    assert result.gap == result.smooth - result.hard
    assert_same_state(before, state(net))


class Fails(nn.Module):
    """Passes its input on, so many times."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, x):
        self.times -= 1
        if self.times < 0:
            raise RuntimeError("stop")
        return x


@every_network
@pytest.mark.parametrize("times", range(0, 8, 2))
@pytest.mark.usefixtures("registered")
def test_a_failing_evaluation_restores_everything(name, times):
    """Two forward passes each to measure the smooth statistics, evaluate, measure the hard ones, and evaluate."""
    net, x = network(name)
    if name.startswith("SNN"):  # there are no statistics to measure
        times //= 2
    net = nn.Sequential(Fails(times), net)
    before = state(in_mixed_modes(net))
    with pytest.raises(RuntimeError, match="stop"):
        hardening.evaluate(net, batches(x), batches(x))
    assert_same_state(before, state(net))


def test_statistics_of_the_hard_network_can_be_kept():
    net, x = network("DHN")
    loader = batches(x)
    result = hardening.evaluate(net, loader, loader, keep_hard_statistics=True)
    kept = copy.deepcopy(net)
    with hardening.hard(net):
        hardening.recalibrate(net, batches(x))
    torch.testing.assert_close(kept.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert not hardening.is_hard(net)
    assert training.evaluate(net, loader)["accuracy"] == result.hard


def test_a_hard_network_is_evaluated_as_it_is():
    net, x = network("DHN")
    hardening.harden(net)
    before = state(net)
    result = hardening.evaluate(net, [], batches(x))  # no training data are needed
    assert result.gap == 0.0 and result.smooth == result.hard
    assert_same_state(before, state(net))


def test_the_hardening_gap_is_that_of_the_accuracies():
    net = nn.Sequential(nn.Linear(1, 1), hnn.BinaryActivation(SMOOTH, (0, 1)), nn.Linear(1, 2))
    for layer, weight, bias in ((net[0], [[1.0]], [0.0]), (net[2], [[0.0], [1.0]], [0.75, 0.0])):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    # Class 1 where the activation is above 0.75: hard for x > 0, smooth from x = 0.28 on.
    x = torch.tensor([[0.1], [1.0], [-1.0]])
    loader = [(x, torch.tensor([0, 1, 0]))]
    result = hardening.evaluate(net, loader, loader)
    assert (result.hard, result.smooth, result.gap) == pytest.approx((2 / 3, 1, 1 / 3))
    assert net.training
    assert hardening.evaluate(nn.Sequential(net[0], nn.ReLU(), net[2]), loader, loader).gap == 0
    with pytest.raises(ValueError, match=r"^loader: expected at least one"):
        hardening.evaluate(net, loader, [])


@every_network
@pytest.mark.usefixtures("registered")
def test_training_and_evaluation_measure_the_same_gap(name, tmp_path):
    net, x = network(name)
    train, val = batches(x), batches(torch.rand_like(x))
    figures = training.fit(net, train, val, out=tmp_path, recipe=Recipe(epochs=1, lr=0.05), progress=False)[-1]
    result = hardening.evaluate(net, train, val)
    assert figures["val_hardening_gap"] == result.gap
    assert (figures["val_accuracy"], figures["val_smooth_accuracy"]) == (result.hard, result.smooth)
    assert figures["val_loss"] == result.loss


@pytest.mark.parametrize("name", ["train_loader", "loader"])
def test_batches_that_can_be_gone_through_once(name):
    net, x = network("DHN")
    loaders = {"train_loader": batches(x), "loader": batches(x)}
    before = state(net)
    with pytest.raises(TypeError, match=rf"^{name}: expected .* twice, got generator; pass a DataLoader, or list\("):
        hardening.evaluate(net, **loaders | {name: (batch for batch in loaders[name])})
    assert_same_state(before, state(net))
    hardening.evaluate(fused(), iter(()), batches(torch.rand(5, 20, 16)))  # there are no statistics to measure
    hardening.harden(net)
    assert hardening.evaluate(net, iter(()), iter(loaders["loader"])) == hardening.evaluate(net, (), loaders["loader"])


@pytest.mark.parametrize("model", [None, 3, lambda x: x])
@pytest.mark.parametrize(
    "use",
    [
        hardening.is_hard,
        hardening.harden,
        lambda model: hardening.hard(model).__enter__(),
        lambda model: hardening.smooth(model).__enter__(),
        lambda model: hardening.Anneal(model, steps=1),
        lambda model: hardening.evaluate(model, [], []),
        lambda model: hardening.recalibrate(model, []),
    ],
)
def test_what_is_no_module(use, model):
    with pytest.raises(TypeError, match=r"^model: expected a module, got"):
        use(model)


def test_recalibration_measures_hard_activations():
    net = nn.Sequential(hnn.BinaryActivation(SMOOTH, (0, 1)), nn.BatchNorm1d(1, momentum=0.3))
    net(torch.randn(100, 1))
    x = torch.tensor([[1.0], [2.0], [-1.0], [3.0]])
    hardening.recalibrate(net, [(x, None), (-x, None), (x, None)], batches=2)
    assert net[1].running_mean.item() == 0.5
    assert net[1].running_var.item() == pytest.approx(0.25)
    assert net.training
    assert net[1].momentum == 0.3
    with hardening.smooth(net):
        hardening.recalibrate(net, [(x, None)])
    assert net[1].running_mean.item() == pytest.approx(net[0].surrogate(x).mean().item())


def through_pickle(net):
    return pickle.loads(pickle.dumps(net))


def through_torch_save(net):
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def through_state_dict(net):
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(net)
    for surrogate in hardening.surrogates(other).values():
        surrogate.hardness, surrogate.alpha = 0.0, 9.0
    other.load_state_dict(torch.load(buffer))
    return other


@every_network
@pytest.mark.parametrize("through", [copy.deepcopy, through_pickle, through_torch_save, through_state_dict])
@pytest.mark.usefixtures("registered")
def test_the_hardness_survives_copies_and_files(name, through):
    net, x = network(name)
    anneal = hardening.Anneal(net, steps=4)
    anneal.step()
    other = through(net)
    assert {surrogate.hardness for surrogate in hardening.surrogates(other).values()} == {0.25}
    with hardening.smooth(net), hardening.smooth(other):
        assert torch.equal(outputs(other, x), outputs(net, x))
        anneal.step()  # a copy has its own
        assert {surrogate.hardness for surrogate in hardening.surrogates(other).values()} == {0.25}
        hardening.Anneal(other, steps=2).step()
        assert torch.equal(outputs(other, x), outputs(net, x))


def test_a_soft_callable_has_a_gap():
    """Hard in eval, an activation with a callable is as soft as it in training."""
    net = nn.Sequential(nn.Linear(1, 1), hnn.BinaryActivation(torch.sigmoid, (0, 1)), nn.Linear(1, 2))
    for layer, weight, bias in ((net[0], [[1.0]], [0.0]), (net[2], [[0.0], [1.0]], [0.75, 0.0])):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    batches = [(torch.tensor([[0.5], [2.0]]), torch.tensor([1, 1]))]
    assert hardening.evaluate(net, batches, batches)[:3] == (1.0, 0.5, -0.5)
    assert not hardening.is_hard(net) and hardening.is_hard(nn.Sequential(hnn.BinaryActivation("snntorch.atan")))
