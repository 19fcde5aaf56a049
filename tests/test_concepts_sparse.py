"""Sparse heads: their support, their weights, rare classes, bad input."""
# ruff: noqa: F811  (fixtures from another file)

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_concepts import N_CONCEPTS, copied, loaders, trained  # noqa: F401
from torch import nn

from htaf_snn import concepts, models, training


@pytest.mark.parametrize("most", [1, 3, N_CONCEPTS])
def test_a_sparse_head_has_at_most_the_requested_weights(copied, loaders, most):
    """For every class, not only for the one that needs the most concepts."""
    dense = training.evaluate(copied, loaders[2])["accuracy"]
    path = concepts.sparsify(copied, loaders[0], most)
    support = (copied.head.weight != 0).sum(1)
    assert support.max() <= most
    assert support.min() >= min(most, 3) - (most > 1)
    for class_index in range(10):
        strengths = [step.strength for step in path if step.class_index == class_index]
        assert len(strengths) == 16 and strengths == sorted(strengths, reverse=True)
    assert path[0].n_concepts == 0
    accuracy = training.evaluate(copied, loaders[2])["accuracy"]
    assert accuracy > {1: 0.15, 3: dense - 0.3, N_CONCEPTS: dense - 0.05}[most]


@pytest.mark.parametrize("most", [3, N_CONCEPTS])
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


def test_a_rare_class_gets_its_concepts():
    """The search must not stop at a first fit that has not converged."""
    torch.manual_seed(1)
    model = models.ICBM(nn.Identity(), 256, 2, in_features=256).eval()
    nn.init.eye_(model.concept_layer.projection.weight)
    labels = (torch.arange(200) >= 195).long()
    path = concepts.sparsify(model, [(torch.randn(200, 256), labels)], 3)
    assert (model.head.weight != 0).sum(1).min() >= 2
    assert len({step.strength for step in path if step.class_index == 0}) == 16


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
