"""Training of one network by several processes, through Lightning Fabric."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler

from .._packages import needs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class Processes:
    """The processes that `torchrun` started, each with a copy of the network and a shard of every batch.

    Args:
        fabric: a launched one; `launched` makes it.

    Attributes:
        world_size: number of processes on all machines.
        rank: number of this process among them.
        is_main: whether this is the process that reads and writes files.
        device: this process's device.

    Example:
        A process started alone has no peers, and None is passed as `processes`.

        >>> processes = Processes.launched()
        >>> processes is None
        True
    """

    def __init__(self, fabric: Fabric):
        self._fabric = fabric
        self.world_size, self.rank = fabric.world_size, fabric.global_rank
        self.is_main, self.device = fabric.is_global_zero, fabric.device

    @classmethod
    def launched(cls, device: str = "cpu") -> Processes | None:
        """Return the processes that `torchrun` started together with this one; None if it was started alone.

        Args:
            device: "cpu", or "cuda" for one GPU per process.

        Raises:
            ImportError: if Lightning Fabric is not installed.
        """
        everywhere, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        if everywhere == 1:
            return None
        with needs("distributed"):
            from lightning_fabric import Fabric
            from lightning_fabric.strategies import DDPStrategy
        # snnTorch's neurons keep their potential as a buffer whose size is that of the process's own shard.
        strategy = DDPStrategy(broadcast_buffers=False)
        fabric = Fabric(accelerator=device, devices=here, num_nodes=everywhere // here, strategy=strategy)
        fabric.launch()
        return cls(fabric)

    def setup(self, model: nn.Module) -> nn.Module:
        """Return the model, moved to the process's device, as a module that averages gradients over all processes.

        BatchNorm uses the statistics of the whole batch on GPUs, those of the process's shard on CPUs.
        """
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with warnings.catch_warnings():
            # Torch 2.15 renames the option; 2.11 does not know the new name.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            network = self._fabric.setup(model)
        if hasattr(model, "stream"):  # its gradients are averaged as those of the forward pass
            network.mark_forward_method("stream")
        return network

    def sum(self, *values: float) -> list[float]:
        """Return the sums of the values over all processes, the same in each."""
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        return sums.tolist()

    def broadcast(self, value: T) -> T:
        """Return the main process's value, which must be picklable; those of the others are ignored."""
        return self._fabric.broadcast(value)

    def average_statistics(self, model: nn.Module) -> None:
        """Set the statistics of BatchNorm layers, each from its process's shards, to their means over all processes."""
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for statistic in module.buffers(recurse=False):
                    if statistic.is_floating_point():  # unlike the number of batches
                        torch.distributed.all_reduce(statistic)
                        statistic /= self.world_size

    def shutdown(self) -> None:
        """Synchronise, then shut down; exiting early would break peers."""
        self._fabric.barrier()
        torch.distributed.destroy_process_group()

    def shard(self, loader: Iterable, min_samples: int = 0) -> DataLoader:
        """Return a loader of this process's shard of every batch of at least so many samples.

        Raises:
            TypeError: if the loader is no `DataLoader` that makes batches.
        """
        if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
            raise TypeError(f"loader: expected a DataLoader that makes batches, got {type(loader).__name__}")
        return DataLoader(
            loader.dataset,
            batch_sampler=_Shard(loader, self._fabric.global_rank, self.world_size, min_samples),
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
            pin_memory=loader.pin_memory,
            collate_fn=loader.collate_fn,
            generator=loader.generator,
        )


class _Shard(Sampler[list]):
    """Every `world_size`-th index of each batch of `min_samples` or more, from the `rank`-th on; maybe none."""

    def __init__(self, loader: DataLoader, rank: int, world_size: int, min_samples: int):
        self._loader, self._rank, self._world_size, self._min_samples = loader, rank, world_size, min_samples

    def __iter__(self) -> Iterator[list]:
        batches = (batch for batch in self._loader.batch_sampler or () if len(batch) >= self._min_samples)
        return (batch[self._rank :: self._world_size] for batch in batches)

    def __len__(self) -> int:
        return len(self._loader)
