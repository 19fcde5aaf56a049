"""Figures of a concept bottleneck model, for JSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from .. import hardening
from ..models import ICBM
from ..nn._batches import check_in_order
from .coding import Codes, codes
from .explaining import mutual_information, profiles

_ALWAYS = 0.99
_PROBED = 10_000  # images
_PROBE_STRENGTH = 10.0  # C times the number of images, chosen on Fashion-MNIST


def measure(model: ICBM, train_loader: Iterable, loader: Iterable, attributes: dict[str, Tensor] | None = None) -> dict:
    """Compute all figures of a trained model on the images of a loader.

    Args:
        model: trained; its BatchNorm layers keep the hard network's statistics, as `hardening.evaluate` measures them.
        train_loader: of the training images.
        loader: of the images to measure on.
        attributes: further labels of the loader's images, int64 (N,) each.

    Returns:
        {"hard_accuracy", "smooth_accuracy", "hardening_gap", "dead": number of concepts that are 0 in all of the
        loader's images, "always_on": number of those that are 1 in 99 % of them or more, "activation_rate": mean of all
        bits, "effective_concepts": exponential of the entropy of the eigenvalues of the concepts' correlations,
        "redundancy": mean |correlation| of two concepts, "purity": mean over concepts of the share of their most
        frequent class (None if all are dead), "completeness": accuracy of a tree over the bits in excess of the share
        of the largest class, relative to the largest possible excess (None if there is only one class),
        "leakage": accuracy that a linear head gains from the concepts' potentials beside their bits, see below (None
        for real concepts, or if the training images have only one class), "intervention_auc": mean accuracy along
        `intervention_curve` (None for real concepts), "information": mean mutual information with the labels in bits,
        "alignment": for each attribute the largest mutual information of a concept with it, relative to the attribute's
        entropy, "chance": {"purity", "information", "alignment", "intervention_auc"} for bits that are independent of
        the image: those of other images drawn at random}.

        A figure that does not exceed its "chance" is no evidence: none of the four is 0 for random bits.

        Leakage is what a concept's potential says about the class and its bit does not. A hard network leaks nothing,
        as only bits reach its head; one that used soft concepts could rely on what leaks. Two heads are fitted to
        training images, one to the bits and one to bits and potentials; leakage is the difference of their accuracies
        on the loader's images. The definition is ours: the literature compares soft concepts with hard ones, and we
        give the head both, so that it does not lose what the bits say. The heads are scikit-learn's multinomial
        regressions on standardised inputs, with C = 10 / images; as both are penalised, small values of either sign say
        nothing. Of each loader they see at most 10 000 images, drawn by a generator with seed 0, which takes about 1 s
        on one core for 256 concepts.

    Raises:
        ValueError: if a loader is empty, the number of an attribute's values differs from that of the images, or
            attributes are passed and the loader shuffles its images.

    Reference:
        Roy and Vetterli 2007, "The effective rank", EUSIPCO, for "effective_concepts"; Yeh et al. 2020, "On
        completeness-aware concept-based explanations in deep neural networks", NeurIPS, for "completeness", here with a
        tree over bits; Mahinpei et al. 2021, "Promises and pitfalls of black-box concept learning models", arXiv
        2106.13314, and Havasi, Parbhoo and Doshi-Velez 2022, "Addressing leakage in concept bottleneck models",
        NeurIPS, for leakage; Hewitt et al. 2021, "Conditional probing: measuring usable information beyond a baseline",
        EMNLP, for a head on both.

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
    evaluation = hardening.evaluate(model, train_loader, loader, keep_hard_statistics=True)
    (train, train_potentials), (test, potentials) = (_with_potentials(model, part) for part in (train_loader, loader))
    bits, n_classes = test.numpy(), model.head.out_features
    rates = bits.mean(0)
    curve = intervention_curve(model, train, test) if model.is_binary else None
    auc, random_auc = (curve and float(np.mean(curve[name])) for name in ("accuracy", "random"))
    return {
        "hard_accuracy": evaluation.hard,
        "smooth_accuracy": evaluation.smooth,
        "hardening_gap": evaluation.gap,
        "dead": int((rates == 0).sum()),
        "always_on": int((rates >= _ALWAYS).sum()),
        "activation_rate": float(rates.mean()),
        **_correlated(bits),
        "completeness": _completeness(train, test),
        "leakage": _leakage((train, train_potentials), (test, potentials)) if model.is_binary else None,
        "intervention_auc": auc,
        **_of_labels(test, n_classes, attributes or {}),
        "chance": {"intervention_auc": random_auc, **_of_labels(_shuffled(test), n_classes, attributes or {})},
    }


def _with_potentials(model: ICBM, loader: Iterable) -> tuple[Codes, Tensor]:
    """Return the codes and the potentials (N, K) of all images of a loader."""
    potentials: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple) -> None:
        potentials.append(inputs[0].float().cpu())

    handle = model.concept_layer.activation.register_forward_pre_hook(keep)
    try:
        return codes(model, loader), torch.cat(potentials)
    finally:
        handle.remove()


def _leakage(train: tuple[Codes, Tensor], test: tuple[Codes, Tensor]) -> float | None:
    """Return the accuracy that codes with potentials have in excess of codes alone."""
    (bits, potentials, labels), (test_bits, test_potentials, test_labels) = map(_drawn, (train, test))
    if len(np.unique(labels)) < 2:
        return None
    alone = _probed(bits, labels, test_bits, test_labels)
    both = np.hstack([bits, potentials]), labels, np.hstack([test_bits, test_potentials]), test_labels
    return _probed(*both) - alone


def _drawn(part: tuple[Codes, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bits (float32), potentials and labels of images drawn at random."""
    codes, potentials = part
    chosen = _random_order(len(codes))[:_PROBED]
    return codes[chosen].float().numpy(), potentials[chosen].numpy(), codes.labels[chosen].numpy()


def _probed(inputs: np.ndarray, labels: np.ndarray, test_inputs: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the accuracy of a linear head fitted to other images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=_PROBE_STRENGTH / len(inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that has not converged is still a head
        return float(head.fit(inputs, labels).score(test_inputs, test_labels))


def _shuffled(codes: Codes) -> Codes:
    """Return the same codes, each assigned to another image at random."""
    return replace(codes, words=codes.words[_random_order(len(codes))])


def _random_order(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))


def _of_labels(codes: Codes, n_classes: int, attributes: dict[str, Tensor]) -> dict:
    """Return the figures that relate the bits to labels."""
    informations = [profile["information"] for profile in profiles(codes, n_classes, attributes)]
    return {
        "purity": _purity(codes.numpy(), codes.labels.numpy(), n_classes),
        "information": float(np.mean([bits["label"] for bits in informations])),
        "alignment": {
            name: max(bits[name] for bits in informations) / max(mutual_information(values, values), 1e-12)
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


def _purity(bits: np.ndarray, labels: np.ndarray, n_classes: int) -> float | None:
    shares = [
        np.bincount(labels[column], minlength=n_classes).max() / column.sum() for column in bits.T if column.any()
    ]
    return float(np.mean(shares)) if shares else None


def _completeness(train: Codes, test: Codes) -> float | None:
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(random_state=0).fit(train.numpy(), train.labels.numpy())
    chance = np.bincount(test.labels.numpy()).max() / len(test)
    accuracy = tree.score(test.numpy(), test.labels.numpy())
    return float((accuracy - chance) / (1 - chance)) if chance < 1 else None


@torch.no_grad()
def intervention_curve(model: ICBM, train: Codes, test: Codes) -> dict[str, list]:
    """Return the accuracy as more and more concepts of each image are set to the usual value in its true class.

    The concepts of an image are set in the order of the magnitude of their weights for its true class. As this uses the
    true class, even random bits reach a high accuracy if a head has memorised them. "random" is therefore the same
    curve for the bits of other images drawn at random, with a head fitted to those of the training images by least
    squares. The distance between the two curves is what the concepts know.

    Args:
        model: whose head decides.
        train: codes of the training images, which define the usual value in a class.
        test: codes of the images to measure on.

    Returns:
        {"set": numbers of set concepts, 0, 1, 2, …, "accuracy": the accuracy with each, "random"}.

    Raises:
        ValueError: if the concepts are not 0 or 1, or the codes have different sizes.

    Reference:
        Koh et al. 2020, "Concept bottleneck models", ICML, for interventions at test time.

    Example:
        Each class has one concept; the last image lacks that of its class.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=2, n_classes=2, in_features=16)
        >>> _, _ = model.head.weight.data.copy_(torch.eye(2)), model.head.bias.data.zero_()
        >>> train = Codes.of(torch.tensor([[1, 0], [0, 1]]), torch.tensor([0, 1]))
        >>> test = Codes.of(torch.tensor([[1, 0], [1, 0], [0, 1], [1, 0]]), torch.tensor([0, 0, 1, 1]))
        >>> intervention_curve(model, train, test)["accuracy"]
        [0.75, 0.75, 1.0]
    """
    model.check_binary()
    if {train.size, test.size} != {model.head.in_features}:
        expected = f"codes of {model.head.in_features} concepts"
        raise ValueError(f"train, test: expected {expected}, got {train.size} and {test.size}")
    head = model.head.weight.detach().double().cpu(), model.head.bias.detach().double().cpu()
    random = _shuffled(train)
    return {
        "set": list(range(test.size + 1)),
        "accuracy": _intervened(*head, train, test),
        "random": _intervened(*_fitted(random, model.head.out_features), random, _shuffled(test)),
    }


def _fitted(train: Codes, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of a head fitted to codes by least squares."""
    inputs = torch.cat([train[:].double(), torch.ones(len(train), 1, dtype=torch.float64)], 1)
    targets = torch.nn.functional.one_hot(train.labels, n_classes).double()
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.T
    return solution[:, :-1], solution[:, -1]


def _intervened(weight: Tensor, bias: Tensor, train: Codes, test: Codes) -> list[float]:
    """Return the accuracies of `intervention_curve` for a head's weights (n_classes, K) and biases."""
    members = torch.nn.functional.one_hot(train.labels, len(weight)).double()
    rates = members.T @ train[:].double() / members.sum(0).clamp(min=1)[:, None]
    usual, labels = rates.gt(0.5).double(), test.labels
    order = weight.abs().argsort(dim=1, descending=True, stable=True)[labels]
    accuracies, current = [], test[:].double()
    for count in range(test.size + 1):
        decided = (current @ weight.T + bias).argmax(1)
        accuracies.append((decided == labels).double().mean().item())
        if count < test.size:
            concept = order[:, count : count + 1]
            current.scatter_(1, concept, usual[labels].gather(1, concept))
    return accuracies


def stability(codes: Sequence[Codes] | Sequence[Tensor]) -> dict[str, float]:
    """Measure how far models of different seeds agree: mean |correlation| of concepts matched one to one.

    Args:
        codes: of the same images by two or more models, with the same number of concepts; or real features (N, K) of
            the same images in the same order.

    Returns:
        {"stability": from 0 to 1, the mean over all pairs of models, each matched by the Hungarian method; "chance":
        the same with the bits of one of each pair replaced by those of other images drawn at random, which is not 0, as
        the best of many matches is chosen}.

    Raises:
        ValueError: if there are fewer than two codes, they differ in shape or images, or features are not finite.

    Example:
        The same concepts in another order, one of them negated, agree fully.

        >>> bits, labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]]), torch.zeros(4, dtype=torch.int64)
        >>> again = torch.stack([bits[:, 2], 1 - bits[:, 0], bits[:, 1]], 1)
        >>> round(stability([Codes.of(bits, labels), Codes.of(again, labels)])["stability"], 6)
        1.0
    """
    shapes = [tuple(part.shape) for part in codes]
    if len(codes) < 2 or len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise ValueError(f"codes: expected two or more of the same shape (N, K), got {shapes}")
    labels = [part.labels for part in codes if isinstance(part, Codes)]
    if not all(torch.equal(part, labels[0]) for part in labels):
        raise ValueError("codes: expected the same images in the same order, got different labels")
    arrays = [part.numpy() if isinstance(part, Codes) else part.detach().double().cpu().numpy() for part in codes]
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("codes: expected finite features, got NaN or infinity")
    pairs, order = list(combinations(map(_standardised, arrays), 2)), _random_order(shapes[0][0])
    return {
        "stability": float(np.mean([_agreement(a, b) for a, b in pairs])),
        "chance": float(np.mean([_agreement(a, b[order]) for a, b in pairs])),
    }


def _agreement(a: np.ndarray, b: np.ndarray) -> float:
    from scipy.optimize import linear_sum_assignment

    correlations = np.abs(a.T @ b) / len(a)
    return float(correlations[linear_sum_assignment(-correlations)].mean())


def _standardised(values: np.ndarray) -> np.ndarray:
    deviations = values - values.mean(0)
    spread = deviations.std(0)
    return deviations / np.where(spread > 0, spread, 1)
