"""Explanations of a model's decisions: contributions, profiles of concepts, heat maps, rules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._checks import index_of
from ..configuration import is_count, require
from ..models import ICBM
from ..nn._batches import check_in_order
from ..nn._modes import in_eval
from .coding import Codes


@dataclass(frozen=True)
class Explanation:
    """The terms of a class's score; bias and contributions add up to it.

    Attributes:
        class_index: the explained class.
        score: its score (logit).
        bias: its bias in the head.
        contributions: of each active concept whose weight is not 0, by number, largest magnitude first.
        class_name: name of the class, or None.

    Example:
        >>> print(Explanation(3, score=1.25, bias=-0.25, contributions={7: 2.0, 1: -0.5}, class_name="cat"))
        class 3 (cat): score +1.2500
                bias  -0.2500
           concept 7  +2.0000
           concept 1  -0.5000
    """

    class_index: int
    score: float
    bias: float
    contributions: dict[int, float]
    class_name: str | None = None

    def __str__(self) -> str:
        name = f"class {self.class_index}" + (f" ({self.class_name})" if self.class_name else "")
        lines = [f"{name}: score {self.score:+.4f}", f"{'bias':>12}  {self.bias:+.4f}"]
        lines += [f"{f'concept {number}':>12}  {value:+.4f}" for number, value in self.contributions.items()]
        return "\n".join(lines)


@torch.no_grad()
def explain(
    model: ICBM, image: Tensor, class_index: int | None = None, classes: Sequence[str] | None = None
) -> Explanation:
    """Split a class's score for an image into the contributions of the active concepts.

    Args:
        model: evaluated with hard concepts; its mode is restored. Interventions in force apply.
        image: (C, H, W).
        class_index: the class; None for the predicted one.
        classes: names of all classes.

    Returns:
        An `Explanation`, computed in float64.

    Raises:
        TypeError: if the image is not a floating-point tensor.
        ValueError: if it is not a single image, not finite, or of another shape than the training images, or there is
            no such class.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> why = explain(model, torch.rand(1, 4, 4))
        >>> abs(why.bias + sum(why.contributions.values()) - why.score) < 1e-6
        True
    """
    _check_image(image)
    with in_eval(model):
        concepts = model.concepts(image[None].to(model.head.weight))[0].double()
    weight, bias = model.head.weight.double(), model.head.bias.double()
    scores = weight @ concepts + bias
    chosen = int(scores.argmax()) if class_index is None else index_of("class_index", class_index, len(scores))
    parts = (weight[chosen] * concepts).tolist()
    active = sorted((number for number, part in enumerate(parts) if part), key=lambda number: -abs(parts[number]))
    return Explanation(
        chosen,
        scores[chosen].item(),
        bias[chosen].item(),
        {number: parts[number] for number in active},
        None if classes is None else classes[chosen],
    )


def _check_image(image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = str(image.dtype) if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image: expected a floating-point tensor (C, H, W), got {kind}")
    if image.ndim != 3:
        raise ValueError(f"image: expected one image (C, H, W), got shape {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError("image: expected finite values, got NaN or infinity")


def class_weights(model: ICBM, class_index: int) -> dict[int, float]:
    """Return a class's weights that are not 0, by concept number, largest magnitude first.

    Args:
        model: whose head holds the weights.
        class_index: the class.

    Raises:
        ValueError: if there is no such class.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=3, n_classes=2, in_features=16)
        >>> _ = model.head.weight.data.copy_(torch.tensor([[0.5, 0.0, -2.0], [1.0, 1.0, 1.0]]))
        >>> class_weights(model, 0)
        {2: -2.0, 0: 0.5}
    """
    class_index = index_of("class_index", class_index, model.head.out_features)
    weights = model.head.weight[class_index].detach().cpu()
    order = weights.abs().argsort(descending=True).tolist()
    return {number: weights[number].item() for number in order if weights[number]}


@torch.no_grad()
def examples(model: ICBM, loader: Iterable, k: int = 24) -> list[dict[str, list[int]]]:
    """Choose example images for each concept.

    Args:
        model: evaluated in `eval()`; its mode is restored.
        loader: of (images, labels), in a fixed order.
        k: number of images of each kind, >= 1; fewer if the loader has fewer.

    Returns:
        For each concept the indices, in the loader's order, of {"strongest", "weakest", "at the threshold": the images
        nearest to it, "random"}.

    Raises:
        ValueError: if the loader is empty or shuffles its images, or k < 1.

    Example:
        Six images of increasing brightness, and a concept that grows with the brightness.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=1, n_classes=2, in_features=16)
        >>> _ = model.concept_layer.projection.weight.data.fill_(1.0)
        >>> images = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4)
        >>> [gallery] = examples(model, [(images, torch.zeros(6))], k=2)
        >>> gallery["strongest"], gallery["weakest"]
        ([5, 4], [0, 1])
    """
    check_in_order(loader, "the places of the images")
    require("k", k, "an integer >= 1", is_count)
    device = model.head.weight.device
    with in_eval(model):
        potentials = [model.potentials(images.to(device)).cpu() for images, _ in loader]
    if not potentials:
        raise ValueError("loader: expected at least one image, got none")
    return [gallery_of(column, k) for column in torch.cat(potentials).T]


def gallery_of(potentials: Tensor, k: int) -> dict[str, list[int]]:
    """Choose the `examples` of one concept by its potentials (N,)."""
    order = potentials.argsort(descending=True).tolist()
    random = torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).tolist()
    return {
        "strongest": order[:k],
        "weakest": order[::-1][:k],
        "at the threshold": potentials.abs().argsort()[:k].tolist(),
        "random": random[:k],
    }


def profiles(codes: Codes, n_classes: int, attributes: dict[str, Tensor] | None = None) -> list[dict]:
    """Relate each concept to the classes and to further attributes.

    Args:
        codes: of many images.
        n_classes: number of classes.
        attributes: further labels of the images, int64 (N,) each, by name.

    Returns:
        For each concept {"rate": activation rate, "by_class": activation rate in each class (None without images),
        "information": mutual information in bits with "label" and with each attribute, by name}.

    Raises:
        ValueError: if the number of an attribute's values differs from that of the images.

    Example:
        >>> codes = Codes.of(torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]]), torch.tensor([0, 0, 1, 1]))
        >>> profiles(codes, 2)[0]
        {'rate': 0.5, 'by_class': [1.0, 0.0], 'information': {'label': 1.0}}
    """
    targets = {"label": codes.labels, **(attributes or {})}
    for name, values in targets.items():
        if len(values) != len(codes):
            raise ValueError(f"attributes: expected {len(codes)} values of {name!r}, got {len(values)}")
    members = [codes.labels.numpy() == number for number in range(n_classes)]
    return [
        {
            "rate": float(column.mean()),
            "by_class": [float(column[inside].mean()) if inside.any() else None for inside in members],
            "information": {name: mutual_information(column, np.asarray(values)) for name, values in targets.items()},
        }
        for column in codes.numpy().T
    ]


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mutual information of two discrete variables in bits."""
    from sklearn.metrics import mutual_info_score

    return float(max(mutual_info_score(a, b) / np.log(2), 0.0))


def heat_map(model: ICBM, image: Tensor, concept: int, method: str = "occlusion", patch: int = 4) -> Tensor:
    """Map how much each place of an image contributes to a concept.

    Args:
        model: evaluated in `eval()`; its mode is restored.
        image: (C, H, W).
        concept: number of the concept.
        method: "occlusion", the drop of the concept's potential when a square around the place is replaced by the
            image's mean; or "gradient", the magnitude of the potential's gradient times the pixel.
        patch: side of the square in pixels, from 1 to the image's shorter side, for occlusion.

    Returns:
        float32 (H, W) on the CPU; with "occlusion" negative where hiding strengthens the concept.

    Raises:
        TypeError, ValueError: as in `explain` for the image, or if another argument is out of range.

    Reference:
        Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", ECCV, for occlusion; Shrikumar
        et al. 2016, "Not just a black box", arXiv 1605.01713, for gradient times input.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> heat_map(model, torch.rand(1, 4, 4), 2, patch=2).shape
        torch.Size([4, 4])
    """
    concept = index_of("concept", concept, model.head.in_features)
    if method not in ("occlusion", "gradient"):
        raise ValueError(f"method: expected occlusion or gradient, got {method!r}")
    _check_image(image)
    if not 1 <= patch <= min(image.shape[1:]):
        raise ValueError(f"patch: expected 1 to {min(image.shape[1:])}, got {patch}")
    image = image.to(model.head.weight)
    with in_eval(model):
        heat = _gradient(model, image, concept) if method == "gradient" else _occlusion(model, image, concept, patch)
    return heat.float().cpu()


def _gradient(model: ICBM, image: Tensor, concept: int) -> Tensor:
    image = image.detach().clone().requires_grad_()
    [gradient] = torch.autograd.grad(model.potentials(image[None])[0, concept], image)
    return (gradient * image.detach()).abs().sum(0)


@torch.no_grad()
def _occlusion(model: ICBM, image: Tensor, concept: int, patch: int) -> Tensor:
    height, width = image.shape[1:]
    drops, counts = image.new_zeros(height, width), image.new_zeros(height, width)
    whole = model.potentials(image[None])[0, concept]
    stride = max(1, patch // 2)
    tops, lefts = ([*range(0, size - patch, stride), size - patch] for size in (height, width))
    for top in tops:
        hidden = image.repeat(len(lefts), 1, 1, 1)
        for row, left in zip(hidden, lefts, strict=True):
            row[:, top : top + patch, left : left + patch] = image.mean((1, 2))[:, None, None]
        for left, drop in zip(lefts, whole - model.potentials(hidden)[:, concept], strict=True):
            drops[top : top + patch, left : left + patch] += drop
            counts[top : top + patch, left : left + patch] += 1
    return drops / counts


@dataclass(frozen=True)
class Rules:
    r"""A decision tree over concepts that tells one class from the others.

    Attributes:
        text: the tree.
        fidelity: share of held-out images on which the tree agrees with the model.
        baseline: fidelity of always giving the answer that is more frequent among the fitted images; a tree that is
            not above it explains nothing.
        concepts: numbers of the concepts that the tree uses.

    Example:
        >>> print(Rules("|--- concept 4 <= 0.50\n|   |--- class: False", fidelity=0.95, baseline=0.9, concepts=(4,)))
        |--- concept 4 <= 0.50
        |   |--- class: False
        fidelity 0.950 on held-out images, 0.900 for a constant answer
    """

    text: str
    fidelity: float
    baseline: float
    concepts: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.text}\nfidelity {self.fidelity:.3f} on held-out images, {self.baseline:.3f} for a constant answer"
        )


def _sorted_rows(codes: Codes) -> list[tuple[int, ...]]:
    return sorted((label, *words) for label, words in zip(codes.labels.tolist(), codes.words.tolist(), strict=True))


@torch.no_grad()
def rules(model: ICBM, codes: Codes, held_out: Codes, class_index: int, depth: int = 3) -> Rules:
    """Derive rules for a class: a scikit-learn tree over the bits, fitted to the model's own decisions.

    Args:
        model: whose head decides.
        codes: of the images that the tree is fitted to, such as the training images.
        held_out: codes of other images, on which the fidelity is measured.
        class_index: the class.
        depth: largest number of concepts in a rule.

    Raises:
        ValueError: if there is no such class, depth < 1, held_out holds the same images as codes in any order, one of
            the two is empty or of another size, or the concepts are not 0 or 1.

    Example:
        A head that predicts class 1 where concept 0 is set.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=2, n_classes=2, in_features=16)
        >>> _ = model.head.weight.data.copy_(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        >>> _ = model.head.bias.data.copy_(torch.tensor([1.0, 0.0]))
        >>> codes = Codes.of(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [0, 0]]), torch.tensor([0, 0, 1, 1, 0]))
        >>> held_out = Codes.of(torch.tensor([[1, 1], [0, 1], [0, 0]]), torch.tensor([1, 0, 0]))
        >>> print(rules(model, codes, held_out, class_index=1))
        |--- concept 0 <= 0.50
        |   |--- class: False
        |--- concept 0 >  0.50
        |   |--- class: True
        fidelity 1.000 on held-out images, 0.667 for a constant answer
    """
    from sklearn.tree import DecisionTreeClassifier, export_text

    class_index = index_of("class_index", class_index, model.head.out_features)
    require("depth", depth, "an integer >= 1", is_count)
    model.check_binary()
    for name, part in (("codes", codes), ("held_out", held_out)):
        if part.size != model.head.in_features or not len(part):
            raise ValueError(f"{name}: expected codes (N, {model.head.in_features}) of images, got {part.shape}")
    if held_out is codes or _sorted_rows(held_out) == _sorted_rows(codes):
        raise ValueError("held_out: expected images other than those of codes, got the same, possibly reordered")
    decided, held_out_decided = (
        (model.head(part[:].to(model.head.weight)).argmax(1) == class_index).cpu().numpy() for part in (codes, held_out)
    )
    tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(codes.numpy(), decided)
    fidelity = float((tree.predict(held_out.numpy()) == held_out_decided).mean())
    baseline = float((held_out_decided == (decided.mean() > 0.5)).mean())
    used = tuple(sorted({int(feature) for feature in tree.tree_.feature if feature >= 0}))
    names = [f"concept {number}" for number in range(codes.size)]
    return Rules(export_text(tree, feature_names=names).rstrip(), fidelity, baseline, used)
