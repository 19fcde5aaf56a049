"""N-MNIST from full, partial and broken local copies."""

import numpy as np
import pytest
import tonic.datasets
from folders import real_data

import neuromorphic_datasets


def encode(x, y, t, p):
    """Return one event in N-MNIST's five bytes."""
    return bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])


def write(place, part, digit, name, events=((1, 2, 3, 1),)):
    """Write a recording of (x, y, t, p) events; return its path."""
    file = place / part / str(digit) / f"{name}.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(encode(*event) for event in events))
    return file


@pytest.fixture
def copy(tmp_path):
    """A partial copy: two digits, three recordings for training and one for testing."""
    write(tmp_path, "Train", 7, "00010", [(1, 2, 3, 1), (33, 0, 70_000, 0)])
    write(tmp_path, "Train", 7, "00002")
    write(tmp_path, "Train", 3, "00005")
    write(tmp_path, "Test", 3, "00001", [(5, 6, 9, 0)])
    return tmp_path


def test_partial_copy_is_read_in_order(copy):
    dataset = neuromorphic_datasets.load("nmnist", root=copy)
    assert (dataset.name, dataset.sensor_size, dataset.classes) == ("nmnist", (34, 34, 2), list("0123456789"))
    assert dataset.targets.tolist() == [3, 7, 7]
    assert dataset.targets.dtype == np.int64
    events, label = dataset[2]
    assert label == 7
    assert events.dtype == tonic.datasets.NMNIST.dtype
    assert events.tolist() == [(1, 2, 3, 1), (33, 0, 70_000, 0)]


def test_all_is_train_then_test(copy):
    assert neuromorphic_datasets.load("nmnist", "test", root=copy)[0][0].tolist() == [(5, 6, 9, 0)]
    assert neuromorphic_datasets.load("nmnist", "all", root=copy).targets.tolist() == [3, 7, 7, 3]


def test_root_may_be_the_parent_of_nmnist(tmp_path):
    write(tmp_path / "NMNIST", "Train", 4, "00001")
    assert neuromorphic_datasets.load("nmnist", root=str(tmp_path)).targets.tolist() == [4]


def test_timestamp_overflow_events_are_understood(tmp_path):
    write(tmp_path, "Train", 1, "00001", [(1, 1, 5, 0), (0, 240, 0, 0), (1, 1, 5, 0)])
    assert neuromorphic_datasets.load("nmnist", root=tmp_path)[0][0]["t"].tolist() == [5, 5 + 2**13]


def test_transform_is_applied(copy):
    assert neuromorphic_datasets.load("nmnist", root=copy, transform=len)[2] == (2, 7)


@pytest.mark.parametrize("content", [b"", b"1234", b"1234567", bytes(5)])
def test_truncated_file_is_named(copy, content):
    file = copy / "Train" / "7" / "00002.bin"
    file.write_bytes(content)
    message = r"00002\.bin: (the file is empty|byte \d|all its)"
    with pytest.raises(neuromorphic_datasets.RecordingError, match=message):
        neuromorphic_datasets.load("nmnist", root=copy)[1]


def test_event_outside_the_sensor_is_named(tmp_path):
    write(tmp_path, "Train", 1, "00009", [(1, 2, 3, 1), (34, 7, 4, 1)])
    dataset = neuromorphic_datasets.load("nmnist", root=tmp_path)
    with pytest.raises(ValueError, match=r"00009\.bin: event 1: \(x=34, y=7\) is off the sensor of 34 x 34"):
        dataset[0]


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "other part only", "empty class folder"])
def test_absent_data_are_explained(tmp_path, kind):
    root = tmp_path / "data"
    if kind == "file":
        root.write_bytes(b"")
    elif kind == "other part only":
        write(root, "Test", 1, "00001")
    elif kind == "empty class folder":
        (root / "Train" / "3").mkdir(parents=True)
    elif kind == "empty":
        root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"^root: expected N-MNIST") as caught:
        neuromorphic_datasets.load("nmnist", root=root)
    message = str(caught.value)
    assert "Train/[0-9]/*.bin" in message
    assert str(root) in message
    assert "download=True" in message
    assert {"missing": "does not exist", "file": "got a file"}.get(kind, "without any") in message


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "mnist"}, ValueError, r"^name: expected one of \['asldvs', .*'stmnist'\], a folder .*, got 'm"),
        ({"name": None}, TypeError, "^name: expected a name, a folder"),
        ({"split": "val"}, ValueError, r"^split: expected one of \['train', 'test', 'all'\], got 'val'"),
        ({"split": None}, ValueError, "^split: expected one of"),
        ({"root": 5}, TypeError, "^root: expected a path or None, got 5 of type int"),
        ({"download": 1}, TypeError, "^download: expected True or False, got 1 of type int"),
        ({"transform": 3}, TypeError, "^transform: expected a callable or None, got 3"),
    ],
)
def test_load_checks_its_arguments(copy, arguments, error, message):
    with pytest.raises(error, match=message):
        neuromorphic_datasets.load(**{"name": "nmnist", "root": copy, **arguments})


@pytest.mark.real_data
def test_real_copy_is_read_as_tonic_reads_it(tmp_path, monkeypatch):
    root = real_data("nmnist")
    train = neuromorphic_datasets.load("nmnist", root=root)
    assert len(train) == 1000
    assert len(neuromorphic_datasets.load("nmnist", "all", root=root)) == 1100
    # Tonic wants its own folder name and 10 000 files.
    monkeypatch.setattr(tonic.datasets.NMNIST, "_check_exists", lambda self: True)
    (tmp_path / "NMNIST").symlink_to(root.resolve())
    peer = tonic.datasets.NMNIST(str(tmp_path))
    assert train.targets.tolist() == peer.targets
    for index in range(0, 1000, 100):
        np.testing.assert_array_equal(train[index][0], peer[index][0])


@pytest.mark.real_data
def test_real_copy_in_folds():
    _, _, test = neuromorphic_datasets.loaders("nmnist", root=real_data("nmnist"), fold=0, folds=5)
    assert len(test.dataset) == 220
    frames, labels = next(iter(test))
    assert frames.shape == (10, 32, 2, 34, 34)
    assert len(labels) == 32
