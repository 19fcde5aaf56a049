"""Implicit concept bottleneck models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._checks import index_of
from ..nn import ConceptLayer
from ..surrogate import SurrogateLike
from ._chain import Chain, check_counts, check_images


class ICBM(nn.Module):
    """Implicit concept bottleneck model: a feature extractor, discrete concepts, and a linear head over them.

    The concepts are learned from class labels alone. Smooth in training, they are 0 or 1 in `eval()`.

    Args:
        backbone: any module from images to features (B, D) or feature maps (B, C, H, W), such as a timm model made with
            num_classes=0 or a torchvision one without its last layer.
        n_concepts: at least 1.
        n_classes: at least 2.
        in_features: size of the backbone's output, D or C; None to infer it from the first input.
        surrogate: as in `nn.ConceptLayer`.

    Attributes:
        concept_layer: the `nn.ConceptLayer`.
        head: the `torch.nn.Linear` over the concepts.
        image_shape: (C, H, W) of the training images, as `concepts.fit` sets it; images of other shapes are then
            refused. None before.

    Shape:
        Images to class scores (B, n_classes).

    Raises:
        TypeError: if the backbone is not a module, or in the forward pass the images or features are not
            floating-point.
        ValueError: if a number is out of range, or in the forward pass the images or features have another shape.

    Example:
        >>> import torch
        >>> model = ICBM(nn.Flatten(), n_concepts=8, n_classes=3, in_features=16).eval()
        >>> images = torch.rand(5, 1, 4, 4)
        >>> model(images).shape, model.concepts(images).shape
        (torch.Size([5, 3]), torch.Size([5, 8]))
        >>> with model.intervene({2: 1, 5: 0}):
        ...     model.concepts(images)[0, [2, 5]].tolist()
        [1.0, 0.0]
    """

    image_shape: tuple[int, ...] | None = None

    def __init__(
        self,
        backbone: nn.Module,
        n_concepts: int,
        n_classes: int,
        *,
        in_features: int | None = None,
        surrogate: SurrogateLike = "htaf(alpha=0.5)",
    ):
        super().__init__()
        if not isinstance(backbone, nn.Module):
            raise TypeError(f"backbone: expected a module, got {backbone!r}")
        if not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"n_classes: expected an integer >= 2, got {n_classes!r}")
        self.backbone, self.concept_layer = backbone, ConceptLayer(in_features, n_concepts, surrogate)
        self.head = nn.Linear(n_concepts, n_classes)
        self._interventions: list[dict[int, float | Tensor]] = []

    def __getstate__(self) -> dict:
        """Return the state for copies and pickles, which do not take over the interventions of this model."""
        return {**self.__dict__, "_interventions": []}

    @property
    def is_binary(self) -> bool:
        """Whether concepts are 0 or 1 in `eval()`; not so for "relu"."""
        return not isinstance(self.concept_layer.activation, nn.ReLU)

    def check_binary(self) -> None:
        """Raise ValueError unless concepts are 0 or 1 in `eval()`, so that they can be kept as bits."""
        if not self.is_binary:
            raise ValueError("model: expected concepts that are 0 or 1, got the real ones of relu")

    @property
    def neurons(self) -> list[nn.Module]:
        """The concepts' activation, whose mean output is recorded in training."""
        return [self.concept_layer.activation]

    def potentials(self, x: Tensor) -> Tensor:
        """Return the concepts' potentials (B, n_concepts); a concept is 1 where its potential is greater than 0."""
        check_images(x, self.image_shape)
        features = self.backbone(x)
        if not isinstance(features, Tensor) or not features.is_floating_point():
            raise TypeError(f"backbone: expected a floating-point tensor as its output, got {type(features).__name__}")
        return self.concept_layer.potentials(features)

    def concepts(self, x: Tensor) -> Tensor:
        """Return concepts (B, n_concepts), with those of `intervene` set; 0 or 1 in `eval()`, except for "relu"."""
        concepts = self.concept_layer.activation(self.potentials(x))
        if not self._interventions:
            return concepts
        concepts = concepts.clone()
        for concept, value in (pair for values in self._interventions for pair in values.items()):
            if isinstance(value, Tensor) and len(value) != len(concepts):
                expected = f"{len(concepts)} for concept {concept}, one per image"
                raise ValueError(f"values: expected {expected}, got {len(value)}")
            concepts[:, concept] = value.to(concepts) if isinstance(value, Tensor) else value
        return concepts

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.concepts(x))

    @contextmanager
    def intervene(self, values: Mapping[int, float | Sequence[float] | Tensor]) -> Iterator[ICBM]:
        """Set concepts to given values within the block; of nested blocks the inner one takes precedence.

        Args:
            values: by the concept's number, an integer of any type: 0 or 1 for all images, or (B,) values of 0 or 1,
                one per image, as a tensor, an array or a list.

        Raises:
            TypeError: if they are not a mapping.
            ValueError: if there is no such concept, or a value is not 0 or 1; in the forward pass, if the
                numbers of values and images differ.

        Example:
            >>> import torch
            >>> model, images = ICBM(nn.Flatten(), n_concepts=4, n_classes=2, in_features=16), torch.rand(3, 1, 4, 4)
            >>> with model.eval().intervene({0: 1, 2: [0, 1, 1]}):
            ...     model.concepts(images)[:, [0, 2]].tolist()
            [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values: expected a mapping such as {{7: 1}}, got {values!r}")
        size = self.head.in_features
        own = {index_of("values", c, size, "concepts "): _bits(c, value) for c, value in values.items()}
        self._interventions.append(own)
        try:
            yield self
        finally:
            # By identity, as blocks may end in another order than they began.
            self._interventions = [values for values in self._interventions if values is not own]


def _bits(concept, value) -> float | Tensor:
    """Return 0.0 or 1.0, or a tensor (B,) of them."""
    try:
        bits = torch.as_tensor(value).detach().clone()
    except (TypeError, ValueError, RuntimeError):
        bits = torch.full((), torch.nan)
    if bits.ndim > 1 or not ((bits == 0) | (bits == 1)).all():
        raise ValueError(f"values: expected 0 or 1 for concept {concept}, or (B,) of them, got {value!r}")
    return bits if bits.ndim else float(bits)


class ImageEncoder(Chain):
    """A small convolutional backbone for images of 8 x 8 to 64 x 64 or so: three stages, each halving the resolution.

    Args:
        in_channels: of the images.
        width: channels of the first stage; the others have twice and four times as many.

    Shape:
        Images (B, in_channels, H, W) to features (B, 4 * width).

    Raises:
        ValueError: if a size is no integer of at least 1; in the forward pass, if the images have another number of
            channels or are smaller than 8 x 8.

    Example:
        >>> import torch
        >>> ImageEncoder(1, 8)(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 32])
    """

    def __init__(self, in_channels: int, width: int = 32):
        check_counts(in_channels=in_channels, width=width)
        layers: list[nn.Module] = []
        for a, b in ((in_channels, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out_features = 4 * width
        # Else torch's pooling alone takes half the time of a training step on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        channels = self[0].in_channels
        if x.ndim != 4 or x.shape[1] != channels or min(x.shape[2:]) < 8:
            raise ValueError(f"x: expected images (B, {channels}, H, W) of 8 x 8 at least, got {tuple(x.shape)}")
        return super().forward(x.contiguous(memory_format=torch.channels_last))
