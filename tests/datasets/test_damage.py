"""Files that are no recordings, or damaged ones, in a folder of recordings."""

import pickle
import warnings

import numpy as np
import pytest
from event_files import csv

import neuromorphic_datasets as nd
from neuromorphic_datasets import EVENT_DTYPE, EventFolder, RecordingError

PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>The file is gone.</body></html>\n" * 4


def moving(count=100, seed=0):
    """Return events of a sensor of 20 x 10 pixels that reaches from corner to corner."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["x"], events["y"], events["p"] = rng.integers(20, size=count), rng.integers(10, size=count), 1
    events["x"][0], events["y"][0] = 19, 9
    events["t"] = np.arange(count) * 1000 + seed
    return events


def nmnist(events):
    return b"".join(
        bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, t, p in events[["x", "y", "t", "p"]].tolist()
    )


@pytest.fixture
def folder(tmp_path):
    """Two classes of four recordings as .bin."""
    for label, name in enumerate(("left", "right")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "mine" / name / f"{number}.bin").write_bytes(nmnist(moving(seed=4 * label + number)))
    return tmp_path / "mine"


def test_a_page_is_no_recording(folder, tmp_path):
    (folder / "right" / "3.bin").write_bytes(PAGE)
    fault = (
        r"^1 of 8 recordings are left out; the first: .*3\.bin: \d+ of \d+ events are faulty, more than a tenth; the"
    )
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match=fault):
            recordings = EventFolder(folder, on_error="drop", cache=tmp_path)
        assert len(recordings) == 7 and recordings.sensor_size == (20, 10, 2)


def test_what_cannot_be_read_is_left_out_when_faults_are_dropped(folder, tmp_path):
    (folder / "right" / "3.bin").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"^1 of 8 recordings are left out; the first: .*3\.bin: the file is empty"):
        assert len(EventFolder(folder, on_error="drop", cache=tmp_path)) == 7


def test_a_faulty_file_that_alone_enlarges_the_sensor_is_named(folder, tmp_path):
    events = moving()
    events["x"][50], events["t"][51] = 200, 0
    (folder / "left" / "2.bin").write_bytes(nmnist(events))
    with pytest.warns(UserWarning) as caught:
        recordings = EventFolder(folder, on_error="drop", cache=tmp_path)
    assert recordings.sensor_size == (201, 10, 2)
    [enlarged] = [str(one.message) for one in caught if "make the sensor" in str(one.message)]
    assert enlarged.startswith("only recordings with faulty events make the sensor 201 × 10 pixels: 1, the first ")
    assert "2.bin; all others fit on 20 × 10; set sensor_size" in enlarged
    with pytest.warns(UserWarning, match="faults dropped: 2"), warnings.catch_warnings():
        warnings.filterwarnings("error", "only recordings")
        assert EventFolder(folder, on_error="drop", sensor_size=(20, 10, 2), cache=tmp_path).sensor_size[0] == 20


def test_an_error_says_how_to_leave_files_out(folder, tmp_path):
    (folder / "left" / "2.bin").write_bytes(b"")
    with pytest.raises(RecordingError, match=r'2\.bin: the file is empty; on_error="skip" leaves such files out'):
        EventFolder(folder, cache=tmp_path)


@pytest.mark.parametrize("n_time_bins", [2, 50])
def test_loaders_know_durations_and_numbers_of_events(tmp_path, n_time_bins):
    for label, name in enumerate(("a", "b")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(5):
            long = moving(200 + number, seed=label)
            (tmp_path / "mine" / name / f"{number}.csv").write_bytes(csv(long, "t,x,y,p"))
    own = nd.EventList([moving(200 + number) for number in range(5)] * 2, [0] * 5 + [1] * 5)
    for source in (tmp_path / "mine", own):
        place = {"cache": tmp_path, "val_fraction": 0}
        parts = nd.loaders(source, n_time_bins=n_time_bins, **place)
        counts = np.concatenate([part.dataset.event_counts for part in parts if part])
        durations = np.concatenate([part.dataset.durations for part in parts if part])
        assert sorted(counts) == sorted([200 + number for number in range(5)] * 2)
        np.testing.assert_array_equal(durations, (counts - 1) * 1000)


def test_an_error_keeps_its_remedy_between_processes():
    error = pickle.loads(pickle.dumps(RecordingError("a.csv: no names", "columns")))
    assert (str(error), error.remedy) == ("a.csv: no names", "columns")
