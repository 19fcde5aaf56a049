"""Data sets into packed files: read in parallel, once, and kept."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from . import _cache
from ._dataset import EventDataset, digest
from ._frames import to_frames
from .readers import RecordingError

# Raise it when the same recordings would give other bytes.
_VERSION = 1
# Below this many recordings starting processes takes longer than reading.
_FEW = 200


def pack(
    recordings: EventDataset,
    folder: Path,
    *,
    n_time_bins: int | None = None,
    on_error: str = "raise",
    num_workers: int | None = None,
) -> tuple[_cache.Pack, np.ndarray]:
    """Return a packed file of the recordings and the place of each recording in it, -1 if it was left out.

    It holds events, or frames of `n_time_bins` where these need fewer bytes.

    Args:
        recordings: what to pack, without their transform.
        folder: where the file goes, under a name made of the set, its split, the state of its files and, for
            frames, their number.
        n_time_bins: the frames wanted; None packs events.
        on_error: "raise" on a damaged recording, or "skip" it; a warning counts them then.
        num_workers: processes that read; None is one for each core, and this process for few recordings.

    Raises:
        RecordingError: with "raise", at the first damaged one.
    """
    kept = recordings.packed()
    if kept is not None:
        return kept
    key = digest([_VERSION, recordings.fingerprint, recordings.sensor_size, on_error])
    events_path = folder / f"{recordings.name}-{recordings.split}-{key}.pack"
    frames_path = events_path.with_suffix(f".{n_time_bins}.pack")

    def built() -> _cache.Pack:
        for path in (events_path, frames_path):
            if path.is_file() and (found := _cache.opened(path)) is not None:
                return found
        events = _cache.load_or_build(events_path, lambda file: _write_events(file, recordings, on_error, num_workers))
        return _smaller(events, frames_path, n_time_bins)

    with _cache.locked(events_path):
        packed = built()
    places = np.full(len(recordings), -1)
    places[packed.sources] = np.arange(len(packed))
    return packed, places


def _smaller(events: _cache.Pack, frames_path: Path, n_time_bins: int | None) -> _cache.Pack:
    """Pack frames and delete the events if frames need fewer bytes."""
    if n_time_bins is None or len(events) * n_time_bins * int(np.prod(events.sensor_size)) >= events.block_bytes():
        return events
    frames = _cache.load_or_build(frames_path, lambda file: _write_frames(file, events, n_time_bins))
    events.path.unlink(missing_ok=True)
    return frames


class _Readable(Dataset):
    """Events, or the error that reading them gave; errors cannot be raised in a worker without ending it."""

    def __init__(self, recordings: EventDataset):
        self._recordings = recordings

    def __len__(self) -> int:
        return len(self._recordings)

    def __getitem__(self, position: int):
        try:
            return position, *self._recordings.read(position)
        except RecordingError as error:
            return position, error, None


def _write_events(file: BinaryIO, recordings: EventDataset, on_error: str, num_workers: int | None) -> None:
    if num_workers is None:
        num_workers = (os.cpu_count() or 1) if len(recordings) >= _FEW else 0
    loader = DataLoader(_Readable(recordings), batch_size=None, num_workers=num_workers, collate_fn=_unchanged)
    writer, damaged = _cache.Writer(file, recordings.sensor_size), []
    progress = tqdm(loader, desc=f"packing {recordings.name} {recordings.split}", unit="recording", delay=1)
    for position, events, stated in progress:
        if isinstance(events, RecordingError):
            if on_error == "raise":
                raise events
            damaged.append(events)
        else:
            writer.add_events(events, int(recordings.targets[position]), position, stated)
    if damaged:
        count = f"{len(damaged)} of {len(recordings)} recordings"
        warnings.warn(f"{count} are left out; the first: {damaged[0]}", stacklevel=2)
        if len(damaged) == len(recordings):
            raise RecordingError(f"{recordings.name}: no recording can be read; the first: {damaged[0]}")
    writer.finish()


def _unchanged(sample):
    return sample


def _write_frames(file: BinaryIO, events: _cache.Pack, n_time_bins: int) -> None:
    width, height, polarities = events.sensor_size
    dtype = np.min_scalar_type(max(_frames(events, position, n_time_bins).max() for position in range(len(events))))
    writer = _cache.Writer(file, events.sensor_size)
    for position in tqdm(range(len(events)), desc="packing frames", unit="recording", delay=1):
        frames = _frames(events, position, n_time_bins).astype(dtype)
        writer.add_frames(frames, int(events.labels[position]), int(events.sources[position]))
    writer.finish((n_time_bins, polarities, height, width), dtype)


def _frames(events: _cache.Pack, position: int, n_time_bins: int) -> np.ndarray:
    recorded = events.events(position)
    remainder = remainder_of(recorded["t"], n_time_bins)
    return to_frames(recorded, events.sensor_size, n_time_bins=n_time_bins, remainder=remainder, dtype=np.int32)


def remainder_of(t: np.ndarray, n_time_bins: int) -> str:
    """Return "drop", as ToFrame does, but for recordings of fewer µs than bins, of which it would drop all events."""
    return "keep" if len(t) and t[-1] - t[0] < n_time_bins else "drop"
