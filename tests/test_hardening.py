"""From smooth to hard: annealing, the hardening gap, and what is restored afterwards."""

import copy
import io
import pickle
from itertools import pairwise

import pytest
import snntorch as snn
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from htaf_snn import HTAF, hardening, models, training
from htaf_snn import nn as hnn
from htaf_snn.models.neurons import LeakyOverTime
from htaf_snn.surrogate import Foreign

SMOOTH = "htaf(normalized=True, hardness=0.0)"
SMOOTH_NEURON = "htaf(hardness=0.0)"


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


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
    "BNN": (lambda: models.BinaryMLP(16, [9, 8], 3), (20, 16)),
    "binary convolutions": (lambda: models.BinaryResNet(8, 1, 3, width=4), (20, 1, 4, 4)),
    "DHN": (lambda: models.DeepHeavisideNet(16, [9, 8], 3), (20, 16)),
    "ICBM": (lambda: models.ICBM(nn.Linear(16, 9), 8, 3, in_features=9), (20, 16)),
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
    figures = training.fit(net, train, val, out=tmp_path, epochs=1, lr=0.05, progress=False)[-1]
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


def test_annealing():
    net = nn.Sequential(hnn.BinaryActivation(SMOOTH), hnn.BinaryActivation(SMOOTH), hnn.BinaryActivation("clipped_ste"))
    anneal = hardening.Anneal(net, "alpha", 1.0, 16.0, steps=4, ends={"1": 81.0})
    seen = []
    for _ in range(5):
        seen.append((net[0].surrogate.alpha, net[1].surrogate.alpha))
        anneal.step()
    assert seen == [(1, 1), (2, 3), (4, 9), (8, pytest.approx(27)), (16, 81)]
    again = hardening.Anneal(copy.deepcopy(net), "alpha", 1.0, 16.0, steps=4)
    again.load_state_dict({"done": 2})
    assert again.state_dict() == {"done": 2}
    cosine = hardening.Anneal(net, "alpha", 1.0, 16.0, steps=4, shape="cosine")
    cosine.at(1)
    assert net[0].surrogate.alpha == pytest.approx(16 ** (0.5 - 0.5**1.5))
    stairs = hardening.Anneal(net, "alpha", 1.0, 32.0, steps=60, shape="stepwise")
    values = set()
    for done in range(61):
        stairs.at(done)
        values.add(net[0].surrogate.alpha)
    assert sorted(values) == pytest.approx([1, 2, 4, 8, 16, 32])
    ede = nn.Sequential(hnn.BinaryActivation("ede"))
    hardening.Anneal(ede, "t", 0.1, 10.0, steps=2).step()
    assert ede[0].surrogate.t == pytest.approx(1)


def test_the_hardness_moves_linearly_to_its_ends_exactly():
    net = nn.Sequential(hnn.BinaryActivation(), hnn.BinaryActivation("atan"))
    anneal = hardening.Anneal(net, steps=10, ends={"1": 0.7})
    seen = []
    for _ in range(11):
        seen.append([layer.surrogate.hardness for layer in net])
        anneal.step()
    for done, (first, second) in enumerate(seen):
        assert (first, second) == pytest.approx((done / 10, 0.7 * done / 10))
    assert seen[0] == [0.0, 0.0] and seen[-1] == [1.0, 0.7]
    backwards = hardening.Anneal(net, "hardness", 1.0, 0.0, steps=2, shape="stepwise")
    backwards.at(99)
    assert backwards.done == 2 and net[0].surrogate.hardness == 0.0
    for parameter in ("hardness", "alpha"):  # 0.3 + (0.9 - 0.3) is not 0.9, nor is 0.3 * (0.9 / 0.3)
        hardening.Anneal(net, parameter, 0.3, 0.9, steps=1).step()
        assert getattr(net[0].surrogate, parameter) == 0.9


def test_annealing_goes_on_where_it_was_saved():
    net = hnn.Sequential(hnn.Leaky(0.9), nn.Linear(2, 2), hnn.LIF())
    anneal = hardening.Anneal(net, steps=7, shape="cosine")
    for _ in range(3):
        anneal.step()
    saved = copy.deepcopy((net.state_dict(), anneal.state_dict()))
    other = hnn.Sequential(hnn.Leaky(0.9), nn.Linear(2, 2), hnn.LIF())
    restored = hardening.Anneal(other, steps=7, shape="cosine")
    other.load_state_dict(saved[0])
    restored.load_state_dict(saved[1])
    for _ in range(5):
        assert [layer.surrogate.hardness for layer in (net[0], net[2])] == [
            layer.surrogate.hardness for layer in (other[0], other[2])
        ]
        anneal.step()
        restored.step()
    assert restored.state_dict() == {"done": 7} and hardening.is_hard(other)


def test_each_surrogate_can_start_from_its_own_value():
    net = nn.Sequential(*[hnn.BinaryActivation(f"htaf(alpha={1 + n}, hardness={n / 2})") for n in (0, 2, 1)])
    anneal = hardening.Anneal(net, start=None, steps=2)
    for expected in ([0.0, 1.0, 0.5], [0.5, 1.0, 0.75], [1.0, 1.0, 1.0]):
        assert [layer.surrogate.hardness for layer in net] == expected
        anneal.step()
    hardening.Anneal(net, "alpha", None, 8.0, steps=1, ends={"1": 3.0})
    assert [layer.surrogate.alpha for layer in net] == [1.0, 3.0, 2.0]


@pytest.mark.parametrize("done", [-2, 1.5, True, "x", None])
def test_steps_that_are_no_count_change_nothing(done):
    surrogate = HTAF()
    anneal = hardening.Anneal(surrogate, "alpha", 1.0, 16.0, steps=4)
    anneal.step()
    for use in (lambda: anneal.at(done), lambda: anneal.load_state_dict({"done": done})):
        with pytest.raises(ValueError, match=f"^done: expected an integer >= 0, got {done!r}"):
            use()
    with pytest.raises(ValueError, match=r"^state: expected \{'done': steps\}, got \{\}"):
        anneal.load_state_dict({})
    assert surrogate.alpha == 2.0 and anneal.done == 1


class OwnLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.my_surrogate = HTAF()


def test_surrogates_are_named_by_their_layers():
    net = nn.ModuleDict(
        {
            "fused": hnn.Sequential(nn.Linear(2, 2), hnn.Leaky(0.9)),
            "snntorch": LeakyOverTime("htaf"),
            "icbm": models.ICBM(nn.Linear(2, 2), 2, 2, in_features=2),
            "own": OwnLayer(),
            "alone": HTAF(),
        }
    )
    expected = ["fused.1", "snntorch.leaky", "icbm.concept_layer.activation", "own.my_surrogate", "alone"]
    assert list(hardening.annealable(net, "hardness")) == expected
    hardening.Anneal(net, "alpha", 1.0, 3.0, steps=1, ends=dict.fromkeys(expected, 2.0)).step()
    assert {surrogate.alpha for surrogate in hardening.surrogates(net).values()} == {2.0}
    assert list(hardening.annealable(HTAF(), "alpha")) == [""]


def test_compiled_layers_keep_their_names():
    net = nn.Sequential(torch.compile(hnn.BinaryActivation()), nn.Sequential(hnn.BinaryActivation()))
    assert list(hardening.annealable(torch.compile(net), "alpha")) == ["0", "1.0"]
    assert list(hardening.annealable(torch.compile(HTAF()), "alpha")) == [""]
    hardening.Anneal(torch.compile(net), steps=1, ends={"1.0": 0.5}).at(1)
    assert (net[0].surrogate.hardness, net[1][0].surrogate.hardness) == (1.0, 0.5)


def test_foreign_surrogates_and_those_of_weights_stay():
    net = nn.Sequential(
        hnn.BinaryLinear(2, 2, surrogate="htaf"), hnn.BinaryActivation("snntorch.atan(alpha=2)"), hnn.BinaryActivation()
    )
    for parameter in ("hardness", "alpha"):
        hardening.Anneal(net, parameter, 0.5, 0.75, steps=1).step()
        assert getattr(net[2].surrogate, parameter) == 0.75
    assert repr(net[0].surrogate) == repr(HTAF())
    assert isinstance(net[1].surrogate, Foreign) and net[1].surrogate.hardness == 1
    with hardening.hard(net):
        assert net[2].surrogate.hardness == 1
    assert net[2].surrogate.hardness == 0.75
    with pytest.raises(ValueError, match=r"^model: expected a surrogate with the parameter 'hardness' .*, got none"):
        hardening.Anneal(net[:2], "hardness", steps=1)


@pytest.mark.parametrize("value", ["learned", torch.tensor([2.0, 2.0])])
def test_parameters_that_are_tensors_stay(value):
    surrogate = HTAF(learn=["alpha"]) if isinstance(value, str) else HTAF(alpha=value)
    got = "a learned one" if isinstance(value, str) else "none"
    with pytest.raises(ValueError, match=f"^model: expected a surrogate .* 'alpha' as a number, got {got}$"):
        hardening.Anneal(nn.Sequential(surrogate), "alpha", 1.0, 2.0, steps=1)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(1, 1), {}, "^model: expected a surrogate with the parameter 'hardness' .*, got none"),
        (HTAF(), {"parameter": "normalized"}, "^model: expected a surrogate with the parameter 'normalized' as a numb"),
        (HTAF(), {"steps": 0}, "^steps: expected an integer"),
        (HTAF(), {"steps": True}, "^steps: expected an integer"),
        (HTAF(), {"shape": "odd"}, "^shape: expected one of"),
        (HTAF(), {"parameter": "alpha", "start": 1.0, "end": 0.0}, "^start, end, ends: expected positive finite"),
        (HTAF(), {"parameter": "alpha", "start": 0.0}, "^start, end, ends: expected positive finite"),
        (HTAF(), {"parameter": "alpha", "start": 1.0, "end": float("inf")}, "^start, end, ends: expected positive"),
        (HTAF(), {"start": "0"}, r"^start, end, ends: expected hardnesses within \[0, 1\], got '0'"),
        (
            HTAF(),
            {"parameter": "alpha", "start": 1.0, "end": None},
            "^start, end, ends: expected positive finite .*, got None",
        ),
        (HTAF(), {"end": 1.5}, r"^start, end, ends: expected hardnesses within \[0, 1\], got 1\.5"),
        (HTAF(), {"ends": {"": -0.5}}, r"^start, end, ends: expected hardnesses within \[0, 1\], got -0\.5"),
        (HTAF(), {"ends": {"x": 1}}, "^ends: expected names"),
        (HTAF(), {"ends": {3: 1}}, "^ends: expected names"),
        (HTAF(), {"ends": [("", 0.5)]}, r"^ends: expected a mapping .*, got \[\("),
    ],
)
def test_bad_arguments(model, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        hardening.Anneal(model, **{"steps": 1, **options})


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


COMPILED = {
    "HTAF": HTAF,
    "hnn.Leaky": lambda: hnn.Sequential(hnn.Leaky(0.9)),
    "hnn.Leaky, torch": lambda: hnn.Sequential(hnn.Leaky(0.9, backend="torch")),
    "BinaryActivation": hnn.BinaryActivation,
}


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("parameter", ["hardness", "alpha"])
def test_annealing_compiles_once(name, parameter):
    torch._dynamo.reset()
    net, x, graphs = COMPILED[name](), 2 * torch.randn(5, 4, 3), []
    anneal = hardening.Anneal(net, parameter, 0.25, 1.0, steps=4)

    def backend(graph, inputs):
        result = torch._dynamo.lookup_backend("aot_eager")(graph, inputs)  # may abort the analysis, which begins again
        graphs.append(graph)
        return result

    compiled, seen = torch.compile(net, backend=backend, fullgraph=True), []
    for _ in range(5):
        results = []
        for run in (compiled, net):
            current = x.clone().requires_grad_()
            output = run(current)
            output.square().sum().backward()
            results.append((output.detach(), current.grad))
        torch.testing.assert_close(*results)
        seen.append(results[0][1])
        anneal.step()
    assert len(graphs) == 1
    assert not any(torch.equal(a, b) for a, b in pairwise(seen))  # the values were not constants


def test_a_deep_network_trained_from_smooth_to_hard_has_nothing_left_to_harden(tmp_path):
    recipe = {"epochs": 20, "batch_size": 64, "lr": 0.01, "schedule": "cosine", "val_fraction": 0.0}
    accuracies = []
    for hardness, anneal in ((1, "alpha"), (0, "hardness")):
        surrogate = f"htaf(alpha=0.5, normalized=True, hardness={hardness})"
        config = training.TrainConfig(model="dhn", hidden=(128,) * 8, surrogate=surrogate, anneal=anneal, **recipe)
        result = training.train(config, tmp_path / str(hardness), progress=False)
        assert result["hardening_gap"] == 0.0
        accuracies.append(result["test_accuracy"])
    throughout, annealed = accuracies
    assert throughout > 0.94 and annealed > throughout - 0.02


def test_a_soft_callable_has_a_gap():
    """Hard in eval, an activation with a callable is as soft as it in training."""
    net = nn.Sequential(nn.Linear(1, 1), hnn.BinaryActivation(torch.sigmoid, (0, 1)), nn.Linear(1, 2))
    for layer, weight, bias in ((net[0], [[1.0]], [0.0]), (net[2], [[0.0], [1.0]], [0.75, 0.0])):
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    batches = [(torch.tensor([[0.5], [2.0]]), torch.tensor([1, 1]))]
    assert hardening.evaluate(net, batches, batches)[:3] == (1.0, 0.5, -0.5)
    assert not hardening.is_hard(net) and hardening.is_hard(nn.Sequential(hnn.BinaryActivation("snntorch.atan")))
