"""Heads that use few concepts per class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..models import ICBM
from ..nn._batches import check_labels
from ..training.folder import is_count, require
from .coding import codes


@dataclass(frozen=True)
class PathStep:
    """A head tried for one class: a penalty and its result.

    Attributes:
        class_index: the class.
        strength: of the penalty, 1 / C of scikit-learn.
        n_concepts: number of weights that are not 0.
        accuracy: in telling the class from all others, on the fitted data, from 0 to 1.

    Example:
        >>> path = [PathStep(0, 8.0, 2, 0.91), PathStep(0, 4.0, 5, 0.96), PathStep(0, 2.0, 9, 0.97)]
        >>> [step.accuracy for step in path if step.n_concepts <= 5]
        [0.91, 0.96]
    """

    class_index: int
    strength: float
    n_concepts: int
    accuracy: float


def sparsify(
    model: ICBM, loader: Iterable, max_concepts_per_class: int = 8, *, steps: int = 16, max_iter: int = 200
) -> list[PathStep]:
    """Give a model a sparse head, whose weights are selected for each class by regression with an L1 penalty.

    Each class is separated from all others by scikit-learn's SAGA. The penalty is halved until more weights remain than
    allowed, then refined by bisection towards the weakest penalty with few enough. Each class gets its own penalty:
    with a shared one, some classes would lose all weights. Finally all selected weights are refitted jointly, by
    multinomial regression with scikit-learn's default L2 penalty.

    Args:
        model: its head is changed in place.
        loader: of training (images, labels).
        max_concepts_per_class: from 1 to the number of concepts.
        steps: penalties tried for each class, at least 1.
        max_iter: iterations of SAGA per penalty.

    Returns:
        The penalties tried, by class, from the strongest to the weakest.

    Raises:
        ValueError: if a number or a label is out of range, the images have only one class, or the concepts are not 0
            or 1.

    Warns:
        UserWarning: naming the classes without any weight; such a class has a constant score.

    Reference:
        Defazio, Bach and Lacoste-Julien 2014, "SAGA", NeurIPS; Wong, Santurkar and Madry 2021, "Leveraging sparse
        linear layers for debuggable deep networks", ICML, for sparse heads.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> loader = [(torch.randn(60, 1, 4, 4), torch.arange(60) % 3)]
        >>> path = sparsify(model, loader, max_concepts_per_class=2, steps=6)
        >>> len(path), int((model.head.weight != 0).sum(1).max()) <= 2
        (18, True)
    """
    most = model.head.in_features
    require("max_concepts_per_class", max_concepts_per_class, f"1 to {most}", lambda v: is_count(v) and v <= most)
    require("steps", steps, "an integer >= 1", is_count)
    model.check_binary()
    train = codes(model, loader)
    check_labels(train.labels, model.head.out_features)
    bits, labels = train.numpy().astype(np.float64), train.labels.numpy()
    present, numbers = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"loader: expected images of two classes or more, got those of {present.tolist()}")
    path, weight = [], np.zeros((len(present), bits.shape[1]))
    for row, class_index in enumerate(present):
        for step, coefficients in _path(bits, labels == class_index, max_concepts_per_class, steps, max_iter):
            path.append(PathStep(int(class_index), *step))
            if path[-1].n_concepts <= max_concepts_per_class:
                weight[row] = coefficients
    empty = [str(class_index) for class_index, row in zip(present, weight, strict=True) if not row.any()]
    if empty:
        warnings.warn(f"no weight is left for class {', '.join(empty)}; allow more concepts or steps", stacklevel=2)
    refitted = _refitted(torch.from_numpy(bits), torch.from_numpy(numbers), torch.from_numpy(weight))
    with torch.no_grad():
        for parameter, values, absent in zip((model.head.weight, model.head.bias), refitted, (0.0, -1e3), strict=True):
            parameter.fill_(absent)  # a class without images is never predicted
            parameter[present] = values.to(parameter)
    return sorted(path, key=lambda step: (step.class_index, -step.strength))


def _path(
    bits: np.ndarray, target: np.ndarray, most: int, steps: int, max_iter: int
) -> Iterator[tuple[tuple[float, int, float], np.ndarray]]:
    """Yield (penalty, number of weights, accuracy) and the weights; the last sparse enough has the weakest penalty."""
    from sklearn.linear_model import LogisticRegression

    # The penalty at which all weights are 0: the largest gradient there.
    enough, too_weak = float(np.abs(bits.T @ (target - target.mean())).max()), 0.0
    if enough < 1e-9:  # no concept identifies the class: apart from rounding there is nothing to select
        return
    head = LogisticRegression(l1_ratio=1.0, solver="saga", max_iter=max_iter, tol=1e-3, random_state=0, warm_start=True)
    yield (enough, 0, float(max(target.mean(), 1 - target.mean()))), np.zeros(bits.shape[1])
    strength = enough / 2
    for _ in range(steps - 1):
        head.C = 1 / strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fit that has not converged is still a head
            head.fit(bits, target)
        count = int(np.count_nonzero(head.coef_))
        yield (strength, count, float(head.score(bits, target))), head.coef_[0].copy()
        if count <= most:
            enough = strength
        else:
            too_weak = strength
        strength = float(np.sqrt(enough * too_weak)) if too_weak else strength / 2


def _refitted(bits: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of multinomial regression, restricted to the weights that are not 0."""
    selected, bias = weight != 0, torch.zeros(len(weight), dtype=weight.dtype, requires_grad=True)
    weight = weight.requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        sparse = weight * selected
        value = cross_entropy(bits @ sparse.T + bias, labels) + sparse.square().sum() / (2 * len(bits))
        value.backward()
        return value

    optimizer.step(loss)
    return (weight * selected).detach(), bias.detach()
