"""Loaders of sets that make their batches at once."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler


def loader(
    frames: Dataset,
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    collate: Callable[[Sequence], Any],
    shuffled: bool = False,
) -> DataLoader:
    """Make the loader of a set whose `__getitems__` returns `Samples`."""
    return DataLoader(
        frames,
        batch_size=batch_size,
        sampler=_Order(frames, seed) if shuffled else None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=collate,
        # Without its own generator every pass advances the global one, and resuming is not exact.
        generator=torch.Generator().manual_seed(seed),
    )


class Samples(Sequence):
    """Samples for torch's loaders to collate, together with the batch, made at once, which is faster.

    Args:
        batch: the batch that our own loaders return.
        samples: returns the single samples; called when another loader asks for one.
    """

    def __init__(self, batch: tuple[torch.Tensor, ...], samples: Callable[[], Iterable[tuple]]):
        self.batch, self._make = batch, samples

    @functools.cached_property
    def _samples(self) -> list[tuple]:
        return list(self._make())

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int | slice) -> Any:
        return self._samples[index]

    def __reduce__(self) -> tuple[type, tuple[list]]:
        return list, (self._samples,)  # another process with its own collate_fn has no use for the batch


class _Order(DistributedSampler):
    """The training order of an epoch; each index comes with the epoch, which workers would not know otherwise."""

    def __init__(self, frames: Dataset, seed: int):
        # The sampler draws from seed + epoch; seeds are spaced so that no two of them share the order of an epoch.
        super().__init__(frames, num_replicas=1, rank=0, shuffle=True, seed=seed << 20)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())
