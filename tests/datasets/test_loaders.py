"""Loaders."""

import numpy as np
import pytest
import torch

import neuromorphic_datasets as nd
from neuromorphic_datasets import loaders, to_frames, transforms
from neuromorphic_datasets._dataset import EventDataset
from neuromorphic_datasets._events import EVENT_DTYPE

SIZE = (34, 34, 2)


def recording(rng, count=50, last=1000):
    """Return `count` random events within `last` µs."""
    events = np.zeros(count, EVENT_DTYPE)
    for field, high in (("x", 34), ("y", 34), ("p", 2)):
        events[field] = rng.integers(high, size=count)
    events["t"] = np.sort(rng.integers(last, size=count))
    return events


class Made(EventDataset):
    """A data set of given recordings."""

    def __init__(self, recordings, targets):
        super().__init__("made", "all", SIZE, ["0", "1"], targets, fingerprint="made")
        self.recordings = recordings

    def events(self, position):
        return self.recordings[position]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """An N-MNIST copy: three digits with 20 recordings each for training and 5 for testing.

    Each recording holds its own number among its events, so that it is known again in a loader.
    """
    folder = tmp_path_factory.mktemp("nmnist")
    number = 0
    for part, count in (("Train", 20), ("Test", 5)):
        for digit in range(3):
            (folder / part / str(digit)).mkdir(parents=True)
            for _ in range(count):
                event = bytes([number % 34, number // 34, 0, 0, 0])
                end = bytes([0, 33, 0x80, 0, 100])
                (folder / part / str(digit) / f"{number:05}.bin").write_bytes(event + end)
                number += 1
    return folder


def numbers(loader):
    """Return the numbers of the recordings in the order of the loader."""
    order = []
    for frames, labels in loader:
        cells = frames[0, :, 0].flatten(1)
        assert (cells.sum(1) == 1).all()
        order.extend(cells.argmax(1).tolist())
        assert len(labels) == frames.shape[1]
    return order


def test_sets_see_positions_only():
    made = Made({0: "first", 1: "last"}, [0, 1])
    assert (made[-1], made[np.int64(0)]) == (("last", 1), ("first", 0))
    with pytest.raises(IndexError, match="index -3 is out of range for made, which has 2 recordings"):
        made[-3]


def test_batches_are_time_first_float32_and_int64(root):
    train, val, test = loaders("nmnist", root=root, batch_size=4, n_time_bins=6)
    for loader in (train, val, test):
        for frames, labels in loader:
            assert frames.shape == (6, len(labels), 2, 34, 34)
            assert (frames.dtype, labels.dtype) == (torch.float32, torch.int64)
    frames, labels = next(iter(test))
    counts, label = test.dataset[3]
    np.testing.assert_array_equal(frames[:, 3].numpy(), counts)
    assert labels[3] == label


def test_parts_are_disjoint_complete_and_stratified(root):
    train, val, test = (numbers(loader) for loader in loaders("nmnist", root=root, val_fraction=0.2))
    assert sorted(train + val) == list(range(60))
    assert test == list(range(60, 75))
    assert np.bincount(np.array(val) // 20).tolist() == [4, 4, 4]
    assert val == sorted(val)


def test_labels_belong_to_their_recordings(root):
    for loader in loaders("nmnist", root=root, seed=3):
        labels = torch.cat([labels for _, labels in loader]).tolist()
        assert labels == [n // 20 if n < 60 else (n - 60) // 5 for n in numbers(loader)]


def test_without_validation(root):
    train, val, _ = loaders("nmnist", root=root, val_fraction=0)
    assert val is None
    assert sorted(numbers(train)) == list(range(60))


def test_folds_partition_the_pool(root):
    parts = [loaders("nmnist", root=root, fold=fold, folds=5, val_fraction=0.2, seed=1) for fold in range(5)]
    tests = [numbers(test) for _, _, test in parts]
    assert sorted(number for tested in tests for number in tested) == list(range(75))
    for (train, val, test), tested in zip(parts, tests, strict=True):
        assert sorted(numbers(train) + numbers(val) + tested) == list(range(75))
        assert np.bincount(test.dataset.targets).tolist() == [5, 5, 5]


def test_seed_chooses_validation_and_folds(root):
    _, first, _ = loaders("nmnist", root=root, seed=0)
    _, again, _ = loaders("nmnist", root=root, seed=0)
    _, other, _ = loaders("nmnist", root=root, seed=1)
    assert numbers(first) == numbers(again) != numbers(other)
    one, two = (loaders("nmnist", root=root, fold=0, folds=3, seed=seed)[2] for seed in (0, 1))
    assert numbers(one) != numbers(two)


def test_order_is_a_function_of_seed_and_epoch(root):
    def orders(seed):
        train, _, _ = loaders("nmnist", root=root, seed=seed, val_fraction=0)
        orders = []
        for epoch in range(3):
            train.sampler.set_epoch(epoch)
            orders.append(numbers(train))
        return orders

    first = orders(5)
    assert first == orders(5)
    assert len({tuple(order) for order in first}) == 3
    resumed, _, _ = loaders("nmnist", root=root, seed=5, val_fraction=0)
    resumed.sampler.set_epoch(2)
    assert numbers(resumed) == first[2]
    assert orders(11) != first


def test_loaders_leave_the_global_random_stream_alone(root):
    before = torch.get_rng_state()
    for loader in loaders("nmnist", root=root):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_worker_processes_give_the_same_batches(root):
    alone, _, _ = loaders("nmnist", root=root, batch_size=16, val_fraction=0)
    helped, _, _ = loaders("nmnist", root=root, batch_size=16, val_fraction=0, num_workers=1)
    for (frames, labels), (others, other_labels) in zip(alone, helped, strict=True):
        assert torch.equal(frames, others)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "mnist"}, ValueError, "^name: expected one of"),
        ({"n_time_bins": 3, "time_window": 5}, ValueError, "^n_time_bins and time_window: expected at most one"),
        ({"time_window": 0}, ValueError, "^time_window: expected a finite number > 0, got 0"),
        ({"time_window": "5"}, TypeError, "^time_window: expected a finite number > 0, got '5'"),
        ({"on_error": "ignore"}, ValueError, "^on_error: expected 'raise', 'skip' or 'drop', got 'ignore'"),
        ({"cache": 3}, TypeError, "^cache: expected a path"),
        ({"batch_size": 0}, ValueError, "^batch_size: expected an integer >= 1, got 0"),
        ({"batch_size": 2.0}, TypeError, "^batch_size: expected an integer >= 1, got 2.0 of type float"),
        ({"batch_size": True}, TypeError, "^batch_size: expected an integer"),
        ({"n_time_bins": 0}, ValueError, "^n_time_bins: expected an integer >= 1, got 0"),
        ({"n_time_bins": "10"}, TypeError, "^n_time_bins: expected an integer"),
        ({"val_fraction": 1}, ValueError, "^val_fraction: expected a number >= 0 and < 1, got 1"),
        ({"val_fraction": -0.1}, ValueError, "^val_fraction: expected"),
        ({"val_fraction": float("nan")}, ValueError, "^val_fraction: expected a number"),
        ({"val_fraction": "a"}, TypeError, "^val_fraction: expected"),
        ({"val_fraction": False}, TypeError, "^val_fraction: expected"),
        ({"val_fraction": 0.001}, ValueError, "^val_fraction: expected a fraction .* got 0.001"),
        ({"val_fraction": 0.999}, ValueError, "^val_fraction: expected a fraction .* got 0.999"),
        ({"seed": -1}, ValueError, r"^seed: expected an integer in \[0, 4294967295\], got -1"),
        ({"seed": 2**32}, ValueError, "^seed: expected"),
        ({"seed": None}, TypeError, "^seed: expected"),
        ({"num_workers": -1}, ValueError, "^num_workers: expected an integer >= 0, got -1"),
        ({"fold": 0}, ValueError, "^fold and folds: expected both or neither, got fold=0 and folds=None"),
        ({"folds": 5}, ValueError, "^fold and folds: expected both or neither"),
        ({"fold": 5, "folds": 5}, ValueError, r"^fold: expected an integer in \[0, 4\], got 5"),
        ({"fold": False, "folds": 5}, TypeError, "^fold: expected an integer"),
        ({"fold": 0, "folds": 1}, ValueError, "^folds: expected an integer >= 2, got 1"),
        ({"fold": 0, "folds": 26}, ValueError, "^folds: expected at most 25"),
        ({"root": 1}, TypeError, "^root: expected a path"),
        ({"remainder": "all"}, ValueError, "^remainder: expected 'keep' or 'drop', got 'all'"),
        ({"augment": 3}, TypeError, "^augment: expected a callable or None, got 3"),
        ({"test_fraction": 0.5}, ValueError, "^test_fraction: expected only with a data set of your own"),
    ],
)
def test_loaders_check_their_arguments(root, arguments, error, message):
    with pytest.raises(error, match=message):
        loaders(**{"name": "nmnist", "root": root, **arguments})


def test_numpy_integers_are_integers(root):
    train, _, _ = loaders("nmnist", root=root, batch_size=np.int64(7), n_time_bins=np.uint8(3))
    assert next(iter(train))[0].shape[:2] == (3, 7)


def test_windows_are_padded_and_have_lengths(tmp_path):
    rng = np.random.default_rng(0)
    recordings = [recording(rng, 40, last) for last in (100, 950, 400, 420)]
    made = Made(recordings, [0, 1, 0, 1])
    train, val, test = loaders(made, time_window=50, batch_size=9, cache=tmp_path, val_fraction=0, test_fraction=0.5)
    assert val is None
    for loader in (train, test):
        frames, labels, lengths = next(iter(loader))
        assert frames.shape == (int(lengths.max()), 2, 2, 34, 34)
        for column, length in enumerate(lengths):
            assert frames[:length, column].sum() == 40
            assert frames[length:, column].sum() == 0
            expected = [to_frames(events, SIZE, time_window=50, remainder="keep") for events in recordings]
            assert any(len(one) == length and (frames[:length, column].numpy() == one).all() for one in expected)
        assert sorted(labels.tolist()) == [0, 1]


@pytest.mark.parametrize("bins", [2, 400])
def test_packed_frames_and_packed_events_give_the_same_batches(tmp_path, bins):
    rng = np.random.default_rng(1)
    recordings = [recording(rng, 3000, 100_000) for _ in range(6)]
    made = Made(recordings, [0, 1, 0, 1, 0, 1])
    _, _, test = loaders(made, n_time_bins=bins, cache=tmp_path, val_fraction=0, test_fraction=0.5)
    assert (test.dataset._packed.shape is None) == (bins == 400)
    assert len(list(tmp_path.glob("*.pack"))) == 1
    frames, _ = next(iter(test))
    expected = [to_frames(made.events(position), SIZE, n_time_bins=bins) for position in range(6)]
    for column in range(frames.shape[1]):
        assert any((frames[:, column].numpy() == one).all() for one in expected)


@pytest.mark.parametrize(("count", "dtype"), [(255, None), (2000, np.uint16), (70_000, np.uint32)])
def test_counts_do_not_overflow(tmp_path, count, dtype):
    busy = np.zeros(count, EVENT_DTYPE)
    busy["t"][-1] = 10
    made = Made([busy] * 4, [0, 1, 0, 1])
    train, _, _ = loaders(made, n_time_bins=1, cache=tmp_path, val_fraction=0, test_fraction=0.5)
    packed = train.dataset._packed
    assert (packed.frames().dtype if packed.shape else None) == dtype
    assert next(iter(train))[0][0, :, 0, 0, 0].tolist() == [count, count]


def few_and_busy():
    """Recordings whose events take less than their frames, one with a count beyond a byte."""
    rng, busy = np.random.default_rng(2), np.zeros(300, EVENT_DTYPE)
    busy["t"][-1] = 10
    return Made([*(recording(rng) for _ in range(5)), busy], [0, 1, 0, 1, 0, 1])


def test_frames_kept_in_memory_are_those_counted(tmp_path):
    made = few_and_busy()
    _, _, test = loaders(made, n_time_bins=5, cache=tmp_path, val_fraction=0, test_fraction=0.5, batch_size=2)
    kept, numbers = test.dataset._kept(), test.dataset._numbers
    for epoch in range(2):
        for i in range(len(numbers)):
            frames = test.dataset[i][0].numpy()
            assert (frames == to_frames(made.events(numbers[i]), SIZE, n_time_bins=5)).all(), epoch
    assert kept.known[numbers].tolist() == [len(made.recordings[i]) < 300 for i in numbers]


def test_frames_are_kept_only_while_they_stay_the_same(tmp_path, monkeypatch):
    made, place = few_and_busy(), {"cache": tmp_path, "val_fraction": 0, "test_fraction": 0.5}
    train, _, test = loaders(made, n_time_bins=5, augment=lambda events, generator: events[:1], **place)
    _, _, other = loaders(made, n_time_bins=5, remainder="drop", **place)
    _, _, windows = loaders(made, time_window=100, **place)
    assert train.dataset._kept() is None and windows.dataset._kept() is None
    assert test.dataset._kept() is test.dataset._kept() is not other.dataset._kept()
    before, path = test.dataset._kept(), test.dataset._packed.path
    path.write_bytes(path.read_bytes())  # another file of that name, for those that open it from now on
    _, _, again = loaders(made, n_time_bins=5, **place)
    assert again.dataset._kept() is not before and test.dataset._kept() is before
    path.unlink()
    assert len(next(iter(test))[1]) == 3
    monkeypatch.setattr("neuromorphic_datasets._frame_dataset._KEPT_BYTES", 6 * 5 * 34 * 34 * 2 - 1)
    assert test.dataset._kept() is None


def test_short_recordings_keep_their_events(tmp_path):
    events = np.zeros(5, EVENT_DTYPE)
    events["t"] = [7, 7, 8, 8, 9]
    made = Made([events] * 4, [0, 1, 0, 1])
    train, _, _ = loaders(made, n_time_bins=10, cache=tmp_path, val_fraction=0, test_fraction=0.5)
    assert next(iter(train))[0].sum((0, 2, 3, 4)).tolist() == [5, 5]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentations_depend_on_seed_and_epoch_alone(root, workers):
    def batches(seed, epoch, workers):
        augment = transforms.Augment((transforms.Roll((34, 34, 2), 3), transforms.Flip((34, 34, 2))))
        train, _, test = loaders("nmnist", root=root, seed=seed, num_workers=workers, val_fraction=0, augment=augment)
        train.sampler.set_epoch(epoch)
        return torch.cat([frames for frames, _ in train], dim=1), torch.cat([frames for frames, _ in test], dim=1)

    train, test = batches(1, 1, workers)
    again, _ = batches(1, 1, 0)
    assert torch.equal(train, again)
    assert not torch.equal(train, batches(1, 2, 0)[0])
    unchanged = loaders("nmnist", root=root, val_fraction=0)
    plain, plain_test = (torch.cat([frames for frames, _ in loader], 1) for loader in (unchanged[0], unchanged[2]))
    assert torch.equal(test, plain_test)
    assert not torch.equal(train.sum(1), plain.sum(1))


def test_damaged_recordings_are_skipped_and_counted(tmp_path):
    for part in ("Train", "Test"):
        for digit in range(2):
            for number in range(3):
                file = tmp_path / part / str(digit) / f"{number}.bin"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(bytes([3, 4, 0x80, 0, 50]))
    (tmp_path / "Train" / "1" / "2.bin").write_bytes(b"123")
    place = {"root": tmp_path, "cache": tmp_path / "cache", "val_fraction": 0}
    with pytest.raises(nd.RecordingError, match=r"2\.bin: byte 0"):
        loaders("nmnist", **place)
    assert not list((tmp_path / "cache").glob("*.pack*[!k]"))
    with pytest.warns(UserWarning, match=r"^1 of 6 recordings are left out; the first: .*2\.bin"):
        train, _, _ = loaders("nmnist", **place, on_error="skip")
    assert train.dataset.targets.tolist() == [0, 0, 0, 1, 1]


def test_a_changed_recording_is_read_again(root, tmp_path):
    first = loaders("nmnist", root=root, cache=tmp_path)[2].dataset.targets.tolist()
    new = root / "Test" / "2" / "99999.bin"
    new.write_bytes(bytes([3, 4, 0x80, 0, 50]))
    try:
        assert loaders("nmnist", root=root, cache=tmp_path)[2].dataset.targets.tolist() == [*first, 2]
    finally:
        new.unlink()


def test_an_unwritable_cache_is_named(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file: expected a folder that can be written"):
        loaders("nmnist", root=root, cache=tmp_path / "file")


@pytest.mark.parametrize(
    "framing",
    [
        {"n_time_bins": 7},
        {"time_window": 20_000},
        {"transform": transforms.ToFrames((34, 34, 2), time_window=9000, overlap=8000, remainder="drop")},
        {"transform": transforms.ToFrames((34, 34, 2), n_time_bins=7, overlap=0.5, remainder="drop")},
    ],
)
@pytest.mark.parametrize("augment", [None, lambda events, generator: events[::2]])
def test_sparse_frames_are_the_dense_ones(tmp_path, framing, augment):
    own = Made([recording(np.random.default_rng(seed), last=90_000) for seed in range(12)], [0, 1] * 6)
    framing = dict(framing)
    own.transform = framing.pop("transform", None)
    options = {"cache": tmp_path, "batch_size": 4, "val_fraction": 0, "test_fraction": 0.5, "augment": augment}
    dense, sparse = (loaders(own, layout=layout, **framing, **options) for layout in ("dense", "sparse"))
    for one, other in zip(dense[::2], sparse[::2], strict=True):
        for (frames, *rest), (rows, *others) in zip(one, other, strict=True):
            assert (rows.layout, rows.dtype) == (torch.sparse_csr, torch.float32)
            assert torch.equal(rows.to_dense().view(frames.shape), frames)
            assert all(torch.equal(*pair) for pair in zip(rest, others, strict=True))
        assert torch.equal(one.dataset[1][0], other.dataset[1][0])


def test_layouts_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"^layout: expected 'dense' or 'sparse', got 'coo'"):
        loaders("saccade-digits", layout="coo")


def test_sparse_rows_are_as_torch_wants_them(tmp_path):
    own = Made([recording(np.random.default_rng(seed), last=90_000) for seed in range(4)], [0, 1] * 2)
    options = {"cache": tmp_path, "val_fraction": 0, "test_fraction": 0.5}
    _, _, test = loaders(own, layout="sparse", **options)
    rows, _ = next(iter(test))
    again = torch.sparse_csr_tensor(
        rows.crow_indices(), rows.col_indices(), rows.values(), rows.shape, check_invariants=True
    )
    assert torch.equal(again.to_dense(), rows.to_dense())
