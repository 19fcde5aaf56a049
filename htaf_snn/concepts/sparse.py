"""Heads that use few concepts per class."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..configuration import is_count, require
from ..models import ICBM
from ..nn._batches import check_labels
from .coding import codes

_TOLERANCE = 1e-4  # of a gradient, relative to the penalty
_NARROW = 1e-4  # relative distance of two penalties; within it the solver's tolerance decides, not the data
_FIRST = 16  # features that a working set starts with


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


class SparseHead(NamedTuple):
    """The result of `sparse_head`.

    Attributes:
        weight: float64 (n_classes, K).
        bias: float64 (n_classes,).
        path: the penalties tried, by class, from the strongest to the weakest.

    Example:
        >>> head = SparseHead(torch.eye(2), torch.zeros(2), [])
        >>> (torch.tensor([[0.0, 1.0]]) @ head.weight.T + head.bias).argmax(1)
        tensor([1])
    """

    weight: Tensor
    bias: Tensor
    path: list[PathStep]


def sparsify(
    model: ICBM, loader: Iterable, max_concepts_per_class: int = 8, *, steps: int = 24, progress: bool = True
) -> list[PathStep]:
    """Give a model a sparse head, whose weights are selected for each class as in `sparse_head`.

    Args:
        model: its head is changed in place.
        loader: of training (images, labels).
        max_concepts_per_class, steps, progress: as in `sparse_head`.

    Returns:
        The penalties tried, by class, from the strongest to the weakest.

    Raises:
        ValueError: as in `sparse_head`, or if the concepts are not 0 or 1.

    Warns:
        UserWarning: as in `sparse_head`.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> loader = [(torch.randn(60, 1, 4, 4), torch.arange(60) % 3)]
        >>> path = sparsify(model, loader, max_concepts_per_class=2, steps=6, progress=False)
        >>> len(path) <= 18, int((model.head.weight != 0).sum(1).max()) <= 2
        (True, True)
    """
    _check_numbers(max_concepts_per_class, model.head.in_features, steps)
    model.check_binary()
    train = codes(model, loader)
    head = sparse_head(
        train[:], train.labels, model.head.out_features, max_concepts_per_class, steps=steps, progress=progress
    )
    with torch.no_grad():
        model.head.weight.copy_(head.weight)
        model.head.bias.copy_(head.bias)
    return head.path


def sparse_head(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    max_concepts_per_class: int = 8,
    *,
    steps: int = 24,
    progress: bool = True,
) -> SparseHead:
    """Fit a linear head to concepts or real features, with weights selected for each class by an L1 penalty.

    Each class is separated from all others by logistic regression. The penalty is halved until more weights remain than
    allowed, then refined by bisection until exactly as many remain. Where features get their weights at the same
    penalty, so that none leaves as many, the largest weights are kept. Each class gets its own penalty: with a shared
    one, some classes would lose all weights. Finally all selected weights are refitted jointly, by multinomial
    regression with scikit-learn's default L2 penalty.

    54 000 images with 256 concepts and 10 classes take some 10 s on one core.

    Args:
        features: (N, K), of any real dtype. The penalty is the same for all, so real ones should be standardised.
        labels: int64 (N,).
        n_classes: number of classes; one without images is never predicted.
        max_concepts_per_class: from 1 to K.
        steps: largest number of penalties tried for each class, at least 1.
        progress: show a progress bar on standard error.

    Returns:
        A `SparseHead`.

    Raises:
        ValueError: if a number or a label is out of range, the features are not finite values (N, K), or the labels
            are of another number or have only one class.

    Warns:
        UserWarning: naming the classes without any weight; such a class has a constant score.

    Reference:
        Wong, Santurkar and Madry 2021, "Leveraging sparse linear layers for debuggable deep networks", ICML, for sparse
        heads; Byrd, Lu, Nocedal and Zhu 1995, "A limited memory algorithm for bound constrained optimization", SIAM
        J. Sci. Comput., for the solver, SciPy's L-BFGS-B; Tibshirani et al. 2012, "Strong rules for discarding
        predictors in lasso-type problems", J. R. Stat. Soc. B, for working sets checked by their gradients.

    Example:
        >>> bits = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1]]).repeat(10, 1)
        >>> head = sparse_head(bits, torch.tensor([0, 0, 1, 1]).repeat(10), 2, 2, progress=False)
        >>> head.weight.bool().tolist(), [step.n_concepts for step in head.path]
        ([[True, True, False], [True, True, False]], [0, 2, 0, 2])
    """
    if features.ndim != 2 or not features.isfinite().all():
        raise ValueError(f"features: expected finite values (N, K), got shape {tuple(features.shape)}")
    _check_numbers(max_concepts_per_class, features.shape[1], steps)
    check_labels(labels, n_classes)
    if len(labels) != len(features):
        raise ValueError(f"labels: expected {len(features)}, one per row of features, got {len(labels)}")
    features, labels = features.double().cpu(), labels.cpu()
    present, numbers = labels.unique(return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"labels: expected two classes or more, got only {present.tolist()}")
    selected, path = _selected(
        features.numpy(), labels.numpy(), present.tolist(), max_concepts_per_class, steps, progress
    )
    weight, bias = features.new_zeros(n_classes, features.shape[1]), features.new_full((n_classes,), -1e3)
    weight[present], bias[present] = _refitted(features, numbers, torch.from_numpy(selected))
    return SparseHead(weight, bias, path)


def _check_numbers(max_concepts_per_class: int, most: int, steps: int) -> None:
    require("max_concepts_per_class", max_concepts_per_class, f"1 to {most}", lambda v: is_count(v) and v <= most)
    require("steps", steps, "an integer >= 1", is_count)


def _selected(
    features: np.ndarray, labels: np.ndarray, classes: list[int], most: int, steps: int, progress: bool
) -> tuple[np.ndarray, list[PathStep]]:
    """Return the weights (classes, K), at most so many of each class not 0, and the penalties tried."""
    from tqdm import tqdm

    path, weight = [], np.zeros((len(classes), features.shape[1]))
    with tqdm(total=len(classes), desc="sparse head", unit="class", disable=not progress) as bar:
        for row, class_index in enumerate(classes):
            for strength, coefficients, accuracy in _path(features, labels == class_index, most, steps):
                path.append(PathStep(class_index, strength, int(np.count_nonzero(coefficients)), accuracy))
                if path[-1].n_concepts <= most:
                    weight[row] = coefficients
            bar.set_postfix_str(f"class {class_index}, {np.count_nonzero(weight[row])} weights", refresh=False)
            bar.update()
    empty = [str(class_index) for class_index, row in zip(classes, weight, strict=True) if not row.any()]
    if empty:
        warnings.warn(f"no weight is left for class {', '.join(empty)}; allow more concepts or steps", stacklevel=3)
    return weight, sorted(path, key=lambda step: (step.class_index, -step.strength))


def _path(features: np.ndarray, target: np.ndarray, most: int, steps: int) -> Iterator[tuple[float, np.ndarray, float]]:
    """Yield (penalty, weights, accuracy); the last that is sparse enough has the weakest penalty."""
    # The penalty at which all weights are 0: the largest gradient there.
    enough, too_weak = float(np.abs(features.T @ (target - target.mean())).max()), 0.0
    if enough < 1e-9:  # no concept identifies the class: apart from rounding there is nothing to select
        return
    weight, bias = np.zeros(features.shape[1]), float(np.log(target.mean() / (1 - target.mean())))
    yield enough, weight, float(max(target.mean(), 1 - target.mean()))
    strength, denser = enough / 2, weight
    for _ in range(steps - 1):
        weight, bias = _fitted(features, target, strength, weight, bias)
        yield strength, weight, _accuracy(features, target, weight, bias)
        count = np.count_nonzero(weight)
        if count == most:
            return
        if count < most:
            enough = strength
        else:
            too_weak, denser, denser_bias = strength, weight, bias
        if enough < too_weak * (1 + _NARROW):
            largest = np.argsort(-np.abs(denser), kind="stable")[:most]
            weight = np.zeros_like(denser)
            weight[largest] = denser[largest]
            yield too_weak, weight, _accuracy(features, target, weight, denser_bias)
            return
        strength = float(np.sqrt(enough * too_weak)) if too_weak else strength / 2


def _accuracy(features: np.ndarray, target: np.ndarray, weight: np.ndarray, bias: float) -> float:
    return float(((features @ weight + bias > 0) == target).mean())


def _fitted(
    features: np.ndarray, target: np.ndarray, strength: float, weight: np.ndarray, bias: float
) -> tuple[np.ndarray, float]:
    """Return the weights and bias of logistic regression with an L1 penalty, from those of a similar penalty.

    Only the weights of a working set are optimised. It grows by the features whose gradient exceeds the penalty, until
    there is none: then the result is that of all features.
    """
    from scipy.special import expit

    weight, working = weight.copy(), np.flatnonzero(weight)
    while True:
        columns = features[:, working]
        weight[working], bias = _minimised(columns, target, strength, weight[working], bias)
        gradient = np.abs(features.T @ (target - expit(columns @ weight[working] + bias)))
        gradient[working] = 0
        steepest = np.argsort(-gradient)[: max(_FIRST, len(working))]
        missing = steepest[gradient[steepest] > strength * (1 + _TOLERANCE)]
        if not len(missing):
            return weight, bias
        working = np.concatenate([working, missing])


def _minimised(
    features: np.ndarray, target: np.ndarray, strength: float, weight: np.ndarray, bias: float
) -> tuple[np.ndarray, float]:
    """Return the minimum over all features by SciPy's L-BFGS-B, whose bounds make weights exactly 0."""
    from scipy.optimize import minimize
    from scipy.special import expit

    size, signs, penalty = len(weight), 2.0 * target - 1, strength / len(target)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (features @ (parameters[:size] - parameters[size:-1]) + parameters[-1])
        slopes = -signs * expit(-margins) / len(target)
        gradient = features.T @ slopes
        value = np.logaddexp(0, -margins).mean() + penalty * parameters[:-1].sum()
        return value, np.concatenate([penalty + gradient, penalty - gradient, [slopes.sum()]])

    # A weight is the difference of two numbers >= 0, whose sum is its magnitude.
    start = np.concatenate([np.maximum(weight, 0), np.maximum(-weight, 0), [bias]])
    bounds = [(0, None)] * (2 * size) + [(None, None)]
    options = {"maxiter": 1000, "maxcor": 20, "ftol": 0.0, "gtol": _TOLERANCE * penalty}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    # The solver does not tell smaller distances from a bound from 0.
    found[:-1][found[:-1] <= _TOLERANCE * penalty] = 0
    return found[:size] - found[size:-1], float(found[-1])


def _refitted(features: Tensor, labels: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and biases of multinomial regression, restricted to the weights that are not 0."""
    used = weight.any(0)
    features, selected = features[:, used], weight[:, used] != 0
    free = weight[:, used].requires_grad_()
    bias = torch.zeros(len(weight), dtype=weight.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([free, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        sparse = free * selected
        value = cross_entropy(features @ sparse.T + bias, labels) + sparse.square().sum() / (2 * len(features))
        value.backward()
        return value

    optimizer.step(loss)
    weight[:, used] = (free * selected).detach()
    return weight, bias.detach()
