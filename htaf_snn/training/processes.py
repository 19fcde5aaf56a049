"""Several processes that train one network together, through Lightning Fabric."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Processes:
    """The processes that `torchrun` started, each with a copy of the network and a part of every batch.

    Args:
        fabric: a launched one; `launched` makes it.

    Attributes:
        count: how many there are, on all machines.
        first: whether this is the one that reads and writes files.
        device: this process's.

    Example:
        Started alone there are none, and what takes `processes` gets None.

        >>> processes = Processes.launched()
        >>> processes is None
        True
    """

    def __init__(self, fabric: Fabric):
        self._fabric = fabric
        self.count, self.first, self.device = fabric.world_size, fabric.is_global_zero, fabric.device

    @classmethod
    def launched(cls, device: str = "cpu") -> Processes | None:
        """Those that this one was started with by `torchrun`; None if it was started alone.

        Args:
            device: "cpu", or "cuda" for a GPU each.

        Raises:
            ImportError: if Lightning Fabric is not installed.
        """
        everywhere, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        if everywhere == 1:
            return None
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies import DDPStrategy
        except ImportError:
            raise ImportError('several processes: pip install "htaf-snn[distributed]"') from None
        # snnTorch's neurons keep their potential as a buffer, of the size of a process's own batch.
        strategy = DDPStrategy(broadcast_buffers=False)
        fabric = Fabric(accelerator=device, devices=here, num_nodes=everywhere // here, strategy=strategy)
        fabric.launch()
        return cls(fabric)

    def together(self, model: nn.Module) -> nn.Module:
        """The model, moved to the process's device, as a module whose gradients are the means over all processes.

        On GPUs the statistics of BatchNorm are those of the whole batch, on CPUs those of a process's part.
        """
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with warnings.catch_warnings():
            # Torch 2.15 renames the option; 2.11 does not know the new name.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return self._fabric.setup(model)

    def sum(self, *values: float) -> list[float]:
        """The values' sums over all processes, the same in each."""
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        return self._fabric.all_reduce(mine, reduce_op="sum").tolist()

    def from_first(self, value: Any) -> Any:
        """The first process's value, which has to be one that can be pickled; the others' are not looked at."""
        return self._fabric.broadcast(value)

    def share_statistics(self, model: nn.Module) -> None:
        """Give the statistics of BatchNorm layers, of which each process has seen its part, the means over all."""
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                for statistic in (module.running_mean, module.running_var):
                    statistic.copy_(self._fabric.all_reduce(statistic, reduce_op="mean"))

    def leave(self) -> None:
        """Wait for all, then part: a process that ends while another still uses their connection would fail it."""
        self._fabric.barrier()
        torch.distributed.destroy_process_group()

    def part_of(self, loader: DataLoader, fewest: int = 0) -> DataLoader:
        """A loader of this process's part of every batch of so many samples; the parts of all make the batch."""
        return DataLoader(
            loader.dataset,
            batch_sampler=_Part(loader.batch_sampler, self._fabric.global_rank, self.count, fewest),
            num_workers=loader.num_workers,
            persistent_workers=loader.persistent_workers,
            pin_memory=loader.pin_memory,
            collate_fn=loader.collate_fn,
            generator=loader.generator,
        )


class _Part(BatchSampler):
    """Every `count`-th index of each batch of `fewest` or more, from the `rank`-th on; of small ones maybe none."""

    def __init__(self, batches: BatchSampler, rank: int, count: int, fewest: int):
        self._batches, self._rank, self._count, self._fewest = batches, rank, count, fewest

    def __iter__(self) -> Iterator[list]:
        return (batch[self._rank :: self._count] for batch in self._batches if len(batch) >= self._fewest)

    def __len__(self) -> int:
        return len(self._batches)
