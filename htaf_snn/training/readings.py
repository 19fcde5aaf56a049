"""What a training reads of a network while it runs: spike rates and figures, without waiting for a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..nn._batches import Batch, sent


class SpikeRates:
    """Mean output of each of a model's `neurons`, collected by forward hooks within the block.

    For activations with levels -1 and 1 it is the share of the upper level. In a batch with lengths, outputs
    (T, B, …) beyond them do not count, nor do passes without gradients, which measure something else.
    """

    def __init__(self, model: nn.Module):
        self._neurons: list[nn.Module] = list(getattr(model, "neurons", ()))
        self.batch: Batch | None = None

    def __enter__(self) -> SpikeRates:
        self._sums: list[float | Tensor] = [0.0] * len(self._neurons)
        self._sizes = [0] * len(self._neurons)
        self._hooks = [neuron.register_forward_hook(self._add_to(i)) for i, neuron in enumerate(self._neurons)]
        return self

    def _add_to(self, i: int) -> Callable:
        def hook(module, inputs, output):
            if not torch.is_grad_enabled():
                return
            # The neurons of snnTorch and Norse return their spikes and their state.
            output = (output[0] if isinstance(output, tuple) else output).detach()
            size, batch = output.numel(), self.batch
            if batch is not None and batch.lengths is not None and output.shape[:2] == batch.x.shape[:2]:
                size = int(batch.lengths.sum()) * output[0, 0].numel()
                output = _without_padding(output, batch.lengths)
            self._sums[i] = self._sums[i] + output.sum(dtype=torch.float64)
            self._sizes[i] += size

        return hook

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()

    def sums(self) -> Tensor:
        """Return the sums so far, float64, on the device of the outputs."""
        made = [total for total in self._sums if isinstance(total, Tensor)]
        if not made:
            return torch.zeros(len(self._sums), dtype=torch.float64)
        return torch.stack([total if isinstance(total, Tensor) else torch.zeros_like(made[0]) for total in self._sums])

    def sizes(self) -> list[float]:
        return [float(size) for size in self._sizes]

    def mean(self, sums: list[float], sizes: list[float]) -> list[float]:
        """Return the means of sums and sizes, as shares of the upper level."""
        levels = [getattr(neuron, "levels", (0, 1)) for neuron in self._neurons]
        return [
            (s / max(size, 1) - low) / (high - low) for s, size, (low, high) in zip(sums, sizes, levels, strict=True)
        ]


class Readings:
    """Reads numbers of a step: at once, or from a GPU one step late, so that training never waits for it."""

    def __init__(self, is_late: bool):
        self._is_late = is_late
        self._waiting: list[tuple[torch.cuda.Event, Tensor, Callable]] = []

    def read(self, numbers: Tensor, use: Callable[[list[float]], None]) -> None:
        """Call `use` with the numbers; it may raise."""
        if not self._is_late:
            use(numbers.tolist())
            return
        here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        here.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(numbers.device))
        self._waiting.append((event, here, use))
        if len(self._waiting) > 1:
            self._use_first()

    def finish(self) -> None:
        """Use the numbers that wait."""
        while self._waiting:
            self._use_first()

    def _use_first(self) -> None:
        event, numbers, use = self._waiting.pop(0)
        event.synchronize()
        try:
            use(numbers.tolist())
        except FloatingPointError:
            self._waiting.clear()  # what follows from it would hide it
            raise


def _without_padding(output: Tensor, lengths: Tensor) -> Tensor:
    """Return outputs (T, B, …) with 0 beyond each sample's length."""
    valid = torch.arange(len(output), device=output.device)[:, None] < sent(lengths, output.device)
    return output.where(valid.view(*valid.shape, *[1] * (output.ndim - 2)), 0)
