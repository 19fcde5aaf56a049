"""Recordings larger than memory, in a stream of frames."""

from pathlib import Path

import numpy as np
import pytest
from event_files import EVENTS, FORMATS, HEIGHT, SIZE, WIDTH, file, write

from neuromorphic_datasets import RecordingError, _streaming, read_events, stream, to_frames

# Recordings larger than memory.


def long(count, seed=0):
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENTS.dtype)
    events["x"], events["y"] = rng.integers(WIDTH, size=count), rng.integers(HEIGHT, size=count)
    events["p"], events["t"] = rng.random(count) < 0.5, np.cumsum(rng.integers(0, 40, size=count))
    events["t"][count // 2 :] += 5000  # a pause of several windows
    return events


@pytest.mark.parametrize("piece", [64, 1000, 1 << 18])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.npz"])
def test_a_stream_gives_the_frames_of_the_whole(tmp_path, monkeypatch, name, piece):
    monkeypatch.setattr(_streaming, "_PIECE", piece)
    path = write(tmp_path, name, long(3000))
    size = (256, 256, 2)
    expected = to_frames(read_events(path), size, time_window=999.5)
    frames = list(stream(path, time_window=999.5, sensor_size=size))
    np.testing.assert_array_equal(np.stack(frames), expected)
    assert expected.sum() == 3000
    assert (expected.sum((1, 2, 3)) == 0).any()


def test_a_stream_takes_the_size_that_a_file_states(tmp_path):
    [frame] = stream(write(tmp_path, "a.raw"), time_window=1e6)
    assert frame.shape == (2, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"^sensor_size: expected .*, as .*a\.bin does not state it, got None"):
        stream(write(tmp_path, "a.bin"), time_window=10)
    with pytest.raises(ValueError, match=r"^path: expected a format that can be read in pieces, got .*a\.npz"):
        stream(write(tmp_path, "a.npz"), time_window=10, sensor_size=SIZE)
    with pytest.raises(ValueError, match=r"^time_window: expected a finite number > 0"):
        stream(write(tmp_path, "a.raw"), time_window=0)


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of the memory is read from Linux")
@pytest.mark.parametrize("name", ["a.npy", "b.raw", "a.csv"])
def test_the_memory_of_a_stream_does_not_grow_with_the_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(_streaming, "_PIECE", 1 << 14)

    def growth(count):
        path = write(tmp_path, name, long(count))
        stream(path, time_window=1e5, sensor_size=(256, 256, 2))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, frames = peak(), 0
        for frame in stream(path, time_window=1e5, sensor_size=(256, 256, 2)):
            frames += int(frame.sum())
        assert frames == count
        return peak() - before

    growth(100_000)
    assert growth(1_000_000) < growth(100_000) + (4 << 20)


def peak():
    """Return the largest resident size of this process so far, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def test_faults_in_a_stream_are_named_by_their_event(tmp_path, monkeypatch):
    monkeypatch.setattr(_streaming, "_PIECE", 64)
    events = long(500)
    events["t"][300] = 0
    for name in ("b.raw", "a.csv", "a.npy"):
        frames = stream(write(tmp_path, name, events), time_window=100, sensor_size=SIZE)
        with pytest.raises(RecordingError, match="event 300: the time goes back"):
            list(frames)


@pytest.mark.parametrize("name", ["b.raw", "a.csv", "a.npy"])
def test_faulty_events_of_a_stream_are_dropped_on_request(tmp_path, monkeypatch, name):
    monkeypatch.setattr(_streaming, "_PIECE", 64)
    events = long(500)
    events["t"][[100, 300]] = 0
    path = write(tmp_path, name, events)
    with pytest.warns(UserWarning, match=rf"{name}: faults dropped: 2; the first: event 100: the time goes back"):
        frames = [*stream(path, time_window=100, sensor_size=SIZE, on_error="drop")]
    with pytest.warns(UserWarning, match="faults dropped: 2"):
        expected = to_frames(read_events(path, on_error="drop"), SIZE, time_window=100)
    np.testing.assert_array_equal(np.stack(frames), expected)
    events["t"][:90] = events["t"][89::-1]
    with pytest.raises(RecordingError, match=rf"{name}: \d+ of 500 events are faulty, more than a tenth; the first: "):
        [*stream(write(tmp_path, name, events), time_window=100, sensor_size=SIZE, on_error="drop")]
    with pytest.raises(ValueError, match=r"^on_error: expected 'raise' or 'drop', got 'skip'"):
        stream(path, time_window=100, sensor_size=SIZE, on_error="skip")


def test_a_stream_without_valid_events_is_refused(tmp_path):
    path = file(tmp_path, "a.csv", "t,x,y,p\n0,9,1,0\n5,9,1,1\n")
    with pytest.raises(RecordingError, match=r"at least one event, got none; faults dropped: 2; the first: event 0: "):
        [*stream(path, time_window=100, sensor_size=(2, 2, 2), on_error="drop")]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("t,x,y,p\n0,1,1,0\n5,1,1,1\n", {"sensor_size": (2, 2, 1)}, "expected events of one polarity"),
        ("t,x,y,p\n0,1,1,0\n5,1,1,-1\n9,1,1,1\n", {"sensor_size": (2, 2, 2)}, "expected p to be 0 or 1 in all"),
    ],
)
def test_a_stream_judges_polarities_as_the_whole(tmp_path, monkeypatch, content, options, message):
    monkeypatch.setattr(_streaming, "_PIECE", 1)
    path = file(tmp_path, "a.csv", content)
    with pytest.raises((RecordingError, ValueError), match=message):
        read_events(path, **options)
    with pytest.raises((RecordingError, ValueError), match=message):
        list(stream(path, time_window=100, **options))


def test_a_last_piece_of_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(_streaming, "_PIECE", 1)
    path = file(tmp_path, "a.csv", "t,x,y,p\n0,1,1,0\n5,1,1,1\n\n\n")
    [frame] = stream(path, time_window=100, sensor_size=(2, 2, 2))
    assert frame.sum() == len(read_events(path)) == 2
