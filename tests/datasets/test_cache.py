"""Packed files: content, damage, crashes, concurrent processes."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from neuromorphic_datasets import _cache
from neuromorphic_datasets._events import EVENT_DTYPE, Events, Recording


def recordings(sizes=(1, 7, 100), seed=0):
    rng = np.random.default_rng(seed)
    for size in sizes:
        events = np.zeros(size, EVENT_DTYPE)
        for field, high in (("x", 300), ("y", 20), ("p", 2)):
            events[field] = rng.integers(high, size=size)
        events["t"] = np.sort(rng.integers(-50, 1 << 20, size=size)) + 10**15
        yield events


def make(calls, sizes=(1, 7, 100)):
    """Return a builder that notes each call in `calls`."""

    def build(file):
        calls.append(1)
        writer = _cache.Writer(file, (300, 20, 2))
        for number, events in enumerate(recordings(sizes)):
            writer.add(Recording(Events.of(events)), 5 - number, number)
        writer.finish()

    return build


def assert_holds(packed, sizes=(1, 7, 100)):
    assert len(packed) == len(sizes)
    assert packed.labels.tolist() == [5 - number for number in range(len(sizes))]
    for number, events in enumerate(recordings(sizes)):
        np.testing.assert_array_equal(packed.events(number).structured(), events)


def test_a_pack_gives_back_what_was_built(tmp_path):
    calls = []
    for _ in range(2):
        packed = _cache.load_or_build(tmp_path / "new" / "x.pack", make(calls))
        assert_holds(packed)
        assert packed.sensor_size == (300, 20, 2)
    assert len(calls) == 1
    # 2 + 2 bytes of coordinates, 4 of time, a bit of polarity.
    assert packed.block_bytes() == 8 * 108 + 1 + 1 + 13


def test_long_recordings_keep_their_times(tmp_path):
    events = np.zeros(3, EVENT_DTYPE)
    events["t"] = [5, 6, 1 << 40]

    def build(file):
        writer = _cache.Writer(file, None)
        writer.add(Recording(Events.of(events)), 0, 0)
        writer.add(Recording(Events.of(events[:2]), (7, 9, 2)), 0, 1)
        writer.finish()

    packed = _cache.load_or_build(tmp_path / "x.pack", build)
    assert packed.events(0).t.tolist() == [5, 6, 1 << 40]
    assert packed.sensor_size == (7, 9, 2)


def test_a_copy_in_another_process_is_mapped_again(tmp_path):
    packed = _cache.load_or_build(tmp_path / "x.pack", make([], (100_000,)))
    assert len(pickle.dumps(packed)) < 1000
    assert_holds(pickle.loads(pickle.dumps(packed)), (100_000,))


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "longer", "trailer", "zeros", "short"])
def test_a_damaged_pack_is_rebuilt(tmp_path, damage):
    path = tmp_path / "x.pack"
    _cache.load_or_build(path, make([]))
    good = path.read_bytes()
    flipped, trailer = bytearray(good), bytearray(good)
    flipped[len(good) // 2] ^= 1
    trailer[-20] ^= 0xFF
    bad = {
        "truncated": good[:-7],
        "empty": b"",
        "flipped": flipped,
        "longer": good + b"!",
        "trailer": trailer,
        "zeros": bytes(len(good)),
        "short": good[:10],
    }
    path.write_bytes(bad[damage])
    calls = []
    with pytest.warns(UserWarning, match="damaged"):
        assert_holds(_cache.load_or_build(path, make(calls)))
    assert len(calls) == 1
    assert path.read_bytes() == good


def test_crash_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "x.pack"
    path.write_bytes(b"old")

    def crash(source, target):
        assert os.path.getsize(source) > 800
        assert os.path.dirname(source) == str(tmp_path)
        raise OSError("disk gone")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk gone"), pytest.warns(UserWarning, match="damaged"):
        _cache.load_or_build(path, make([]))
    assert path.read_bytes() == b"old"
    assert {file.name for file in tmp_path.iterdir()} <= {"x.pack", "x.pack.lock"}


def test_a_full_disk_leaves_nothing(tmp_path):
    def build(file):
        writer = _cache.Writer(file, (300, 20, 2))
        writer.add(Recording(Events.of(next(recordings((100,))))), 0, 0)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _cache.load_or_build(tmp_path / "x.pack", build)
    assert {file.name for file in tmp_path.iterdir()} <= {"x.pack.lock"}


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    _cache.load_or_build(tmp_path / "x.pack", make([]))
    assert order == ["fsync", "replace"]


PROGRAM = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    import numpy as np
    from neuromorphic_datasets import _packing
    from neuromorphic_datasets._dataset import EventDataset
    from neuromorphic_datasets._events import EVENT_DTYPE, Events, Recording

    folder, name, slow, processes = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])

    class Made(EventDataset):
        def events(self, position):
            (folder / f"read-by-{name}").touch()
            time.sleep(slow)
            events = np.zeros(1 + position, EVENT_DTYPE)
            events["t"] = np.arange(1 + position) * 3
            return events

    made = Made("made", "all", (5, 5, 2), ["0"], np.zeros(40, int), fingerprint="40 of them")
    (folder / f"ready-{name}").touch()
    while len(list(folder.glob("ready-*"))) < processes:
        time.sleep(0.01)
    packed, places = _packing.pack(made, folder, n_time_bins=int(sys.argv[5]) or None, num_workers=0)
    assert places.tolist() == list(range(40)), places
    print(packed.path)
""")


def start(folder, name, slow=0.01, processes=1, bins=0):
    arguments = [sys.executable, "-c", PROGRAM, str(folder), name, str(slow), str(processes), str(bins)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.thorough
@pytest.mark.parametrize("bins", [0, 1])
def test_four_processes_build_once(tmp_path, bins):
    processes = [start(tmp_path, name, processes=4, bins=bins) for name in "abcd"]
    paths = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(paths) == 1
    assert len(list(tmp_path.glob("read-by-*"))) == 1
    assert len(list(tmp_path.glob("*.pack"))) == 1


@pytest.mark.thorough
def test_a_killed_build_is_finished_by_the_next_run(tmp_path):
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    killed.mkdir()
    clean.mkdir()
    process = start(killed, "a", slow=0.5)
    while not list(killed.glob("*.part")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(killed.glob("*.pack"))
    for folder in (killed, clean):
        process = start(folder, "b", slow=0)
        process.communicate(timeout=120)
        assert process.returncode == 0
    [one], [other] = killed.glob("*.pack"), clean.glob("*.pack")
    assert one.read_bytes() == other.read_bytes()
    assert not list(killed.glob("*.part"))
