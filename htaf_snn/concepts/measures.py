"""Figures of a concept bottleneck model, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .. import training
from ..models import ICBM
from ..nn._batches import check_in_order
from .codes import Codes, codes
from .explaining import mutual_information, profiles

__all__ = ["intervention_curve", "measure", "stability"]

_ALWAYS = 0.99


def measure(model: ICBM, train_loader, loader, attributes: dict[str, Tensor] | None = None) -> dict:
    """All figures of a trained model on the images of a loader.

    Args:
        model: trained; BatchNorm layers keep the statistics of the hard network, as of `training.evaluate_hard`.
        train_loader: of the training images.
        loader: of those to measure on.
        attributes: further labels of the loader's images, int64 (N,) each.

    Returns:
        {"hard_accuracy", "smooth_accuracy" and "hardening_gap" (None if training was not smooth), "dead": concepts that
        are 1 for none of the loader's images, "always_on": those that are 1 for 99 % of them or more,
        "activation_rate": the mean of all bits, "effective_concepts": the exponential of the entropy of the eigenvalues
        of their correlations, "redundancy": mean |correlation| of two concepts, "purity": mean over concepts of the
        share of their most frequent class (None if all are dead), "completeness": accuracy of a tree over the bits
        above the share of the largest class, as part of what is possible (None if there is one class alone),
        "intervention_auc": mean of the accuracies of `intervention_curve` (None for real concepts), "information": mean
        mutual information with the labels in bits, "alignment": for each attribute the largest mutual information of a
        concept with it, as part of the attribute's entropy, "chance": {"purity", "information", "alignment",
        "intervention_auc"} of bits that know nothing of their images, those of other images drawn by chance}.

        What is no more than its "chance" is no finding: none of the four is 0 for random bits.

    Raises:
        ValueError: if a loader is empty, an attribute has another number of values than there are images, or there are
            attributes and the loader shuffles its images.

    Reference:
        Roy and Vetterli 2007, "The effective rank", EUSIPCO, for "effective_concepts"; Yeh et al. 2020, "On
        completeness-aware concept-based explanations in deep neural networks", NeurIPS, for "completeness", here with a
        tree over bits.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=4, n_classes=2, in_features=16)
        >>> loader = [(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)]
        >>> figures = measure(model, loader, loader)
        >>> 0 <= figures["activation_rate"] <= 1, 0 <= figures["dead"] <= 4
        (True, True)
        >>> figures["hardening_gap"] == figures["smooth_accuracy"] - figures["hard_accuracy"]
        True
        >>> sorted(figures["chance"])
        ['alignment', 'information', 'intervention_auc', 'purity']
    """
    if attributes:
        check_in_order(loader, "attributes")
    hard = training.evaluate_hard(model, train_loader, loader)
    train, own = codes(model, train_loader), codes(model, loader)
    bits, classes = own.numpy(), model.head.out_features
    rates = bits.mean(0)
    curve = intervention_curve(model, train, own) if model.is_binary else None
    auc, random_auc = (curve and float(np.mean(curve[name])) for name in ("accuracy", "random"))
    return {
        "hard_accuracy": hard["accuracy"],
        "smooth_accuracy": hard.get("smooth_accuracy"),
        "hardening_gap": hard.get("hardening_gap"),
        "dead": int((rates == 0).sum()),
        "always_on": int((rates >= _ALWAYS).sum()),
        "activation_rate": float(rates.mean()),
        **_correlated(bits),
        "completeness": _completeness(train, own),
        "intervention_auc": auc,
        **_of_labels(own, classes, attributes or {}),
        "chance": {"intervention_auc": random_auc, **_of_labels(_shuffled(own), classes, attributes or {})},
    }


def _shuffled(own: Codes) -> Codes:
    """The same codes, each at an image drawn by chance."""
    return replace(own, words=own.words[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))])


def _of_labels(own: Codes, classes: int, attributes: dict[str, Tensor]) -> dict:
    """The figures that ask what the bits have to do with labels."""
    concepts = profiles(own, classes, attributes)
    return {
        "purity": _purity(own.numpy(), own.labels.numpy(), classes),
        "information": float(np.mean([one["information"]["label"] for one in concepts])),
        "alignment": {
            name: max(one["information"][name] for one in concepts) / max(mutual_information(values, values), 1e-12)
            for name, values in ((name, np.asarray(values)) for name, values in attributes.items())
        },
    }


def _correlated(bits: np.ndarray) -> dict[str, float]:
    varying = bits[:, bits.std(0) > 0]
    if varying.shape[1] < 2:
        return {"effective_concepts": float(varying.shape[1]), "redundancy": 0.0}
    correlations = np.corrcoef(varying.T)
    shares = np.clip(np.linalg.eigvalsh(correlations), 1e-12, None)
    shares /= shares.sum()
    off = ~np.eye(len(correlations), dtype=bool)
    return {
        "effective_concepts": float(np.exp(-(shares * np.log(shares)).sum())),
        "redundancy": float(np.abs(correlations[off]).mean()),
    }


def _purity(bits: np.ndarray, labels: np.ndarray, classes: int) -> float | None:
    shares = [np.bincount(labels[column], minlength=classes).max() / column.sum() for column in bits.T if column.any()]
    return float(np.mean(shares)) if shares else None


def _completeness(train: Codes, test: Codes) -> float | None:
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0).fit(train.numpy(), train.labels.numpy())
    chance = np.bincount(test.labels.numpy()).max() / len(test)
    accuracy = tree.score(test.numpy(), test.labels.numpy())
    return float((accuracy - chance) / (1 - chance)) if chance < 1 else None


@torch.no_grad()
def intervention_curve(model: ICBM, train: Codes, test: Codes) -> dict[str, list]:
    """Accuracy when more and more concepts of each image are set to what is usual in its true class.

    For each image the concepts are set in the order of the magnitude of the weight that its true class gives them. This
    uses the true class, so that even random bits reach a high accuracy if a head has memorised them. "random" is
    therefore the same for bits of other images drawn by chance, with a head fitted to those of the training by least
    squares. What the concepts know lies between the two curves.

    Args:
        model: whose head decides.
        train: codes of the training images, which show what is usual in a class.
        test: codes of the images to measure on.

    Returns:
        {"set": 0, 1, 2, … concepts, "accuracy": with so many set, "random"}.

    Raises:
        ValueError: if the concepts are not 0 or 1, or the codes are of different sizes.

    Reference:
        Koh et al. 2020, "Concept bottleneck models", ICML, for interventions at test time.

    Example:
        Each class has its concept; the last image lacks that of its class.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=2, n_classes=2, in_features=16)
        >>> _, _ = model.head.weight.data.copy_(torch.eye(2)), model.head.bias.data.zero_()
        >>> train = Codes.of(torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 1]))
        >>> test = Codes.of(torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0]]), torch.tensor([0, 0, 1, 1]))
        >>> intervention_curve(model, train, test)["accuracy"]
        [0.75, 0.75, 1.0]
    """
    model.check_binary()
    classes = model.head.out_features
    if {train.size, test.size} != {model.head.in_features}:
        expected = f"codes of {model.head.in_features} concepts"
        raise ValueError(f"train, test: expected {expected}, got {train.size} and {test.size}")
    head = model.head.weight.detach().double().cpu(), model.head.bias.detach().double().cpu()
    random = _shuffled(train)
    return {
        "set": list(range(test.size + 1)),
        "accuracy": _intervened(*head, train, test),
        "random": _intervened(*_fitted(random, classes), random, _shuffled(test)),
    }


def _fitted(train: Codes, classes: int) -> tuple[Tensor, Tensor]:
    """Weights and biases of a head fitted to codes by least squares."""
    inputs = torch.cat([train[:].double(), torch.ones(len(train), 1, dtype=torch.float64)], 1)
    targets = torch.nn.functional.one_hot(train.labels, classes).double()
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.T
    return solution[:, :-1], solution[:, -1]


def _intervened(weight: Tensor, bias: Tensor, train: Codes, test: Codes) -> list[float]:
    """The accuracies of `intervention_curve` with a head's weights (classes, K) and biases."""
    members = torch.nn.functional.one_hot(train.labels, len(weight)).double()
    rates = members.T @ train[:].double() / members.sum(0).clamp(min=1)[:, None]
    usual, labels = rates.gt(0.5).double(), test.labels
    order = weight.abs().argsort(dim=1, descending=True, stable=True)[labels]
    accuracies, current = [], test[:].double()
    for count in range(test.size + 1):
        decided = (current @ weight.T + bias).argmax(1)
        accuracies.append((decided == labels).double().mean().item())
        if count < test.size:
            chosen = order[:, count : count + 1]
            current.scatter_(1, chosen, usual[labels].gather(1, chosen))
    return accuracies


def stability(several: Sequence[Codes]) -> dict[str, float]:
    """How much the concepts of models of different seeds agree: mean |correlation| of concepts matched one to one.

    Args:
        several: the codes of the same images by two models or more, with the same number of concepts.

    Returns:
        {"stability": from 0 to 1, the mean over all pairs of models, each matched by the Hungarian method; "chance":
        the same where one of each pair has the bits of other images, drawn by chance, which is not 0 as the best match
        of many is chosen}.

    Raises:
        ValueError: if there are fewer than two, or of different shapes or images.

    Example:
        The same concepts in another order, and one of them negated, agree fully.

        >>> bits, labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]), torch.zeros(4, dtype=torch.int64)
        >>> again = torch.stack([bits[:, 2], 1 - bits[:, 0], bits[:, 1]], 1)
        >>> round(stability([Codes.of(bits, labels), Codes.of(again, labels)])["stability"], 6)
        1.0
    """
    if len(several) < 2 or len({one.shape for one in several}) > 1:
        raise ValueError(f"several: expected codes of one shape, two or more, got {[one.shape for one in several]}")
    if not all(torch.equal(one.labels, several[0].labels) for one in several):
        raise ValueError("several: expected codes of the same images in the same order, got other labels")
    pairs = [(one, other) for i, one in enumerate(several) for other in several[:i]]
    return {
        "stability": float(np.mean([_agreement(one, other) for one, other in pairs])),
        "chance": float(np.mean([_agreement(_shuffled(one), other) for one, other in pairs])),
    }


def _agreement(one: Codes, other: Codes) -> float:
    from scipy.optimize import linear_sum_assignment

    a, b = (_standardised(side.numpy()) for side in (one, other))
    correlations = np.abs(a.T @ b) / len(one)
    return float(correlations[linear_sum_assignment(-correlations)].mean())


def _standardised(bits: np.ndarray) -> np.ndarray:
    deviations = bits - bits.mean(0)
    spread = deviations.std(0)
    return deviations / np.where(spread > 0, spread, 1)
