"""Frames and loaders."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tonic.transforms import ToFrame

from neuromorphic_datasets import loaders
from neuromorphic_datasets._dataset import EVENT_DTYPE, EventDataset
from neuromorphic_datasets._frames import FrameDataset, time_bin_counts

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
        super().__init__("made", SIZE, ["0", "1"], targets)
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
    found = []
    for frames, labels in loader:
        cells = frames[0, :, 0].flatten(1)
        assert (cells.sum(1) == 1).all()
        found.extend(cells.argmax(1).tolist())
        assert len(labels) == frames.shape[1]
    return found


def test_sets_see_positions_only():
    made = Made({0: "first", 1: "last"}, [0, 1])
    assert (made[-1], made[np.int64(0)]) == (("last", 1), ("first", 0))
    with pytest.raises(IndexError, match="index -3 is outside made with its 2 recordings"):
        made[-3]


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60), last=st.integers(1, 300), bins=st.integers(1, 40))
def test_frames_equal_tonics(seed, count, last, bins):
    events = recording(np.random.default_rng(seed), count, last)
    frames = time_bin_counts(events.copy(), SIZE, bins)
    if events["t"][-1] - events["t"][0] < bins:
        # Tonic's window is 0 µs here and it drops every event.
        assert frames.sum() == count
    else:
        np.testing.assert_array_equal(frames, ToFrame(SIZE, n_time_bins=bins)(events.copy()))


def test_frames_count_every_event_but_the_remainder():
    events = recording(np.random.default_rng(1), 5000, 300_000)
    frames = time_bin_counts(events, SIZE, 10)
    end = events["t"][0] + 10 * ((events["t"][-1] - events["t"][0]) // 10)
    assert frames.sum() == (events["t"] < end).sum() >= 4990
    per_pixel = np.zeros(SIZE[::-1])
    kept = events[events["t"] < end]
    np.add.at(per_pixel, (kept["p"], kept["y"], kept["x"]), 1)
    np.testing.assert_array_equal(frames.sum(0), per_pixel)


def test_frames_leave_events_alone_and_take_any_order_and_dtype():
    events = recording(np.random.default_rng(2))
    before = events.copy()
    frames = time_bin_counts(events, SIZE, 5)
    np.testing.assert_array_equal(events, before)
    np.testing.assert_array_equal(time_bin_counts(events[::-1], SIZE, 5), frames)
    other = events.astype([("x", "i2"), ("y", "u1"), ("t", "u4"), ("p", "?")])
    np.testing.assert_array_equal(time_bin_counts(other, SIZE, 5), frames)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_frames_of_hardly_any_events(count):
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = 7
    frames = time_bin_counts(events, SIZE, 4)
    assert frames.shape == (4, 2, 34, 34)
    assert frames[0, 0, 0, 0] == frames.sum() == count


@pytest.mark.parametrize(("field", "value"), [("x", 34), ("y", -1), ("p", 2)])
def test_frames_refuse_events_outside_the_sensor(field, value):
    events = recording(np.random.default_rng(0))
    events[field][3] = value
    with pytest.raises(ValueError, match="invalid entry"):
        time_bin_counts(events, SIZE, 4)


@pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16), (70_000, np.uint32)])
def test_counts_do_not_overflow(count, dtype):
    busy = np.zeros(count + 1, EVENT_DTYPE)
    busy["t"][-1] = 10
    frames = FrameDataset(Made([busy, busy[-1:], busy], [0, 1, 0]), np.arange(3), 1)
    assert frames.frames.dtype == dtype
    assert [int(frames[i][0][0, 0, 0, 0]) for i in range(3)] == [count, 1, count]


def test_batches_are_time_first_float32_and_int64(root):
    train, val, test = loaders("nmnist", root=root, batch_size=4, time_bins=6)
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
        found = []
        for epoch in range(3):
            train.sampler.set_epoch(epoch)
            found.append(numbers(train))
        return found

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
        ({"batch_size": 0}, ValueError, "^batch_size: expected an integer >= 1, came 0"),
        ({"batch_size": 2.0}, TypeError, "^batch_size: expected an integer >= 1, came 2.0 of type float"),
        ({"batch_size": True}, TypeError, "^batch_size: expected an integer"),
        ({"time_bins": 0}, ValueError, "^time_bins: expected an integer >= 1, came 0"),
        ({"time_bins": "10"}, TypeError, "^time_bins: expected an integer"),
        ({"val_fraction": 1}, ValueError, "^val_fraction: expected a number >= 0 and < 1, came 1"),
        ({"val_fraction": -0.1}, ValueError, "^val_fraction: expected"),
        ({"val_fraction": float("nan")}, ValueError, "^val_fraction: expected a number"),
        ({"val_fraction": "a"}, TypeError, "^val_fraction: expected"),
        ({"val_fraction": False}, TypeError, "^val_fraction: expected"),
        ({"val_fraction": 0.001}, ValueError, "^val_fraction: expected a share .* came 0.001"),
        ({"val_fraction": 0.999}, ValueError, "^val_fraction: expected a share .* came 0.999"),
        ({"seed": -1}, ValueError, r"^seed: expected an integer in \[0, 4294967295\], came -1"),
        ({"seed": 2**32}, ValueError, "^seed: expected"),
        ({"seed": None}, TypeError, "^seed: expected"),
        ({"num_workers": -1}, ValueError, "^num_workers: expected an integer >= 0, came -1"),
        ({"fold": 0}, ValueError, "^fold and folds: expected both or neither, came fold=0 and folds=None"),
        ({"folds": 5}, ValueError, "^fold and folds: expected both or neither"),
        ({"fold": 5, "folds": 5}, ValueError, r"^fold: expected an integer in \[0, 4\], came 5"),
        ({"fold": False, "folds": 5}, TypeError, "^fold: expected an integer"),
        ({"fold": 0, "folds": 1}, ValueError, "^folds: expected an integer >= 2, came 1"),
        ({"fold": 0, "folds": 26}, ValueError, "^folds: expected at most 25"),
        ({"root": 1}, TypeError, "^root: expected a path"),
    ],
)
def test_loaders_check_their_arguments(root, arguments, error, message):
    with pytest.raises(error, match=message):
        loaders(**{"name": "nmnist", "root": root, **arguments})


def test_numpy_integers_are_integers(root):
    train, _, _ = loaders("nmnist", root=root, batch_size=np.int64(7), time_bins=np.uint8(3))
    assert next(iter(train))[0].shape[:2] == (3, 7)
