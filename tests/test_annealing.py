"""Annealing: surrogates that move from one hardness or parameter to another during training."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import nn

from htaf_snn import HTAF, hardening, models, training
from htaf_snn import nn as hnn
from htaf_snn.surrogate import Foreign

SMOOTH = "htaf(normalized=True, hardness=0.0)"


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
    backwards = hardening.Anneal(net, "hardness", 1.0, 0.0, steps=2)
    backwards.at(99)
    assert backwards.done == 2 and net[0].surrogate.hardness == 0.0
    for parameter in ("hardness", "alpha"):  # 0.3 + (0.9 - 0.3) is not 0.9, nor is 0.3 * (0.9 / 0.3)
        hardening.Anneal(net, parameter, 0.3, 0.9, steps=1).step()
        assert getattr(net[0].surrogate, parameter) == 0.9


def test_annealing_goes_on_where_it_was_saved():
    net = hnn.Sequential(hnn.Leaky(0.9), nn.Linear(2, 2), hnn.LIF())
    anneal = hardening.Anneal(net, steps=7)
    for _ in range(3):
        anneal.step()
    saved = copy.deepcopy((net.state_dict(), anneal.state_dict()))
    other = hnn.Sequential(hnn.Leaky(0.9), nn.Linear(2, 2), hnn.LIF())
    restored = hardening.Anneal(other, steps=7)
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
            "snntorch": models.neuron("snntorch"),
            "icbm": models.ICBM(nn.Linear(2, 2), 2, 2, in_features=2),
            "own": OwnLayer(),
            "alone": HTAF(),
        }
    )
    expected = ["fused.1", "snntorch.neuron", "icbm.concept_layer.activation", "own.my_surrogate", "alone"]
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
    with pytest.raises(
        ValueError, match=r"^model: expected a surrogate of this .* the parameter 'hardness' .*, got none$"
    ):
        hardening.Anneal(net[:2], "hardness", steps=1)


def test_a_network_of_snntorch_is_to_be_fused():
    snntorch = pytest.importorskip("snntorch")
    with pytest.raises(
        ValueError, match=r"got none; for a network of snnTorch or Norse, pass htaf_snn\.fuse\(network\)$"
    ):
        hardening.Anneal(nn.Sequential(nn.Linear(1, 1), snntorch.Leaky(0.9)), steps=1)


@pytest.mark.parametrize("value", ["learned", torch.tensor([2.0, 2.0])])
def test_parameters_that_are_tensors_stay(value):
    surrogate = HTAF(learn=["alpha"]) if isinstance(value, str) else HTAF(alpha=value)
    got = "a learned one" if isinstance(value, str) else "a tensor"
    with pytest.raises(ValueError, match=f"^model: expected a surrogate .* 'alpha' as a number, got {got}$"):
        hardening.Anneal(nn.Sequential(surrogate), "alpha", 1.0, 2.0, steps=1)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            nn.Linear(1, 1),
            {},
            "^model: expected a surrogate of this .* the parameter 'hardness' .*, got none$",
        ),
        (
            HTAF(),
            {"parameter": "normalized"},
            "^model: expected a surrogate of this .* the parameter 'normalized' as",
        ),
        (HTAF(), {"steps": 0}, "^steps: expected an integer"),
        (HTAF(), {"steps": True}, "^steps: expected an integer"),
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


COMPILED = {
    "HTAF": HTAF,
    "hnn.Leaky": lambda: hnn.Sequential(hnn.Leaky(0.9)),
    "hnn.Leaky, torch": lambda: hnn.Sequential(hnn.Leaky(0.9, backend="torch")),
    "BinaryActivation": hnn.BinaryActivation,
}


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_a_deep_network_trained_from_smooth_to_hard_has_nothing_left_to_harden(tmp_path):
    recipe = {"epochs": 20, "batch_size": 64, "lr": 0.01, "schedule": "cosine", "val_fraction": 0.0}
    accuracies = []
    for hardness, anneal in ((1, "none"), (0, "hardness")):
        surrogate = f"htaf(alpha=0.5, normalized=True, hardness={hardness})"
        config = training.Run(model="dhn", hidden=(128,) * 8, surrogate=surrogate, anneal=anneal, **recipe)
        result = training.train(config, tmp_path / str(hardness), progress=False)
        assert result["hardening_gap"] == 0.0
        accuracies.append(result["test_accuracy"])
    throughout, annealed = accuracies
    assert throughout > 0.94 and annealed > throughout - 0.02
