"""Implicit concept bottleneck models: the layer, training, explanations, codes, figures."""

import itertools
import sys

import numpy as np
import pytest
import torch
from concept_models import N_CLASSES, N_CONCEPTS, SMOOTH, new_model
from torch import nn

from htaf_snn import concepts, hardening, models, training
from htaf_snn import nn as hnn

SURROGATES = [SMOOTH, "relu", "sigmoid(slope=1)", "clipped_ste", "relaxed_bernoulli", "atan(alpha=2)"]


@pytest.mark.thorough
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_learns(loaders, tmp_path, surrogate):
    model, (train, val, test) = new_model(surrogate), loaders
    metrics = concepts.fit(model, train, val, recipe=concepts.ConceptRecipe(epochs=2), out=tmp_path, progress=False)
    assert metrics[1]["train_loss"] < metrics[0]["train_loss"]
    assert metrics[0]["val_hardening_gap"] == 0.0 or surrogate == SMOOTH
    found = model.eval().concepts(next(iter(test))[0])
    assert surrogate == "relu" or set(found.unique().tolist()) <= {0.0, 1.0}
    figures = concepts.measure(model, train, test)
    assert figures["hard_accuracy"] > 0.3


def test_relaxed_bernoulli_samples_around_its_mean():
    torch.manual_seed(0)
    x = torch.full((20_000,), 1.5, requires_grad=True)
    samples = hnn.RelaxedBernoulli(0.1)(x)
    assert samples.gt(0.5).float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(1.5)).item(), abs=0.01)
    samples.sum().backward()
    assert (x.grad > 0).any() and x.grad.isfinite().all()


@pytest.mark.thorough
def test_training_resumes_exactly(loaders, tmp_path):
    train, val, _ = loaders
    found = []
    for parts in ([2], [1, 2]):
        model, out = new_model(), tmp_path / str(len(parts))
        for number, epochs in enumerate(parts):
            recipe = concepts.ConceptRecipe(epochs=epochs, schedule="constant")
            metrics = concepts.fit(model, train, val, recipe=recipe, out=out, resume=number > 0, progress=False)
            if number + 1 < len(parts):
                model = new_model()
        found.append((metrics, model.state_dict()))
    (first, weights), (second, others) = found
    assert [{**line, "seconds": 0} for line in first] == [{**line, "seconds": 0} for line in second]
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_penalties_by_hand():
    balanced = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    assert all(value.item() == pytest.approx(0, abs=1e-6) for value in concepts.penalties(balanced).values())
    dead = torch.zeros(8, 2)
    dead[0, 1] = 1
    found = concepts.penalties(dead)
    assert found["activity"].item() == pytest.approx(0.05 / 2)
    p = 1 / 8
    assert found["entropy"].item() == pytest.approx(1 - (-(p * np.log2(p) + (1 - p) * np.log2(1 - p))) / 2, abs=1e-4)
    opposite = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert concepts.penalties(opposite)["decorrelation"].item() == pytest.approx(1)


def test_penalties_have_finite_gradients():
    x = torch.zeros(4, 3, requires_grad=True)
    sum(concepts.penalties(x).values()).backward()
    assert x.grad.isfinite().all()


@pytest.mark.thorough
def test_a_penalty_moves_the_rates(loaders, tmp_path):
    """The entropy penalty makes the concepts' rates more even."""
    train, val, test = loaders
    rates = []
    for weight in (0.0, 10.0):
        model = new_model()
        recipe = concepts.ConceptRecipe(epochs=2, entropy=weight, activity=0.0, decorrelation=0.0)
        concepts.fit(model, train, val, recipe=recipe, out=tmp_path / str(weight), progress=False)
        rates.append(np.abs(concepts.codes(model, test).numpy().mean(0) - 0.5).mean())
    assert rates[1] < rates[0]


@pytest.mark.thorough
def test_contributions_add_up(trained, loaders):
    image = loaders[2].dataset[3][0]
    scores = trained.eval()(image[None])[0]
    for number in range(N_CLASSES):
        found = concepts.explain(trained, image, number, classes=[str(i) for i in range(N_CLASSES)])
        assert found.bias + sum(found.contributions.values()) == pytest.approx(found.score, abs=1e-6)
        assert found.score == pytest.approx(scores[number].item(), abs=1e-5)
        assert f"({number})" in str(found)
    best = concepts.explain(trained, image)
    assert best.class_index == scores.argmax()
    active = trained.concepts(image[None])[0].nonzero().flatten().tolist()
    assert sorted(best.contributions) == active
    magnitudes = [abs(value) for value in best.contributions.values()]
    assert magnitudes == sorted(magnitudes, reverse=True)


def test_an_intervention_changes_the_scores_by_the_weight(copied, loaders):
    model, (x, _) = copied.double().eval(), next(iter(loaders[2]))
    x = x.double()
    off, on = (model.intervene({5: value}) for value in (0, 1))
    with off:
        without = model(x)
        with model.intervene({2: 1}):
            assert (model.concepts(x)[:, [2, 5]] == torch.tensor([1.0, 0.0])).all()
    with on:
        difference = model(x) - without
    torch.testing.assert_close(difference, model.head.weight[:, 5].expand_as(difference), rtol=0, atol=1e-12)
    assert not model._interventions


def test_codes_are_the_hard_concepts(trained, loaders):
    x, labels = (torch.cat(parts) for parts in zip(*loaders[2], strict=True))
    found = concepts.codes(trained.train(), loaders[2])
    assert trained.training
    expected = trained.eval().concepts(x).bool()
    assert found.shape == (360, N_CONCEPTS) == found.numpy().shape
    assert torch.equal(found[:], expected)
    assert torch.equal(found[7], expected[7])
    assert torch.equal(found.labels, labels)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 130])
def test_nearest_codes_differ_in_the_fewest_bits(size):
    generator = torch.Generator().manual_seed(size)
    bits = torch.randint(2, (50, size), generator=generator)
    found = concepts.Codes.of(bits, torch.arange(50))
    queries = torch.randint(2, (7, size), generator=generator)
    indices, distances = found.nearest(queries, 5)
    expected = (bits[None] != queries[:, None]).sum(2)
    assert torch.equal(distances, expected.sort(dim=1, stable=True).values[:, :5])
    assert torch.equal(expected.gather(1, indices), distances)
    nearest, _ = found.nearest(queries[3].bool(), 5)
    assert torch.equal(nearest, indices[3])


def test_codes_are_written(tmp_path):
    found = concepts.Codes.of(torch.eye(70), torch.arange(70))
    found.save(tmp_path / "codes.npz")
    with np.load(tmp_path / "codes.npz") as archive:
        np.testing.assert_array_equal(archive["bits"], np.eye(70, dtype=bool))
        np.testing.assert_array_equal(archive["labels"], np.arange(70))
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    found.save(tmp_path / "codes.parquet")
    table = parquet.read_table(tmp_path / "codes.parquet").to_pydict()
    assert table["label"] == list(range(70))
    assert table["concept_69"] == [False] * 69 + [True]


def test_codes_for_pyc():
    pytest.importorskip("torch_concepts", reason="pytorch-concepts is not installed")
    found = concepts.Codes.of(torch.eye(3), torch.arange(3)).to_pyc()
    assert found["concept_1"].tensor.flatten().tolist() == [0.0, 1.0, 0.0]


def test_a_missing_pyc_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_concepts", None)
    with pytest.raises(ImportError, match=r'torch_concepts is not installed; pip install ".\[pyc\]"'):
        concepts.Codes.of(torch.eye(3), torch.arange(3)).to_pyc()


def test_class_weights_are_in_order(trained):
    found = concepts.class_weights(trained, 4)
    assert sorted(found) == list(range(N_CONCEPTS))
    assert list(found.values()) == sorted(found.values(), key=lambda value: -abs(value))
    assert all(value == trained.head.weight[4, number].item() for number, value in found.items())


def test_examples_are_the_extremes(trained, loaders):
    x = torch.cat([x for x, _ in loaders[2]])
    potentials = trained.eval().potentials(x).detach()[:, 3]
    found = concepts.examples(trained, loaders[2], k=5)[3]
    assert len(concepts.examples(trained, loaders[2])) == N_CONCEPTS
    assert potentials[found["strongest"]].min() >= potentials.sort(descending=True).values[4] - 1e-5
    assert potentials[found["weakest"]].max() <= potentials.sort().values[4] + 1e-5
    assert potentials[found["at the threshold"]].abs().max() <= potentials.abs().sort().values[4] + 1e-5
    assert len(set(found["random"])) == 5


def test_torchvision_backbones_work_unchanged():
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    backbone = torchvision.models.squeezenet1_1(num_classes=7)
    model = models.ICBM(backbone.features, N_CONCEPTS, N_CLASSES)  # the number of channels comes from the first input
    x, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 1, 2, 9])
    torch.nn.functional.cross_entropy(model(x), labels).backward()
    assert model.concept_layer.projection.weight.shape == (N_CONCEPTS, 512)
    assert next(backbone.parameters()).grad.abs().sum() > 0


def test_timm_backbones_work_unchanged():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = models.ICBM(timm.create_model("resnet10t", num_classes=0), N_CONCEPTS, N_CLASSES)
    assert model.eval()(torch.rand(2, 3, 64, 64)).shape == (2, N_CLASSES)


def test_profiles_by_hand():
    bits = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
    codes = concepts.Codes.of(bits, torch.tensor([0, 0, 2, 2]))
    profiles = concepts.profiles(codes, 3, {"colour": torch.tensor([1, 0, 1, 0])})
    assert [profile["rate"] for profile in profiles] == [0.5, 0.5, 0.0]
    assert [profile["by_class"] for profile in profiles] == [[1.0, None, 0.0], [0.5, None, 0.5], [0.0, None, 0.0]]
    assert [profile["information"]["label"] for profile in profiles] == pytest.approx([1, 0, 0], abs=1e-9)
    assert [profile["information"]["colour"] for profile in profiles] == pytest.approx([0, 1, 0], abs=1e-9)


class Corner(nn.Module):
    """Sees only the upper left corner."""

    def forward(self, x):
        return x[:, :, :2, :2].flatten(1)


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_heat_maps_find_the_place(method):
    torch.manual_seed(0)
    model = models.ICBM(Corner(), 3, 2, in_features=4)
    model.concept_layer.projection.weight.data.fill_(1.0)
    image = torch.rand(1, 9, 7)
    image[0, :2, :2] = 5.0
    found = concepts.heat_map(model, image, 1, method, patch=2)
    assert found.shape == (9, 7)
    assert found[:2, :2].min() > 0
    assert found[3:, 3:].abs().max() == 0


def test_modes_are_restored_even_after_an_error():
    model = models.ICBM(nn.Sequential(nn.Flatten(), nn.Dropout().eval()), 4, 2, in_features=64).train()
    modes = [module.training for module in model.modules()]
    for make in (
        lambda: concepts.codes(model, [(None, None)]),
        lambda: concepts.explain(model, torch.rand(1, 3, 3)),
        lambda: concepts.heat_map(model, torch.rand(1, 3, 3), 1, patch=1),
        lambda: concepts.examples(model, [(None, None)]),
        lambda: training.evaluate(model, [(torch.rand(1, 1, 3, 3), torch.zeros(1).long())]),
        lambda: hardening.evaluate(model, *[[(torch.rand(2, 1, 3, 3), torch.zeros(2).long())]] * 2),
    ):
        with pytest.raises((AttributeError, TypeError, ValueError, RuntimeError)):
            make()
        assert modes == [module.training for module in model.modules()]
    concepts.codes(model, [(torch.rand(2, 1, 8, 8), torch.tensor([0, 1]))])
    assert modes == [module.training for module in model.modules()]


def test_the_curve_of_concepts_lies_above_chance(trained, loaders):
    curve = concepts.intervention_curve(trained, *(concepts.codes(trained, loaders[i]) for i in (0, 2)))
    assert curve["accuracy"][0] > curve["random"][0] + 0.3
    with pytest.raises(ValueError, match=r"^train, test: expected codes of 12 concepts, got 12 and 11"):
        codes = concepts.codes(trained, loaders[2])
        concepts.intervention_curve(trained, codes, concepts.Codes.of(codes[:][:, 1:], codes.labels))


def test_figures_of_a_trained_model(trained, loaders):
    attributes = {"odd": loaders[2].dataset.targets % 2}
    found = concepts.measure(trained, loaders[0], loaders[2], attributes)
    assert found["hardening_gap"] == pytest.approx(found["smooth_accuracy"] - found["hard_accuracy"])
    assert found["hard_accuracy"] > 0.6
    assert 1 <= found["effective_concepts"] <= N_CONCEPTS
    for name in ("redundancy", "purity", "completeness", "intervention_auc", "activation_rate"):
        assert 0 <= found[name] <= 1, name
    assert abs(found["leakage"]) < 0.5
    assert 0 < found["alignment"]["odd"] <= 1
    chance = found["chance"]
    assert 0 < chance["purity"] < found["purity"] and 0 < chance["information"] < found["information"]
    assert 0 < chance["alignment"]["odd"] < found["alignment"]["odd"]
    assert chance["intervention_auc"] < found["intervention_auc"]


def test_a_run_is_a_recipe(tmp_path, loaders):
    metrics = concepts.fit(new_model(), loaders[0], recipe=concepts.ConceptRun(epochs=1), out=tmp_path, progress=False)
    assert len(metrics) == 1


def test_an_explanation_holds_only_concepts_with_a_weight(copied):
    with torch.no_grad():
        copied.head.weight[:, 1:] = 0
    assert set(concepts.explain(copied, torch.rand(1, 8, 8)).contributions) <= {0}
