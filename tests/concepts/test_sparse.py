"""Sparse heads: their support, their weights, rare classes, bad input."""

import warnings

import numpy as np
import pytest
import torch
from concept_models import N_CONCEPTS
from sklearn.linear_model import LogisticRegression
from torch import nn

from htaf_snn import concepts, models, training
from htaf_snn.concepts import sparse


def correlated(size, n=600, seed=0):
    """Real features that depend on each other, and labels that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    causes = torch.randn(n, 4, generator=generator)
    features = causes @ torch.randn(4, size, generator=generator) + torch.randn(n, size, generator=generator)
    return features, (causes + 0.5 * torch.randn(n, 4, generator=generator)).argmax(1)


@pytest.mark.parametrize("most", [1, 3, pytest.param(N_CONCEPTS, marks=pytest.mark.thorough)])
def test_a_sparse_head_has_at_most_the_requested_weights(copied, loaders, most):
    """For every class, not only for the one that needs the most concepts."""
    dense = training.evaluate(copied, loaders[2])["accuracy"]
    path = concepts.sparsify(copied, loaders[0], most)
    support = (copied.head.weight != 0).sum(1)
    assert support.max() <= most
    assert support.min() >= min(most, 3) - (most > 1)
    for class_index in range(10):
        steps = [step for step in path if step.class_index == class_index]
        strengths = [step.strength for step in steps]
        assert 2 <= len(strengths) <= 25 and strengths == sorted(strengths, reverse=True)
        assert steps[0].n_concepts == 0 and most in [step.n_concepts for step in steps]
    accuracy = training.evaluate(copied, loaders[2])["accuracy"]
    assert accuracy > {1: 0.15, 3: dense - 0.3, N_CONCEPTS: dense - 0.05}[most]


@pytest.mark.parametrize("most", [3, pytest.param(N_CONCEPTS, marks=pytest.mark.thorough)])
def test_the_weights_of_a_sparse_head_are_those_of_multinomial_regression(copied, loaders, most):
    """No other values of the selected weights lower the loss with scikit-learn's penalty."""
    concepts.sparsify(copied, loaders[0], most)
    found = concepts.codes(copied, loaders[0])
    bits, labels = found[:].double(), found.labels
    weight, bias = (p.detach().double().requires_grad_() for p in (copied.head.weight, copied.head.bias))
    loss = nn.functional.cross_entropy(bits @ weight.T + bias, labels) + weight.square().sum() / (2 * len(bits))
    slope, rise = torch.autograd.grad(loss, (weight, bias))
    assert slope[weight != 0].abs().max() < 1e-4 and rise.abs().max() < 1e-4
    if most == N_CONCEPTS:
        expected = LogisticRegression(tol=1e-10, max_iter=10_000).fit(bits.numpy(), labels.numpy())
        np.testing.assert_allclose(weight.detach(), expected.coef_, atol=2e-3)


def test_a_sparse_head_selects_the_concepts_that_determine_its_class():
    """One concept determines each class; a fourth is noise."""
    potentials = torch.tensor([[1.0, -1, -1, 1], [-1, 1, -1, 1], [-1, -1, 1, -1]]).repeat(20, 1)
    potentials[::2, 3] *= -1
    model = models.ICBM(nn.Identity(), 4, 3, in_features=4).eval()
    nn.init.eye_(model.concept_layer.projection.weight)
    concepts.sparsify(model, [(potentials, torch.arange(60) % 3)], 1)
    assert (model.head.weight != 0).tolist() == torch.eye(3, 4).bool().tolist()
    assert (model.head.weight.diagonal() > 0).all()


def test_concepts_that_never_vary_leave_no_weights(copied, loaders):
    for value in (-1.0, 1.0):
        nn.init.zeros_(copied.concept_layer.norm.weight)
        nn.init.constant_(copied.concept_layer.norm.bias, value)
        with pytest.warns(UserWarning, match="^no weight is left for class 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"):
            assert concepts.sparsify(copied, loaders[0], 3) == []
        assert not copied.head.weight.any() and copied.head.bias.isfinite().all()


@pytest.mark.parametrize("strength", [40.0, 10.0, 1.0])
@pytest.mark.parametrize("real", [True, False])
def test_a_fit_is_that_of_scikit_learn(strength, real):
    """From zero and from the weights of other penalties, with the weights that SAGA leaves after many iterations."""
    features, labels = correlated(80)
    features, target = (features if real else features > 0).double().numpy(), (labels == 2).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = LogisticRegression(
            l1_ratio=1.0, C=1 / strength, solver="saga", tol=1e-8, max_iter=20_000, random_state=0
        ).fit(features, target)
    weight, bias = np.zeros(80), 0.0
    for start in (strength, 2 * strength, strength, strength / 2, strength):
        weight, bias = sparse._fitted(features, target, start, weight, bias)
        if start == strength:
            np.testing.assert_allclose(weight, expected.coef_[0], atol=2e-3)
            assert bias == pytest.approx(expected.intercept_[0], abs=2e-3)
            clear = np.abs(expected.coef_[0]) > 2e-3
            assert weight[clear].all() and np.count_nonzero(weight) - clear.sum() <= 2


def test_the_search_stops_at_the_requested_number(monkeypatch):
    """Exactly as many weights as allowed are what was asked for; a further penalty would cost a fit for nothing."""
    features, labels = correlated(80)
    fits, fitted = [], sparse._fitted
    monkeypatch.setattr(sparse, "_fitted", lambda *arguments: fits.append(1) or fitted(*arguments))
    path = concepts.sparse_head(features, labels, 4, 5, steps=40, progress=False).path
    assert len(fits) == len(path) - 4  # none for the strongest penalty, at which all weights are 0
    for class_index in range(4):
        counts = [step.n_concepts for step in path if step.class_index == class_index]
        assert counts.count(5) == 1 and len(counts) <= 10


def test_the_search_stops_where_no_penalty_leaves_the_number():
    """Two equal concepts get a weight at the same penalty, so that none leaves one; then the first is kept."""
    bits = (torch.rand(300, 1, generator=torch.Generator().manual_seed(0)) > 0.5).repeat(1, 2)
    head = concepts.sparse_head(bits, bits[:, 0].long(), 2, 1, steps=100, progress=False)
    counts = [step.n_concepts for step in head.path if step.class_index == 0]
    assert set(counts) == {0, 1, 2} and counts.count(1) == 1 and 12 < len(counts) < 20
    assert (head.weight != 0).tolist() == [[True, False]] * 2


def test_steps_limit_the_search():
    features, labels = correlated(80)
    path = concepts.sparse_head(features, labels, 4, 80, steps=3, progress=False).path
    assert len(path) == 12


def test_the_progress_bar_counts_the_classes(capsys):
    features, labels = correlated(20)
    concepts.sparse_head(features, labels, 4, 3, progress=False)
    assert capsys.readouterr().err == ""
    concepts.sparse_head(features, labels, 4, 3)
    shown = capsys.readouterr().err
    assert "sparse head: 100%" in shown and "4/4" in shown and "class 3, 3 weights" in shown


def test_the_progress_bar_of_sparsify_can_be_hidden(copied, loaders, capsys):
    concepts.sparsify(copied, loaders[0], 3, progress=False)
    assert capsys.readouterr().err == ""
    concepts.sparsify(copied, loaders[0], 3)
    assert "10/10" in capsys.readouterr().err


def test_a_sparse_head_of_real_features_and_of_bits_is_one():
    """Sparsify selects on bits what the head selects on the same numbers."""
    features, labels = correlated(12)
    model = models.ICBM(nn.Identity(), 12, 4, in_features=12).eval()
    nn.init.eye_(model.concept_layer.projection.weight)
    head = concepts.sparse_head((features > 0).float(), labels, 4, 3, progress=False)
    assert concepts.sparsify(model, [(features, labels)], 3, progress=False) == head.path
    torch.testing.assert_close(model.head.weight.double(), head.weight, atol=1e-5, rtol=1e-5)
    real = concepts.sparse_head(features, labels, 4, 3, progress=False)
    accuracies = [
        ((x.double() @ found.weight.T + found.bias).argmax(1) == labels).double().mean()
        for x, found in ((features, real), (features > 0, head))
    ]
    assert accuracies[0] > accuracies[1] > 0.5


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.full((4, 2), torch.nan), torch.arange(4) % 2, r"^features: expected finite values \(N, K\)"),
        (torch.ones(4), torch.arange(4) % 2, r"^features: expected finite values \(N, K\), got shape \(4,\)"),
        (torch.ones(4, 2), torch.arange(4), r"^labels: expected 0 to 1, got 0 to 3"),
        (torch.ones(5, 2), torch.arange(4) % 2, r"^labels: expected 5, one per row of features, got 4"),
        (torch.ones(4, 2), torch.zeros(4).long(), r"^labels: expected two classes or more, got only \[0\]"),
    ],
)
def test_a_sparse_head_refuses_wrong_input(features, labels, message):
    with pytest.raises(ValueError, match=message):
        concepts.sparse_head(features, labels, 2, 1)


def test_a_rare_class_gets_its_concepts():
    """The search must not stop at a first fit that has not converged."""
    torch.manual_seed(1)
    model = models.ICBM(nn.Identity(), 256, 2, in_features=256).eval()
    nn.init.eye_(model.concept_layer.projection.weight)
    labels = (torch.arange(200) >= 195).long()
    concepts.sparsify(model, [(torch.randn(200, 256), labels)], 3)
    assert (model.head.weight != 0).sum(1).min() >= 2


def test_a_class_without_weights_is_named(copied, loaders):
    with pytest.warns(UserWarning, match="^no weight is left for class 0, 1, 2"):
        concepts.sparsify(copied, loaders[0], 3, steps=1)


def test_a_sparse_head_of_two_classes(copied):
    """A class without images is never predicted; the two that have some are."""
    torch.manual_seed(0)
    labels = torch.arange(40) % 2 * 4 + 3  # classes 3 and 7
    x = torch.rand(40, 1, 8, 8) * torch.where(labels == 7, 1.0, 0.1).view(-1, 1, 1, 1)
    concepts.sparsify(copied, [(x, labels)], 12)
    decided = copied.eval()(x).argmax(1)
    assert (decided == labels).float().mean() > 0.9 and set(decided.tolist()) == {3, 7}


@pytest.mark.parametrize("labels", [torch.full((5,), 12), torch.full((5,), -1), torch.rand(5)])
def test_sparsify_refuses_labels_that_do_not_fit(copied, labels):
    before = copied.head.weight.clone()
    with pytest.raises(ValueError, match=r"^labels: expected (0 to 9|class numbers, int64 \(B,\)), got"):
        concepts.sparsify(copied, [(torch.rand(5, 1, 8, 8), labels)], 3)
    assert torch.equal(before, copied.head.weight)
