"""Sparse heads over binary concepts, over real features and over the latents of a sparse autoencoder.

Each head uses at most so many features per class, selected alike. The autoencoder is made by SAELens, which brings some
60 packages: `pip install sae-lens` in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from htaf_snn import concepts
from htaf_snn.models import ICBM


class Features(NamedTuple):
    """What a model computes of N images: the backbone's output (N, D), concepts (N, K), real for ReLU, and labels."""

    backbone: Tensor
    concepts: Tensor
    labels: Tensor


@torch.no_grad()
def features_of(model: ICBM, loader: Iterable) -> Features:
    """Return the features of all images of a loader, in its order, on the CPU."""
    model.eval()
    parts = []
    for images, labels in loader:
        backbone = model.backbone(images.to(model.head.weight.device))
        found = model.concept_layer(backbone)
        backbone = backbone.mean((2, 3)) if backbone.ndim == 4 else backbone
        parts.append((backbone.cpu(), found.cpu(), labels))
    return Features(*map(torch.cat, zip(*parts, strict=True)))


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with mean 0 and deviation 1 of the training features."""
    scaler = StandardScaler().fit(train.numpy())
    return torch.from_numpy(scaler.transform(train.numpy())), torch.from_numpy(scaler.transform(test.numpy()))


def sparse_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], n_classes: int, most: int) -> dict:
    """Return the test accuracy of a sparse head over features (N, K) with labels (N,)."""
    head = concepts.sparse_head(*train, n_classes, most)
    features, labels = test
    decided = (features.double() @ head.weight.T + head.bias).argmax(1)
    return {
        "test_accuracy": (decided == labels).double().mean().item(),
        "weights_per_class": (head.weight != 0).double().sum(1).mean().item(),
    }


def binary(model: ICBM, train_loader: Iterable, test_loader: Iterable, most: int = 8) -> dict:
    """Return the figures of a sparse head over a model's bits."""
    train, test = (concepts.codes(model, loader) for loader in (train_loader, test_loader))
    return sparse_accuracy((train[:], train.labels), (test[:], test.labels), model.head.out_features, most)


def unbinarised(model: ICBM, train_loader: Iterable, test_loader: Iterable, most: int = 8) -> dict:
    """Return the figures of a sparse head over the standardised real concepts of a ReLU model.

    Returns:
        {"test_accuracy", "weights_per_class", "dense_accuracy": of the model's own head}.
    """
    train, test = (features_of(model, loader) for loader in (train_loader, test_loader))
    with torch.no_grad():
        decided = model.head(test.concepts.to(model.head.weight)).argmax(1).cpu()
    of_train, of_test = standardised(train.concepts, test.concepts)
    found = sparse_accuracy((of_train, train.labels), (of_test, test.labels), model.head.out_features, most)
    return {**found, "dense_accuracy": (decided == test.labels).double().mean().item()}


def autoencoder(
    model: ICBM,
    train_loader: Iterable,
    test_loader: Iterable,
    most: int = 8,
    *,
    active: int = 16,
    epochs: int = 20,
    seed: int = 0,
) -> dict:
    """Return the figures of a sparse head over the latents of a top-k sparse autoencoder, made by SAELens.

    The autoencoder is trained on the backbone's standardised output, and has as many latents as the model has concepts,
    of which `active` are not 0 for an image.

    Returns:
        {"test_accuracy", "weights_per_class", "explained": share of the variance of the test images that is
        reconstructed, "dead": number of latents that are 0 in all of them}.
    """
    train, test = (features_of(model, loader) for loader in (train_loader, test_loader))
    x, x_test = standardised(train.backbone, test.backbone)
    encoder = trained_autoencoder(x, model.head.in_features, active, epochs, seed)
    with torch.no_grad():
        latents, of_test = encoder.encode(x), encoder.encode(x_test)
        residual = (encoder.decode(of_test) - x_test).square().sum() / (x_test - x_test.mean(0)).square().sum()
    inputs = standardised(latents, of_test)
    found = sparse_accuracy((inputs[0], train.labels), (inputs[1], test.labels), model.head.out_features, most)
    return {**found, "explained": 1 - residual.item(), "dead": int((of_test == 0).all(0).sum())}


def trained_autoencoder(x: Tensor, n_latents: int, active: int, epochs: int, seed: int) -> torch.nn.Module:
    """Return a top-k sparse autoencoder of features (N, D), trained by SAELens with its defaults.

    Reference:
        Gao et al. 2024, "Scaling and evaluating sparse autoencoders", arXiv 2406.04093.
    """
    try:
        from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.config import SAETrainerConfig
    except ImportError:
        raise ImportError("SAELens is not installed; pip install sae-lens") from None
    size = 512
    steps = epochs * len(x) // size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=x.shape[1], d_sae=n_latents, k=active))
        config = SAETrainerConfig(
            total_training_samples=steps * size,
            train_batch_size_samples=size,
            lr=1e-3,
            lr_end=1e-4,
            lr_decay_steps=steps // 5,
            dead_feature_window=max(1, steps // 10),  # the default is for longer trainings
        )
        return SAETrainer(config, encoder, batches(x, size)).fit().eval()


def batches(x: Tensor, size: int) -> Iterator[Tensor]:
    """Yield batches of rows for ever, in a new order for each pass."""
    while True:
        for chosen in torch.randperm(len(x)).split(size):
            if len(chosen) == size or len(x) < size:
                yield x[chosen]


HEADS: dict[str, tuple[str, Callable[..., dict]]] = {
    "bits of htaf": ("htaf", binary),
    "real concepts of relu": ("relu", unbinarised),
    "latents of a sparse autoencoder on relu's backbone": ("relu", autoencoder),
}
"""The arm whose models each kind of features is of, and the function that gives the figures of its head."""
