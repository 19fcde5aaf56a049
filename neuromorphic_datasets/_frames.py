"""From events to frames."""

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from ._dataset import EventDataset


def time_bin_counts(events: np.ndarray, sensor_size: tuple[int, int, int], time_bins: int) -> np.ndarray:
    """Count the events of each time bin, polarity and pixel.

    The same frames as ``tonic.transforms.ToFrame(sensor_size, n_time_bins=time_bins)`` makes: bins of whole
    µs from the first event on, and the up to `time_bins` µs that remain at the end, the last event's among
    them, are left out. Where ToFrame drops all events, because the recording lasts fewer µs than there are
    bins, they are kept here in bins of 1 µs. Counts do not overflow, and `events` is left as it is.

    Args:
        events: a structured array of x, y, t (µs) and p (0 or 1), in any order.
        sensor_size: (width, height, polarities).
        time_bins: the number of bins, >= 1.

    Returns:
        int64 array of shape (time_bins, polarities, height, width).

    Raises:
        ValueError: an event lies outside the sensor.

    Example:
        >>> events = np.array([(1, 0, 5, 1), (0, 0, 7, 0)], dtype=[(f, "i8") for f in "xytp"])
        >>> time_bin_counts(events, (2, 1, 2), 3)[0].tolist()
        [[[0, 0]], [[0, 1]]]
    """
    width, height, polarities = sensor_size
    shape = (time_bins, polarities, height, width)
    if len(events) == 0:
        return np.zeros(shape, np.int64)
    elapsed = events["t"] - events["t"].min()
    window = max(int(elapsed.max()) // time_bins, 1)
    time_bin = elapsed // window
    kept = time_bin < time_bins
    place = (time_bin[kept], *(events[field][kept].astype(np.intp) for field in "pyx"))
    cell = np.ravel_multi_index(place, shape)
    return np.bincount(cell, minlength=np.prod(shape)).reshape(shape)


class FrameDataset(Dataset):
    """Recordings of an `EventDataset` as frames, computed once and held in memory.

    Indexing gives ``(counts, label)``: an array of shape (T, C, H, W), of the smallest unsigned dtype that
    holds every count of the set, and an int.

    Attributes:
        frames: the counts of all recordings, (n, T, C, H, W).
        targets: the labels, int64 of shape (n,).
        classes: the names of the classes, by label.
    """

    def __init__(self, recordings: EventDataset, chosen: np.ndarray, time_bins: int):
        width, height, polarities = recordings.sensor_size
        self.targets = recordings.targets[chosen]
        self.classes = recordings.classes
        self.frames = np.zeros((len(chosen), time_bins, polarities, height, width), np.uint8)
        for row, position in enumerate(tqdm(chosen, desc=f"{recordings.name} frames", delay=1)):
            counts = time_bin_counts(recordings.events(position), recordings.sensor_size, time_bins)
            if counts.max() > np.iinfo(self.frames.dtype).max:
                self.frames = self.frames.astype(np.min_scalar_type(counts.max()))
            self.frames[row] = counts

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.frames[index], int(self.targets[index])
