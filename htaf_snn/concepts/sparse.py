"""Heads that use few concepts for each class."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch

from ..models import ICBM
from .codes import codes

__all__ = ["SparseHead", "sparsify"]


@dataclass(frozen=True)
class SparseHead:
    """One step of the path over the penalty.

    Attributes:
        strength: of the regularisation, 1 / C of scikit-learn.
        concepts_per_class: the largest number of weights that are not 0 in a class.
        accuracy: on the data that it was fitted to, from 0 to 1.

    Example:
        >>> path = [SparseHead(8.0, 2, 0.71), SparseHead(4.0, 5, 0.90), SparseHead(2.0, 9, 0.93)]
        >>> [head.accuracy for head in path if head.concepts_per_class <= 5]
        [0.71, 0.9]
    """

    strength: float
    concepts_per_class: int
    accuracy: float


def sparsify(
    model: ICBM, loader, max_concepts_per_class: int = 8, *, steps: int = 16, max_iter: int = 200
) -> list[SparseHead]:
    """Give a model a head of few weights: multinomial regression with an L1 penalty, by scikit-learn's SAGA.

    The strength of the penalty is halved until a class has more weights than asked for, then narrowed down by bisection
    to the weakest with as few as that.

    Args:
        model: its head is changed, in place.
        loader: of training (images, labels).
        max_concepts_per_class: from 1 to the number of concepts.
        steps: strengths tried, at least 1.
        max_iter: of SAGA in each step.

    Returns:
        The strengths tried, from the strongest to the weakest; the head is that of the weakest with as few weights as
        asked for.

    Raises:
        ValueError: if a number is out of range, or the images have one class alone.

    Warns:
        UserWarning: naming the classes that no weight is left for; such a class has a constant score.

    Reference:
        Defazio, Bach and Lacoste-Julien 2014, "SAGA", NeurIPS; Wong, Santurkar and Madry 2021, "Leveraging sparse
        linear layers for debuggable deep networks", ICML, for sparse heads.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> loader = [(torch.randn(60, 1, 4, 4), torch.arange(60) % 3)]
        >>> path = sparsify(model, loader, max_concepts_per_class=2, steps=6)
        >>> len(path), int((model.head.weight != 0).sum(1).max()) <= 2
        (6, True)
    """
    if not 1 <= max_concepts_per_class <= model.head.in_features:
        raise ValueError(
            f"max_concepts_per_class: expected 1 to {model.head.in_features}, got {max_concepts_per_class}"
        )
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected an integer >= 1, got {steps!r}")
    found = codes(model, loader)
    bits, labels = found.numpy().astype(np.float64), found.labels.numpy()
    present = np.unique(labels)
    if len(present) < 2:
        raise ValueError(f"loader: expected images of two classes or more, got those of {present.tolist()}")
    path, chosen = [], None
    enough, too_weak = _strongest(bits, labels, present), 0.0
    strength = enough
    for _ in range(steps):
        head = _regression(bits, labels, strength, max_iter)
        weight, bias = _all_classes(head, present, model.head.out_features)
        most = int((weight != 0).sum(1).max())
        path.append(SparseHead(strength, most, float(head.score(bits, labels))))
        if most <= max_concepts_per_class:
            chosen, enough = (weight, bias), strength
        else:
            too_weak = strength
        strength = float(np.sqrt(enough * too_weak)) if too_weak else strength / 2
    empty = [int(one) for one in present if not chosen[0][one].any()]
    if empty:
        told = ", ".join(map(str, empty))
        warnings.warn(f"no weight is left for class {told}; allow more concepts per class", stacklevel=2)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(chosen[0]))
        model.head.bias.copy_(torch.from_numpy(chosen[1]))
    return sorted(path, key=lambda one: -one.strength)


def _regression(bits: np.ndarray, labels: np.ndarray, strength: float, max_iter: int):
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(C=1 / strength, l1_ratio=1.0, solver="saga", max_iter=max_iter, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a step that has not converged is a head all the same
        return head.fit(bits, labels)


def _strongest(bits: np.ndarray, labels: np.ndarray, present: np.ndarray) -> float:
    """The penalty at which all weights are 0: the largest gradient there."""
    targets = (labels[:, None] == present).astype(np.float64)
    return float(np.abs(bits.T @ (targets - targets.mean(0))).max())


def _all_classes(head, present: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and biases of all classes; those without images are never decided for."""
    weight, bias = np.zeros((classes, head.coef_.shape[1])), np.full(classes, -1e3)
    coefficients, intercepts = head.coef_, head.intercept_
    if len(present) == 2:
        coefficients, intercepts = np.vstack([-coefficients, coefficients]) / 2, np.r_[-intercepts, intercepts] / 2
    weight[present], bias[present] = coefficients, intercepts
    return weight, bias
