"""Changes of training samples at random, the same at all time steps of a sample."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from .._packages import needs
from ..nn._batches import Batch


def augmented(batch: Batch, names: Collection[str]) -> Batch:
    """Return a batch of changed samples.

    Args:
        batch: of frames (T, B, C, H, W) or images (B, C, H, W).
        names: of `configuration.AUGMENTATIONS`; none leaves the batch as it is.

    Raises:
        ValueError: if the inputs are no frames or images.
    """
    if not names or not len(batch.labels):
        return batch
    x = batch.x
    if x.ndim not in (4, 5):
        raise ValueError(f"augment: expected frames (T, B, C, H, W) or images (B, C, H, W), got {tuple(x.shape)}")
    change, of_samples = _changes(names), x.ndim - 4
    return batch._replace(x=torch.stack([change(sample) for sample in x.unbind(of_samples)], of_samples))


def _changes(names: Collection[str]):
    with needs("images"):
        from torchvision.transforms import v2

    made = {
        "flip": v2.RandomHorizontalFlip(0.5),
        "shift": v2.RandomAffine(0, translate=(1 / 8, 1 / 8)),
        "cutout": v2.RandomErasing(0.5, scale=(0.02, 0.2)),
    }

    def change(sample: Tensor) -> Tensor:
        for name in names:
            sample = made[name](sample)
        return sample

    return change
