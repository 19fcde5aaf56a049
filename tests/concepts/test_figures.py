"""The figures of concepts: computed by hand, and compared with chance."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SubsetRandomSampler

from htaf_snn import concepts, models
from htaf_snn.concepts import measures
from neuromorphic_datasets import images

N_CLASSES = 10


@pytest.fixture(scope="module")
def loaders():
    return images.loaders("digits", batch_size=32)


def test_rules_agree_with_the_model():
    model = models.ICBM(nn.Flatten(), 4, 2, in_features=4)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [0, 2, 0, -5]]))
        model.head.bias.copy_(torch.tensor([1.0, 0.0]))
    bits = torch.tensor(list(itertools.product([0, 1], repeat=4)))
    labels = torch.zeros(16, dtype=torch.int64)
    codes = concepts.Codes.of(bits, labels)
    held_out = concepts.Codes.of(bits.flip(0)[:12], labels[:12])  # the model says yes to 4 of them
    found = concepts.rules(model, codes, held_out, 1)
    assert found.fidelity == 1.0 and found.baseline == 8 / 12
    assert found.concepts == (1, 3)
    assert "concept 3" in str(found) and "fidelity 1.000 on held-out images, 0.667 for a constant answer" in str(found)
    assert concepts.rules(model, codes, held_out, 1, depth=1).fidelity < 1


def test_rules_of_random_bits_are_no_better_than_their_baseline():
    """With a rare class that the bits do not determine, a deep tree memorises what does not hold for other images."""
    torch.manual_seed(0)
    model = models.ICBM(nn.Flatten(), 30, 2, in_features=4)
    with torch.no_grad():
        model.head.weight.copy_(torch.stack([torch.zeros(30), torch.ones(30)]))
        model.head.bias.copy_(torch.tensor([18.5, 0.0]))
    bits, labels = torch.randint(2, (600, 30)), torch.zeros(600, dtype=torch.int64)
    train, test = (concepts.Codes.of(bits[part], labels[part]) for part in (slice(200), slice(200, None)))
    found = concepts.rules(model, train, test, 1, depth=8)
    assert 0.8 < found.baseline < 0.95
    assert found.fidelity < found.baseline + 0.02
    with pytest.raises(ValueError, match=r"^held_out: expected images other than those of codes, got the same"):
        concepts.rules(model, train, concepts.Codes.of(bits[:200], labels[:200]), 1)
    with pytest.raises(ValueError, match=r"^held_out: .* got the same, possibly reordered"):
        concepts.rules(model, train, concepts.Codes.of(bits[:200].flip(0), labels[:200]), 1)
    with pytest.raises(ValueError, match=r"^held_out: expected codes \(N, 30\) of images, got \(600, 29\)"):
        concepts.rules(model, train, concepts.Codes.of(bits[:, 1:], labels), 1)


def test_figures_by_hand(loaders):
    model = models.ICBM(nn.Flatten(), 4, 2, in_features=64)
    bits = np.array([[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]], bool)
    found = measures._correlated(bits)
    assert found == {"effective_concepts": pytest.approx(1, abs=1e-4), "redundancy": pytest.approx(1)}
    assert measures._purity(bits, np.array([0, 0, 1, 1]), 2) == pytest.approx((1 + 1 + 0.5) / 3)
    codes = concepts.Codes.of(torch.from_numpy(bits), torch.tensor([0, 0, 1, 1]))
    assert measures._completeness(codes, codes) == 1.0
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[-1.0, 0, 0, 0], [1, 0, 0, 0]]))
        model.head.bias.zero_()
    # Set to the usual values of their class, the first two stay wrong; the others score 0 and 0, a draw.
    curve = concepts.intervention_curve(model, codes, codes)
    assert curve["set"] == [0, 1, 2, 3, 4]
    assert curve["accuracy"] == [0.0] * 5


def test_the_heaviest_concept_is_set_first():
    """The image lacks both concepts of its class; the heavier one suffices, the lighter does not."""
    model = models.ICBM(nn.Flatten(), 2, 2, in_features=64)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0, 3.0], [0.0, 0.0]]))
        model.head.bias.copy_(torch.tensor([0.0, 2.0]))
    found = concepts.Codes.of(torch.tensor([[1, 1], [1, 1], [0, 0]]), torch.zeros(3, dtype=torch.int64))
    assert concepts.intervention_curve(model, found, found)["accuracy"] == pytest.approx([2 / 3, 1, 1])


def test_figures_of_random_bits_are_those_of_chance(loaders):
    """A head that has memorised random bits follows the class that interventions reveal; so does the baseline."""
    generator = torch.Generator().manual_seed(0)
    labels = [torch.cat([labels for _, labels in loader]) for loader in (loaders[0], loaders[2])]
    train, test = (concepts.Codes.of(torch.randint(2, (len(part), 64), generator=generator), part) for part in labels)
    model = models.ICBM(nn.Flatten(), 64, N_CLASSES, in_features=64)
    weight, bias = measures._fitted(train, N_CLASSES)
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    curve = concepts.intervention_curve(model, train, test)
    assert np.mean(curve["accuracy"]) > 0.8 and curve["accuracy"][0] < 0.2
    assert np.mean(curve["random"]) == pytest.approx(np.mean(curve["accuracy"]), abs=0.05)
    of_bits, of_chance = (measures._of_labels(codes, N_CLASSES, {}) for codes in (test, measures._shuffled(test)))
    assert of_bits["purity"] == pytest.approx(of_chance["purity"], abs=0.01) and of_bits["purity"] > 0.1
    assert of_bits["information"] == pytest.approx(of_chance["information"], abs=0.005) and of_bits["information"] > 0


def test_stability_matches_concepts_one_to_one():
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (400, 6), generator=generator)
    labels = torch.zeros(400, dtype=torch.int64)
    same = concepts.Codes.of(1 - bits[:, [3, 0, 5, 1, 2, 4]], labels)  # in another order, and negated
    other = concepts.Codes.of(torch.randint(2, (400, 6), generator=generator), labels)
    codes = concepts.Codes.of(bits, labels)
    assert concepts.stability([codes, same])["stability"] == pytest.approx(1)
    assert concepts.stability([codes, other])["stability"] < 0.2
    assert concepts.stability([codes, same, other])["stability"] < 0.5
    found = concepts.stability([codes, other])
    assert 0 < found["chance"] == pytest.approx(found["stability"], abs=0.05)
    with pytest.raises(ValueError, match=r"^codes: expected the same images"):
        concepts.stability([codes, concepts.Codes.of(bits, labels + 1)])


def test_stability_of_real_features():
    """Scale, sign and order do not count; a tensor of bits agrees as its codes do."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=generator)
    same = 3 - 2 * features[:, [3, 0, 5, 1, 2, 4]]
    assert concepts.stability([features, same])["stability"] == pytest.approx(1)
    found = concepts.stability([features, torch.randn(400, 6, generator=generator)])
    assert 0 < found["chance"] == pytest.approx(found["stability"], abs=0.05)
    constant = torch.cat([features.double(), torch.full((400, 1), 0.3, dtype=torch.float64)], 1)
    assert concepts.stability([constant, constant])["stability"] == pytest.approx(6 / 7)
    labels = torch.zeros(400, dtype=torch.int64)
    bits = [features > 0, same > 3]
    assert concepts.stability(bits) == concepts.stability([concepts.Codes.of(part, labels) for part in bits])
    for wrong in ([features, same[:9]], [features[0], features[0]]):
        with pytest.raises(ValueError, match=r"^codes: expected two or more of the same shape \(N, K\), got"):
            concepts.stability(wrong)
    with pytest.raises(ValueError, match=r"^codes: expected finite features"):
        concepts.stability([features, features / 0])


def measured(potentials, labels, part=1000):
    """The figures of a model whose concepts have the given potentials."""
    model = models.ICBM(nn.Identity(), potentials.shape[1], int(labels.max()) + 1, in_features=potentials.shape[1])
    nn.init.eye_(model.concept_layer.projection.weight)
    model.concept_layer.activation.surrogate.hardness = 1.0  # so that the statistics of BatchNorm stay 0 and 1
    train, test = ([(potentials[i], labels[i])] for i in (slice(part), slice(part, None)))
    return concepts.measure(model.eval(), train, test)


def test_potentials_without_more_than_their_bits_do_not_leak():
    """The bits tell the class but for noise; the potentials' magnitudes are random."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (6000,), generator=generator)
    bits = (torch.randn(6000, 20, generator=generator) + torch.randn(4, 20, generator=generator)[labels]) > 0
    magnitudes = torch.rand(6000, 20, generator=generator)
    found = measured(torch.where(bits, magnitudes, -magnitudes), labels, 3000)
    assert 0.3 < found["completeness"] < 0.9 and abs(found["leakage"]) < 0.01


def test_potentials_with_the_class_leak():
    """Four concepts are always on, and stronger in their class; the bits of four others are random."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (2000,), generator=generator)
    telling = torch.rand(2000, 4, generator=generator) + nn.functional.one_hot(labels, 4)
    found = measured(torch.cat([telling, torch.randn(2000, 4, generator=generator)], 1), labels)
    assert found["always_on"] == 4 and found["leakage"] > 0.6


def test_leakage_is_measured_on_ten_thousand_images_at_most(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(measures, "_PROBED", 500)
    sizes, probed = [], measures._probed

    def counting(inputs, labels, test_inputs, test_labels):
        sizes.append((inputs.shape, test_inputs.shape))
        return probed(inputs, labels, test_inputs, test_labels)

    monkeypatch.setattr(measures, "_probed", counting)
    potentials, labels = torch.randn(1600, 3, generator=generator), torch.arange(1600) % 2
    first = measured(potentials, labels)["leakage"]
    assert sizes == [((500, 3), (500, 3)), ((500, 6), (500, 6))]
    assert measured(potentials, labels)["leakage"] == first


def test_leakage_of_one_class_or_real_concepts_is_none(loaders):
    assert (
        measured(torch.randn(20, 3), torch.zeros(20, dtype=torch.int64) + torch.arange(20).eq(19), 10)["leakage"]
        is None
    )
    relu = models.ICBM(nn.Flatten(), 4, N_CLASSES, in_features=64, surrogate="relu")
    assert concepts.measure(relu, loaders[0], loaders[2])["leakage"] is None


def random_orders(data):
    order = SubsetRandomSampler(range(len(data)))
    yield DataLoader(data, 64, shuffle=True)
    yield DataLoader(data, 64, sampler=order)
    yield DataLoader(data, batch_sampler=BatchSampler(order, 64, False))


def test_examples_and_attributes_need_the_order_of_the_data(loaders):
    train, _, test = loaders
    model = models.ICBM(nn.Flatten(), 4, N_CLASSES, in_features=64)
    attributes = {"label": test.dataset.targets}
    for shuffled in (train, *random_orders(test.dataset)):
        with pytest.raises(ValueError, match=r"^loader: expected samples in the order of the data for attributes, got"):
            concepts.measure(model, train, shuffled, attributes)
        with pytest.raises(ValueError, match=r"^loader: .* for the places of the images, .* write DataLoader"):
            concepts.examples(model, shuffled)
    assert len(concepts.examples(model, test)) == 4
    assert concepts.measure(model, train, test, attributes)["alignment"].keys() == {"label"}


@pytest.mark.parametrize("wrong", [2.5, True, -1, 10, None, "1"])
def test_numbers_of_classes_and_concepts(wrong):
    model = models.ICBM(nn.Flatten(), N_CLASSES, N_CLASSES, in_features=4).eval()
    codes = concepts.Codes.of(torch.eye(10), torch.arange(10))
    image = torch.rand(1, 2, 2)
    uses = {
        "class_index": [
            lambda: concepts.class_weights(model, wrong),
            lambda: concepts.rules(model, codes, codes, wrong),
        ],
        "concept": [lambda: concepts.heat_map(model, image, wrong, patch=1)],
    }
    if wrong is not None:  # None is the predicted class
        uses["class_index"].append(lambda: concepts.explain(model, image, wrong))
    for name, calls in uses.items():
        for call in calls:
            with pytest.raises(ValueError, match=f"^{name}: expected 0 to 9, got {wrong!r}"):
                call()
    assert concepts.explain(model, image, torch.tensor(3)).class_index == 3
    if wrong != 10:
        with pytest.raises(ValueError, match=r"^max_concepts_per_class: expected 1 to 10, got"):
            concepts.sparsify(model, [(torch.rand(8, 1, 2, 2), torch.arange(8))], wrong)
