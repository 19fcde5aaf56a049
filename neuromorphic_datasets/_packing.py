"""Packing of data sets into files: read in parallel, once, and kept."""

import contextlib
import functools
import os
import re
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch.utils.data import DataLoader, Dataset

from . import _cache, _checks
from ._dataset import EventDataset, digest, fingerprint_text, is_ours, recording_of
from ._events import RecordingError
from ._frames import count, slices
from ._packages import version_of
from ._progress import bar

# For fewer recordings, starting processes takes longer than reading.
_FEW = 200


def pack(
    recordings: EventDataset,
    folder: Path,
    *,
    n_time_bins: int | None = None,
    remainder: str = "keep",
    on_error: str = "raise",
    num_workers: int | None = None,
) -> tuple[_cache.Pack, np.ndarray]:
    """Return a packed file of the recordings and the position of each recording in it, -1 if it was left out.

    The file holds events, or `n_time_bins` frames per recording if these take fewer bytes. It is kept for later runs,
    unless the recordings have no fingerprint: then it is deleted with its last user.

    Args:
        recordings: the recordings to pack, without their transform.
        folder: the folder of the file, whose name is made from everything that determines its contents.
        n_time_bins: the number of frames needed per recording; None packs events.
        remainder: as in `to_frames`.
        on_error: "raise" on damage, "skip" damaged recordings, or "drop" faulty events, and recordings that cannot be
            read or of whose events more than a tenth are faulty; the last two warn.
        num_workers: reading processes; None is one per core, or none besides this one for few recordings.

    Raises:
        TypeError, ValueError: the labels are not one per recording, or not those of the classes, or the fingerprint is
            not a string.
        RecordingError: with "raise", at the first damaged recording; otherwise if no recording is left.
    """
    _checks.labels("targets", recordings.targets, len(recordings.classes))
    if len(recordings) != len(recordings.targets):
        raise ValueError(f"targets: expected {len(recordings)}, one per recording, got {len(recordings.targets)}")
    existing = recordings.packed()
    if existing is not None and is_ours(recordings.events):
        return existing
    fingerprint = fingerprint_text(recordings)
    name = re.sub(r"[^\w.-]", "_", f"{recordings.name}-{recordings.split}")
    temporary = None if fingerprint else _cache.TemporaryFolder(folder, name)
    file = "recordings.pack" if temporary else f"{name}-{_key(recordings, fingerprint, on_error)}.pack"
    events_path = (temporary.path if temporary else folder) / file
    frames_path = events_path.with_suffix(f".{n_time_bins}-{remainder}.pack")
    with contextlib.ExitStack() as undo:
        if temporary:  # an error may be kept, and the folder with it
            undo.callback(temporary.delete)
        with _cache.locked(events_path):
            packed = _cache.opened(events_path)
            if packed is None:
                packed = _cache.opened(frames_path)
            if packed is None:
                write = functools.partial(
                    _write_events, recordings=recordings, on_error=on_error, num_workers=num_workers
                )
                packed = _smaller(_cache.load_or_build(events_path, write), frames_path, n_time_bins, remainder)
        undo.pop_all()
    packed.folder = temporary
    places = np.full(len(recordings), -1)
    places[packed.sources] = np.arange(len(packed))
    _report_left_out(recordings, packed, places)
    return packed, places


def _key(recordings: EventDataset, fingerprint: str, on_error: str) -> str:
    """Return digits that depend on everything that determines the contents of a packed file of events."""
    kind = type(recordings)
    return digest(
        [
            _code(),
            (kind.__module__, kind.__qualname__, recordings.name, recordings.split),
            fingerprint,
            recordings.sensor_size,
            recordings.targets.tolist(),
            on_error,
        ]
    )


@functools.cache
def _code() -> str:
    """Return digits of the reading code, so that recordings are read again after it changes."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return digest([*((file.name, file.read_bytes()) for file in files), version_of("faery"), version_of("tonic")])


def _smaller(events: _cache.Pack, frames_path: Path, n_time_bins: int | None, remainder: str) -> _cache.Pack:
    """Pack frames and delete the events if the frames take fewer bytes."""
    if n_time_bins is None or len(events) * n_time_bins * int(np.prod(events.sensor_size)) >= events.block_bytes():
        return events
    frames = _cache.load_or_build(frames_path, lambda file: _write_frames(file, events, n_time_bins, remainder))
    events.path.unlink(missing_ok=True)
    return frames


def _report_left_out(recordings: EventDataset, packed: _cache.Pack, places: np.ndarray) -> None:
    """Warn of damage that is left out, now or by the run that packed the file."""
    left_out = np.count_nonzero(places < 0)
    if left_out:
        lost = np.setdiff1d(recordings.targets, recordings.targets[places >= 0])
        classes = f"; no recording is left of the classes {[recordings.classes[label] for label in lost]}"
        count = f"{left_out} of {len(recordings)} recordings are left out"
        warnings.warn(f"{count}; the first: {packed.damage.missing}{classes if len(lost) else ''}", stacklevel=3)
    if packed.damage.dropped:
        warnings.warn(f"faults dropped: {packed.damage.dropped}; the first: {packed.damage.fault}", stacklevel=3)
    if packed.damage.enlarged:
        warnings.warn(packed.damage.enlarged, stacklevel=3)


def check_on_error(value: str) -> None:
    """Raise ValueError unless `value` is one of the treatments of damage."""
    if value not in ("raise", "skip", "drop"):
        raise ValueError(f"on_error: expected 'raise', 'skip' or 'drop', got {value!r}")


class _Readable(Dataset):
    """Each recording, or the error in reading it."""

    def __init__(self, recordings: EventDataset, lenient: bool):
        self._recordings, self._lenient = recordings, lenient

    def __len__(self) -> int:
        return len(self._recordings)

    def __getitem__(self, position: int) -> tuple:
        try:
            return position, recording_of(self._recordings, position, self._lenient)
        except RecordingError as error:  # would end a worker
            return position, error


def _write_events(file: BinaryIO, recordings: EventDataset, on_error: str, num_workers: int | None) -> None:
    if num_workers is None:
        num_workers = (os.cpu_count() or 1) if len(recordings) >= _FEW else 0
    loader = DataLoader(
        _Readable(recordings, on_error == "drop"), batch_size=None, num_workers=num_workers, collate_fn=_unchanged
    )
    writer, damaged = _cache.Writer(file, recordings.sensor_size), []
    dropped, first_dropped = 0, ""
    progress = bar(loader, desc=f"packing {recordings.name} {recordings.split}", unit="recording", delay=1)
    for position, recording in progress:
        where = recordings.where(position)
        fault = recording if isinstance(recording, RecordingError) else None
        if fault is None and (faults := recording.too_faulty()):
            fault = RecordingError(f"{where}: {faults}")
        try:
            if not fault:
                writer.add(recording, int(recordings.targets[position]), position)
        except (TypeError, ValueError) as error:
            fault = RecordingError(f"{where}: {error}", getattr(error, "remedy", None))
        if fault and on_error == "raise":
            # A new one: one that this frame holds would keep the frame, and with it the file, until a collection.
            raise RecordingError(str(fault), fault.remedy)
        damaged += [str(fault)] if fault else []
        if not fault and recording.dropped:
            dropped += recording.dropped
            first_dropped = first_dropped or f"{where}: {recording.fault}"
    if not len(recordings):
        raise RecordingError(f"{recordings.name}: expected at least one recording, got none")
    if len(damaged) == len(recordings):
        warnings.warn(f"{len(damaged)} of {len(damaged)} recordings are left out", stacklevel=2)
        raise RecordingError(f"{recordings.name}: no recording can be read; the first: {damaged[0]}")
    enlarged = _enlarged(recordings, writer)
    writer.finish(damage=_cache.Damage(damaged[0] if damaged else "", dropped, first_dropped, enlarged))


def _enlarged(recordings: EventDataset, writer: _cache.Writer) -> str:
    """Return what says that recordings with dropped events alone make the sensor larger, or ""."""
    found = writer.enlarging()
    if found is None:
        return ""
    positions, (width, height), (least_width, least_height) = found
    return (
        f"only recordings with faulty events make the sensor {width} × {height} pixels: {len(positions)}, the first "
        f"{recordings.where(positions[0])}; all others fit on {least_width} × {least_height}; set sensor_size"
    )


def _unchanged(sample: Any) -> Any:
    return sample


def _write_frames(file: BinaryIO, events: _cache.Pack, n_time_bins: int, remainder: str) -> None:
    width, height, polarities = events.sensor_size

    def frames(position: int) -> np.ndarray:
        recording = events.events(position)
        starts, ends = slices(recording.t, n_time_bins=n_time_bins, remainder=remainder)
        return count(recording, starts, ends, np.zeros((n_time_bins, polarities, height, width), np.int32))

    dtype = np.min_scalar_type(max(frames(position).max() for position in range(len(events))))
    writer = _cache.Writer(file, events.sensor_size)
    for position in bar(range(len(events)), desc="packing frames", unit="recording", delay=1):
        entry = (int(values[position]) for values in (events.counts, events.durations, events.labels, events.sources))
        writer.add_frames(frames(position).astype(dtype), *entry)
    writer.finish((n_time_bins, polarities, height, width), dtype, events.damage)
