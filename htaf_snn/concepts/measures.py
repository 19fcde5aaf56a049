"""Figures of a concept bottleneck model, for JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .. import training
from ..models import ICBM
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
        are never 1, "always_on": those that are 1 for 99 % of the images or more, "activation_rate": the mean of all
        bits, "effective_concepts": the exponential of the entropy of the eigenvalues of their correlations,
        "redundancy": mean |correlation| of two concepts, "purity": mean over concepts of the share of their most
        frequent class (None if all are dead), "completeness": accuracy of a tree over the bits above the share of the
        largest class, as part of what is possible (None if there is one class alone), "intervention_auc": mean of
        `intervention_curve` (None for real concepts), "information": mean mutual information with the labels in bits,
        "alignment": for each attribute the largest mutual information of a concept with it, as part of the attribute's
        entropy}.

    Raises:
        ValueError: if a loader is empty, or an attribute has another number of values than there are images.

    Reference:
        Roy and Vetterli 2007, "The effective rank", EUSIPCO, for "effective_concepts"; Yeh et al. 2020, "On
        completeness-aware concept-based explanations in deep neural networks", NeurIPS, for "completeness", here with a
        tree over bits.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=4, n_classes=2, in_features=16)
        >>> loader = [(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)]
        >>> found = measure(model, loader, loader)
        >>> 0 <= found["activation_rate"] <= 1, 0 <= found["dead"] <= 4
        (True, True)
        >>> found["hardening_gap"] == found["smooth_accuracy"] - found["hard_accuracy"]
        True
    """
    found = training.evaluate_hard(model, train_loader, loader)
    own = codes(model, loader)
    bits, labels = own.numpy(), own.labels.numpy()
    rates = bits.mean(0)
    told = profiles(own, model.head.out_features, attributes)
    return {
        "hard_accuracy": found["accuracy"],
        "smooth_accuracy": found.get("smooth_accuracy"),
        "hardening_gap": found.get("hardening_gap"),
        "dead": int((rates == 0).sum()),
        "always_on": int((rates >= _ALWAYS).sum()),
        "activation_rate": float(rates.mean()),
        **_correlated(bits),
        "purity": _purity(bits, labels, model.head.out_features),
        "completeness": _completeness(codes(model, train_loader), own),
        "intervention_auc": float(np.mean(intervention_curve(model, own)["accuracy"])) if model.is_binary else None,
        "information": float(np.mean([one["information"]["label"] for one in told])),
        "alignment": {
            name: max(one["information"][name] for one in told) / max(mutual_information(values, values), 1e-12)
            for name, values in ((name, np.asarray(values)) for name, values in (attributes or {}).items())
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
    found = [np.bincount(labels[column], minlength=classes).max() / column.sum() for column in bits.T if column.any()]
    return float(np.mean(found)) if found else None


def _completeness(train: Codes, test: Codes) -> float | None:
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0).fit(train.numpy(), train.labels.numpy())
    chance = np.bincount(test.labels.numpy()).max() / len(test)
    accuracy = tree.score(test.numpy(), test.labels.numpy())
    return float((accuracy - chance) / (1 - chance)) if chance < 1 else None


@torch.no_grad()
def intervention_curve(model: ICBM, found: Codes) -> dict[str, list]:
    """Accuracy when more and more concepts of each image are set to what is usual in its class.

    For each image the concepts are set in the order of the magnitude of the weight that its true class gives them.

    Args:
        model: whose head decides.
        found: codes of many images.

    Returns:
        {"set": 0, 1, 2, … concepts, "accuracy": with so many set}.

    Raises:
        ValueError: if the concepts are not 0 or 1.

    Reference:
        Koh et al. 2020, "Concept bottleneck models", ICML, for interventions at test time.

    Example:
        Each class has its concept; the third image lacks that of its class.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=2, n_classes=2, in_features=16)
        >>> _, _ = model.head.weight.data.copy_(torch.eye(2)), model.head.bias.data.zero_()
        >>> bits = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
        >>> intervention_curve(model, Codes.of(bits, torch.tensor([0, 0, 0, 1])))
        {'set': [0, 1, 2], 'accuracy': [0.75, 1.0, 1.0]}
    """
    model.check_binary()
    bits, labels = found[:].to(model.head.weight), found.labels.to(model.head.weight.device)
    usual = torch.stack(
        [
            bits[labels == number].mean(0).gt(0.5).to(bits) if (labels == number).any() else bits.new_zeros(found.size)
            for number in range(model.head.out_features)
        ]
    )
    order = model.head.weight.abs().argsort(dim=1, descending=True)[labels]
    accuracies, current = [], bits.clone()
    for count in range(found.size + 1):
        accuracies.append((model.head(current).argmax(1) == labels).float().mean().item())
        if count < found.size:
            chosen = order[:, count : count + 1]
            current.scatter_(1, chosen, usual[labels].gather(1, chosen))
    return {"set": list(range(found.size + 1)), "accuracy": accuracies}


def stability(several: Sequence[Codes]) -> float:
    """How much the concepts of models of different seeds agree: mean |correlation| of concepts matched one to one.

    Args:
        several: the codes of the same images by two models or more, with the same number of concepts.

    Returns:
        From 0 to 1, the mean over all pairs of models, each matched by the Hungarian method.

    Raises:
        ValueError: if there are fewer than two, or of different shapes.

    Example:
        The same concepts in another order, and one of them negated, agree fully.

        >>> bits, labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]), torch.zeros(4)
        >>> again = torch.stack([bits[:, 2], 1 - bits[:, 0], bits[:, 1]], 1)
        >>> round(stability([Codes.of(bits, labels), Codes.of(again, labels)]), 6)
        1.0
    """
    from scipy.optimize import linear_sum_assignment

    if len(several) < 2 or len({found.shape for found in several}) > 1:
        raise ValueError(f"several: expected codes of one shape, two or more, got {[found.shape for found in several]}")
    matched = []
    for i, one in enumerate(several):
        for other in several[:i]:
            a, b = (_standardised(found.numpy()) for found in (one, other))
            agreement = np.abs(a.T @ b) / len(one)
            rows, columns = linear_sum_assignment(-agreement)
            matched.append(agreement[rows, columns].mean())
    return float(np.mean(matched))


def _standardised(bits: np.ndarray) -> np.ndarray:
    deviations = bits - bits.mean(0)
    spread = deviations.std(0)
    return deviations / np.where(spread > 0, spread, 1)
