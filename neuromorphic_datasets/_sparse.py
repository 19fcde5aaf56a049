"""Frames of a batch as rows in torch's CSR layout, of which only the cells with events are stored."""

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from ._events import Events


def rows_of(
    recordings: Sequence[Events],
    cuts: Sequence[tuple[np.ndarray, np.ndarray]],
    steps: int,
    size: tuple[int, int, int],
    naming: Sequence[AbstractContextManager],
) -> torch.Tensor:
    """Return the counts of recordings as a CSR tensor, float32 of shape (T * B, C * H * W), time first.

    Args:
        recordings: the events of each.
        cuts: the slices of each one's frames, as `_frames.slices` returns them.
        steps: the number of time steps, T; shorter recordings have empty rows at the end.
        size: (width, height, polarities).
        naming: for each recording, a context that names it in errors.

    Raises:
        ValueError: an event is off the sensor.
    """
    from . import _kernels

    width, height, polarities = size
    sizes, parts = np.zeros((steps, len(recordings)), np.int64), []
    counts = np.zeros(width * height * polarities, np.int32)
    for number, (events, (starts, ends)) in enumerate(zip(recordings, cuts, strict=True)):
        most = int((ends - starts).sum())  # overlapping frames share events
        columns, values = np.empty(most, np.int64), np.empty(most, np.float32)
        own = np.zeros(len(starts), np.int64)
        with naming[number]:
            place = events.x, events.rows(), events.channels(polarities)
            if _kernels.cells(*place, starts, ends, height, width, counts, columns, values, own) >= 0:
                events.on(size)
        sizes[: len(starts), number] = own
        parts.append((own, columns, values))
    crow = np.concatenate([[0], sizes.ravel().cumsum()])
    all_columns, all_values = np.empty(crow[-1], np.int64), np.empty(crow[-1], np.float32)
    starts = crow[:-1].reshape(sizes.shape)
    for number, (own, columns, values) in enumerate(parts):
        row_starts = np.ascontiguousarray(starts[: len(own), number])
        _kernels.place_rows(row_starts, own, columns, values, all_columns, all_values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(
            torch.from_numpy(crow),
            torch.from_numpy(all_columns),
            torch.from_numpy(all_values),
            size=(sizes.size, counts.size),
            check_invariants=False,
        )
