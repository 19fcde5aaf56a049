"""Why a model decides as it does: contributions, profiles of concepts, heat maps, rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..models import ICBM
from ..nn._batches import check_in_order
from ..nn._modes import in_eval
from ..training.folder import index_of, is_count, require
from .codes import Codes

__all__ = ["Explanation", "Rules", "class_weights", "examples", "explain", "heat_map", "profiles", "rules"]


@dataclass(frozen=True)
class Explanation:
    """What made a score; bias and contributions add up to it.

    Attributes:
        class_index: the class explained.
        score: its score (logit).
        bias: the head's.
        contributions: of each active concept with a weight, by number, the largest magnitude first.
        class_name: or None.

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
    """Which active concepts an image has, and what each adds to a class's score.

    Args:
        model: evaluated with hard concepts; its mode is restored. Interventions in force count.
        image: (C, H, W).
        class_index: the class; None for the one decided for.
        classes: their names, one for each class.

    Returns:
        An `Explanation`, computed in float64.

    Raises:
        TypeError: if the image is no floating-point tensor.
        ValueError: if it is not one image, of another shape than those of the training, or not finite, or there is no
            such class.

    Example:
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=8, n_classes=3, in_features=16)
        >>> found = explain(model, torch.rand(1, 4, 4))
        >>> abs(found.bias + sum(found.contributions.values()) - found.score) < 1e-6
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
        came = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image: expected a floating-point tensor (C, H, W), got {came}")
    if image.ndim != 3 or not image.isfinite().all():
        came = "one that is not" if image.ndim == 3 else f"shape {tuple(image.shape)}"
        raise ValueError(f"image: expected one image (C, H, W) of finite values, got {came}")


def class_weights(model: ICBM, class_index: int) -> dict[int, float]:
    """The weight of every concept for a class, by number, the largest magnitude first, without those that are 0.

    Args:
        model: whose head decides.
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
    found = model.head.weight[class_index].detach().cpu()
    order = found.abs().argsort(descending=True).tolist()
    return {number: found[number].item() for number in order if found[number]}


@torch.no_grad()
def examples(model: ICBM, loader, k: int = 24) -> list[dict[str, list[int]]]:
    """Images to look at for each concept, by their place in the loader's order.

    Args:
        model: its mode is restored.
        loader: of (images, labels).
        k: how many of each kind, >= 1; fewer if there are fewer images.

    Returns:
        For each concept {"strongest", "weakest", "at the threshold": nearest to it, "by chance"}.

    Raises:
        ValueError: if the loader is empty or shuffles its images, or k < 1.

    Example:
        Six images, each brighter than the one before, and a concept that is the brighter the stronger.

        >>> model = ICBM(torch.nn.Flatten(), n_concepts=1, n_classes=2, in_features=16)
        >>> _ = model.concept_layer.projection.weight.data.fill_(1.0)
        >>> images = torch.linspace(0, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4)
        >>> [found] = examples(model, [(images, torch.zeros(6))], k=2)
        >>> found["strongest"], found["weakest"]
        ([5, 4], [0, 1])
    """
    check_in_order(loader, "the places of the images")
    require("k", k, "an integer >= 1", is_count)
    device = model.head.weight.device
    with in_eval(model):
        found = [model.potentials(images.to(device)).cpu() for images, _ in loader]
    if not found:
        raise ValueError("loader: expected at least one image, got none")
    return [galleries(column, k) for column in torch.cat(found).T]


def galleries(potentials: Tensor, k: int) -> dict[str, list[int]]:
    """`examples` of one concept, from its potentials (N,)."""
    order = potentials.argsort(descending=True).tolist()
    chance = torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).tolist()
    return {
        "strongest": order[:k],
        "weakest": order[::-1][:k],
        "at the threshold": potentials.abs().argsort()[:k].tolist(),
        "by chance": chance[:k],
    }


def profiles(found: Codes, n_classes: int, attributes: dict[str, Tensor] | None = None) -> list[dict]:
    """What each concept goes with.

    Args:
        found: of many images.
        n_classes: number of classes.
        attributes: further labels of the images, int64 (N,) each, by name.

    Returns:
        For each concept {"rate": activation rate, "by_class": activation rate in each class (None without images),
        "information": mutual information with the labels in bits, and with each of the attributes, by name}.

    Raises:
        ValueError: if an attribute has another number of values than there are images.

    Example:
        >>> found = Codes.of(torch.tensor([[1, 0], [1, 1], [0, 0], [0, 1]]), torch.tensor([0, 0, 1, 1]))
        >>> profiles(found, 2)[0]
        {'rate': 0.5, 'by_class': [1.0, 0.0], 'information': {'label': 1.0}}
    """
    bits = found.numpy()
    given = {"label": found.labels, **(attributes or {})}
    for name, values in given.items():
        if len(values) != len(found):
            raise ValueError(f"attributes: expected {len(found)} values of {name!r}, got {len(values)}")
    members = [found.labels.numpy() == number for number in range(n_classes)]
    return [
        {
            "rate": float(column.mean()),
            "by_class": [float(column[chosen].mean()) if chosen.any() else None for chosen in members],
            "information": {name: mutual_information(column, np.asarray(values)) for name, values in given.items()},
        }
        for column in bits.T
    ]


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two discrete variables in bits."""
    from sklearn.metrics import mutual_info_score

    return float(max(mutual_info_score(a, b) / np.log(2), 0.0))


def heat_map(model: ICBM, image: Tensor, concept: int, method: str = "occlusion", patch: int = 4) -> Tensor:
    """Where in an image a concept comes from.

    Args:
        model: evaluated in `eval()`; its mode is restored.
        image: (C, H, W).
        concept: its number.
        method: "occlusion", how far the concept's potential falls when a square around the place takes the image's
            mean; or "gradient", the magnitude of the potential's gradient times the pixel.
        patch: side of the square in pixels, from 1 to the shorter side, for occlusion.

    Returns:
        float32 (H, W) on the CPU; with "occlusion" negative where hiding strengthens the concept.

    Raises:
        TypeError, ValueError: as `explain` of the image, or if another argument is out of range.

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
    with in_eval(model):
        found = (_gradient if method == "gradient" else _occlusion)(model, image.to(model.head.weight), concept, patch)
    return found.float().cpu()


def _gradient(model: ICBM, image: Tensor, concept: int, patch: int) -> Tensor:
    image = image.detach().clone().requires_grad_()
    [gradient] = torch.autograd.grad(model.potentials(image[None])[0, concept], image)
    return (gradient * image.detach()).abs().sum(0)


@torch.no_grad()
def _occlusion(model: ICBM, image: Tensor, concept: int, patch: int) -> Tensor:
    height, width = image.shape[1:]
    falls, counts = image.new_zeros(height, width), image.new_zeros(height, width)
    whole = model.potentials(image[None])[0, concept]
    step = max(1, patch // 2)
    tops, lefts = ([*range(0, size - patch, step), size - patch] for size in (height, width))
    for top in tops:
        hidden = image.repeat(len(lefts), 1, 1, 1)
        for row, left in zip(hidden, lefts, strict=True):
            row[:, top : top + patch, left : left + patch] = image.mean((1, 2))[:, None, None]
        for left, fall in zip(lefts, whole - model.potentials(hidden)[:, concept], strict=True):
            falls[top : top + patch, left : left + patch] += fall
            counts[top : top + patch, left : left + patch] += 1
    return falls / counts


@dataclass(frozen=True)
class Rules:
    """A decision tree over concepts that tells one class from the others.

    Attributes:
        text: the tree.
        fidelity: the share of held-out images for which it says what the model does.
        baseline: the same of the answer that is more frequent among the images fitted to, given always; a tree that
            is not above it explains nothing.
        concepts: those that it asks for.

    Example:
        >>> found = Rules("|--- concept 4 <= 0.50\\n|   |--- class: False", fidelity=0.95, baseline=0.9, concepts=(4,))
        >>> print(found)
        |--- concept 4 <= 0.50
        |   |--- class: False
        fidelity 0.950 on held-out images, 0.900 of one answer for all
    """

    text: str
    fidelity: float
    baseline: float
    concepts: tuple[int, ...]

    def __str__(self) -> str:
        return (
            f"{self.text}\nfidelity {self.fidelity:.3f} on held-out images, {self.baseline:.3f} of one answer for all"
        )


def _rows(images: Codes) -> list[tuple[int, ...]]:
    """The labels and words of all images, sorted."""
    return sorted((label, *words) for label, words in zip(images.labels.tolist(), images.words.tolist(), strict=True))


@torch.no_grad()
def rules(model: ICBM, codes: Codes, held_out: Codes, class_index: int, depth: int = 3) -> Rules:
    """Rules for a class: a scikit-learn tree over the bits, fitted to the model's own decisions.

    Args:
        model: whose head decides.
        codes: of many images, which the tree is fitted to, such as those of the training.
        held_out: codes of others, on which its fidelity is measured.
        class_index: the class.
        depth: how many concepts a rule asks for at most.

    Raises:
        ValueError: if there is no such class, depth < 1, held_out has the images of codes in whatever order, one
            of them is empty or of another size, or the concepts are not 0 or 1.

    Example:
        A head that decides for class 1 where concept 0 is set.

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
        fidelity 1.000 on held-out images, 0.667 of one answer for all
    """
    from sklearn.tree import DecisionTreeClassifier, export_text

    class_index = index_of("class_index", class_index, model.head.out_features)
    require("depth", depth, "an integer >= 1", is_count)
    model.check_binary()
    for name, one in (("codes", codes), ("held_out", held_out)):
        if one.size != model.head.in_features or not len(one):
            raise ValueError(f"{name}: expected codes (N, {model.head.in_features}) of images, got {one.shape}")
    if held_out is codes or _rows(held_out) == _rows(codes):
        raise ValueError("held_out: expected codes of other images than codes, got the same, in whatever order")
    decided, held_out_decided = (
        (model.head(one[:].to(model.head.weight)).argmax(1) == class_index).cpu().numpy() for one in (codes, held_out)
    )
    tree = DecisionTreeClassifier(max_depth=depth, random_state=0).fit(codes.numpy(), decided)
    fidelity = float((tree.predict(held_out.numpy()) == held_out_decided).mean())
    baseline = float((held_out_decided == (decided.mean() > 0.5)).mean())
    asked = tuple(sorted({int(feature) for feature in tree.tree_.feature if feature >= 0}))
    names = [f"concept {number}" for number in range(codes.size)]
    return Rules(export_text(tree, feature_names=names).rstrip(), fidelity, baseline, asked)
