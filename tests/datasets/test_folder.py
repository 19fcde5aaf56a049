"""Your own recordings in class folders."""

import pickle
import shutil

import numpy as np
import pytest
from event_files import BINARY, EVENTS, ON_DISK, write

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventFolder, RecordingError, to_frames

# The files state different sensor sizes.
FORMATS = len(BINARY) + len(ON_DISK)
SIZE = (256, 256, 2)


@pytest.fixture
def root(tmp_path):
    """Two classes: one with every format, one with three files in folders; and files that are not recordings."""
    folder = tmp_path / "mine"
    (folder / "all kinds").mkdir(parents=True)
    (folder / "raw" / "monday").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for name in [*BINARY, *ON_DISK]:
        write(folder / "all kinds", name)
    for name in ("1.raw", "2.raw", "3.raw"):
        (folder / "raw" / "monday" / name).write_bytes(BINARY["a.raw"](EVENTS[: int(name[0]) + 1]))
    (folder / "raw" / ".a.raw").write_bytes(b"nor this")
    return folder


def test_every_format_in_one_folder(root, tmp_path):
    recordings = EventFolder(root, sensor_size=SIZE, cache=tmp_path)
    assert (recordings.name, recordings.classes) == ("mine", ["all kinds", "raw"])
    assert recordings.targets.tolist() == [0] * FORMATS + [1] * 3
    assert recordings.sensor_size == SIZE
    for position in range(FORMATS):
        events, label = recordings[position]
        assert label == 0
        for field in "xytp":
            np.testing.assert_array_equal(events[field], EVENTS[field])
    assert [len(recordings[position][0]) for position in (FORMATS, FORMATS + 1, FORMATS + 2)] == [2, 3, 4]
    assert [file.name for file in recordings.files[-3:]] == ["1.raw", "2.raw", "3.raw"]


def test_the_smallest_sensor_where_no_file_states_one(root, tmp_path):
    for file in (root / "all kinds").iterdir():
        if file.name not in ("a.bin", "a.npy", "b.dat"):
            file.unlink()
    for file in (root / "raw" / "monday").iterdir():
        file.unlink()
    write(root / "raw" / "monday", "a.bin", EVENTS[:3])
    assert EventFolder(root, cache=tmp_path).sensor_size == (16, 12, 2)


@pytest.mark.parametrize("options", [{"time_window": 10_000}, {"n_time_bins": 4}])
def test_frames(root, tmp_path, options):
    recordings = EventFolder(root, sensor_size=SIZE, cache=tmp_path, **options)
    frames, _ = recordings[0]
    np.testing.assert_array_equal(frames, to_frames(EVENTS, SIZE, remainder="keep", **options))
    assert frames.sum() == len(EVENTS)


def test_a_transform_and_pickling(root, tmp_path):
    recordings = EventFolder(root, sensor_size=SIZE, transform=len, cache=tmp_path)
    copy = pickle.loads(pickle.dumps(recordings))
    assert [copy[position][0] for position in (0, FORMATS)] == [6, 2]
    assert len(copy) == FORMATS + 3


def test_files_are_read_once_and_again_when_they_change(root, tmp_path, monkeypatch):
    from neuromorphic_datasets import event_folder

    EventFolder(root, sensor_size=SIZE, cache=tmp_path)
    read, reading = [], event_folder.read_recording
    monkeypatch.setattr(event_folder, "read_recording", lambda *arguments: read.append(1) or reading(*arguments))
    EventFolder(root, sensor_size=SIZE, cache=tmp_path)
    assert read == []
    write(root / "raw" / "monday", "a.raw", EVENTS[:1])
    assert len(EventFolder(root, sensor_size=SIZE, cache=tmp_path)) == FORMATS + 4
    assert len(read) >= FORMATS + 4


def test_loaders_divide_it(root, tmp_path):
    for number in range(4):
        write(root / "raw" / "monday", "a.es").rename(root / "raw" / "monday" / f"{number}.es")
    recordings = EventFolder(root, sensor_size=SIZE, cache=tmp_path)
    train, val, test = nd.loaders(recordings, n_time_bins=3, cache=tmp_path, test_fraction=0.25, val_fraction=0.25)
    parts = [loader.dataset for loader in (train, val, test)]
    assert sum(map(len, parts)) == len(recordings) == FORMATS + 7
    assert all(set(part.targets.tolist()) == {0, 1} for part in parts)
    frames, _ = next(iter(test))
    assert frames.shape == (3, len(test.dataset), 2, 256, 256)


def test_damaged_files(root, tmp_path):
    bad = root / "raw" / "monday" / "2.raw"
    bad.write_bytes(bad.read_bytes()[:-1])
    with pytest.raises(RecordingError, match=r"2\.raw: byte \d+: expected words"):
        EventFolder(root, sensor_size=SIZE, cache=tmp_path)
    with pytest.warns(UserWarning, match=r"^1 of 21 recordings are left out; the first: .*2\.raw"):
        recordings = EventFolder(root, sensor_size=SIZE, cache=tmp_path, on_error="skip")
    assert len(recordings) == len(recordings.files) == FORMATS + 2
    assert [file.name for file in recordings.files[-2:]] == ["1.raw", "3.raw"]
    assert [len(recordings[position][0]) for position in (-2, -1)] == [2, 4]


def test_nothing_but_damaged_files(tmp_path):
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "1.raw").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="1 of 1"),
        pytest.raises(RecordingError, match="mine: no recording can be read"),
    ):
        EventFolder(tmp_path / "mine", cache=tmp_path, on_error="skip")


def test_events_off_the_stated_sensor(root, tmp_path):
    with pytest.raises(RecordingError, match=r"is off the sensor of 8 x 8 pixels"):
        EventFolder(root, sensor_size=(8, 8, 2), cache=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": "missing"}, FileNotFoundError, "root: expected a folder of class folders, got none at"),
        ({"root": "empty"}, FileNotFoundError, r"empty: expected recordings \(\.bin .* got no class folder"),
        ({"time_window": 5, "n_time_bins": 5}, ValueError, "expected at most one of them"),
        ({"on_error": "ignore"}, ValueError, "^on_error: expected 'raise', 'skip' or 'drop', got 'ignore'"),
        ({"sensor_size": (1, 2)}, TypeError, "^sensor_size"),
        ({"time_window": -5}, ValueError, "^time_window"),
        (
            {"columns": "txyz"},
            ValueError,
            "^columns: expected the letters t, x, y and p in some order, y or not, such as \"txyp\", got 'txyz'",
        ),
    ],
)
def test_arguments_are_checked(root, tmp_path, options, error, message):
    (tmp_path / "empty").mkdir()
    place = tmp_path / options.pop("root") if "root" in options else root
    with pytest.raises(error, match=message):
        EventFolder(place, cache=tmp_path, **{"sensor_size": SIZE, **options})[0]


def test_files_that_are_not_read_are_counted(root, tmp_path):
    (root / "raw" / "notes.txt").write_text("not a recording")
    (root / "raw" / "monday" / "4.bag").write_bytes(b"nor this")
    (root / "5.raw").write_bytes(b"in no class")
    with pytest.warns(UserWarning, match=r"not read: 3 \(.*\.txt 1.*\), the first 5\.raw"):
        assert len(EventFolder(root, sensor_size=SIZE, cache=tmp_path)) == FORMATS + 3


def test_a_cache_in_the_folder_itself_is_ignored(root):
    for _ in range(2):
        assert len(EventFolder(root, sensor_size=SIZE, cache=root)) == FORMATS + 3


@pytest.mark.parametrize("parts", [("Training", "validation", "test"), ("train",), ("test", "more")])
def test_parts_of_a_divided_set_are_not_classes(root, tmp_path, parts):
    for part in parts:
        shutil.copytree(root, tmp_path / "divided" / part)
    with pytest.raises(
        ValueError, match=r"divided: expected a folder for each class, got the parts .*; name them train, test"
    ):
        EventFolder(tmp_path / "divided", cache=tmp_path)
    recordings = EventFolder(tmp_path / "divided" / parts[0], sensor_size=SIZE, cache=tmp_path)
    assert recordings.classes == ["all kinds", "raw"]


def test_a_class_may_be_called_train(root, tmp_path):
    for name in ("bus", "train"):
        shutil.copytree(root / "raw" / "monday", root / name)
    assert EventFolder(root, sensor_size=SIZE, cache=tmp_path).classes == ["all kinds", "bus", "raw", "train"]


def test_a_class_without_recordings_is_refused(root, tmp_path):
    (root / "none").mkdir()
    (root / "none" / "a.bag").write_bytes(b"of no known format")
    with pytest.raises(FileNotFoundError, match=r"got none in \['none'\]; .* not read: 1 \(\.bag 1\)"):
        EventFolder(root, sensor_size=SIZE, cache=tmp_path)


def test_columns_without_a_table_are_refused(root, tmp_path):
    shutil.rmtree(root / "all kinds")
    with pytest.raises(ValueError, match=r"^columns: expected None, as it has no effect on a file of .*, got 'txyp'"):
        EventFolder(root, columns="txyp", cache=tmp_path)
