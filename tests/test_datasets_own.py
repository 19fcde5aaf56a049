"""Your own data sets: checked like files, never stale, nothing left out or ignored."""

import gc
import itertools
import os
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventDataset, EventFolder, RecordingError, loaders, to_frames, transforms
from neuromorphic_datasets._cache import user_folder

SIZE = (8, 6, 2)
WHOLE = [(field, "i8") for field in "xytp"]
HALVES = {"val_fraction": 0, "test_fraction": 0.5}
GOOD = [(1, 1, 0, 0), (2, 5, 3, 1), (7, 0, 10, 1)]


def array(rows, dtype=WHOLE):
    return np.array(rows, dtype)


class Own(EventDataset):
    """Given recordings, of two classes by turns unless targets are given."""

    def __init__(self, recordings, targets=None, name="own", size=SIZE, **options):
        targets = np.arange(len(recordings)) % 2 if targets is None else targets
        super().__init__(name, "train", size, ["a", "b"], targets, **options)
        self.recordings = recordings

    def events(self, position):
        return self.recordings[position]


def totals(recordings, cache, **options):
    """Return the number of events in all frames of all parts."""
    parts = loaders(recordings, cache=cache, **{"n_time_bins": 2, **HALVES, **options})
    return sum(int(batch[0].sum()) for part in parts if part for batch in part)


# Files kept between runs.


def test_events_that_change_are_read_again(tmp_path):
    assert totals(Own([array(GOOD)] * 4), tmp_path) == 12
    assert totals(Own([array(GOOD[:1])] * 4), tmp_path) == 4
    same = Own([array(GOOD)] * 4)
    assert totals(same, tmp_path) == 12
    same.recordings = [array(GOOD[:2])] * 4
    assert totals(same, tmp_path) == 8


def test_the_key_holds_more_than_the_fingerprint(tmp_path):
    class Other(Own):
        pass

    known = {"fingerprint": "1"}
    assert totals(Own([array(GOOD)] * 4, **known), tmp_path) == 12
    unread = Own([None] * 4, **known)
    assert totals(unread, tmp_path) == 12  # kept, as the fingerprint says
    assert totals(Own([array(GOOD[:1])] * 4, fingerprint="2"), tmp_path) == 4
    assert totals(Own([array(GOOD[:1])] * 4, name="foreign", **known), tmp_path) == 4
    assert totals(Own([array(GOOD[:1])] * 4, size=(8, 7, 2), **known), tmp_path) == 4
    assert totals(Own([array(GOOD[:1])] * 6, **known), tmp_path) == 6
    assert totals(Other([array(GOOD[:1])] * 4, **known), tmp_path) == 4
    assert totals(Own([array(GOOD[:1])] * 4, name="a/b", **known), tmp_path) == 4


def test_files_of_unknown_state_go_with_their_loaders(tmp_path):
    parts = loaders(Own([array(GOOD)] * 4), cache=tmp_path, num_workers=1, **HALVES)
    assert len(list(tmp_path.rglob("*.pack"))) == 1
    assert sum(int(frames.sum()) for part in (parts[0], parts[2]) for frames, _ in part) == 12
    copy = pickle.loads(pickle.dumps(parts[2].dataset))
    assert copy[0][0].sum() == 3
    del copy
    gc.collect()
    assert len(list(tmp_path.rglob("*.pack"))) == 1
    del parts
    gc.collect()
    assert list(tmp_path.rglob("*")) == []
    with pytest.raises(RecordingError):
        loaders(Own([array(GOOD), array([])]), cache=tmp_path, **HALVES)
    gc.collect()
    assert list(tmp_path.rglob("*")) == []


@pytest.fixture
def folder(tmp_path):
    """Two classes of four recordings of (1, 2, 10, 1) and (3, 4, 20, 0), without names of columns."""
    for label in "ab":
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(4):
            (tmp_path / "mine" / label / f"{number}.csv").write_text("1,2,10,1\n3,4,20,0\n")
    return tmp_path / "mine"


def test_other_columns_are_another_reading(folder, tmp_path):
    for _ in range(2):
        for columns, expected in (("txyp", (2, 10, 1, 1)), ("xytp", (1, 2, 10, 1)), ("yxtp", (2, 1, 10, 1))):
            assert EventFolder(folder, columns=columns, cache=tmp_path)[0][0][0].item() == expected
    with pytest.raises(
        ValueError, match=r"^columns: expected the letters t, x, y and p in some order, y or not, got 'abc'"
    ):
        EventFolder(folder, columns="abc", cache=tmp_path)


def test_a_file_with_its_old_time_and_size_is_read_again(folder, tmp_path):
    path = folder / "a" / "0.csv"
    before = path.stat()
    assert EventFolder(folder, columns="xytp", cache=tmp_path)[0][0]["x"].tolist() == [1, 3]
    path.write_text("2,2,10,1\n4,4,20,0\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert EventFolder(folder, columns="xytp", cache=tmp_path)[0][0]["x"].tolist() == [2, 4]


def test_what_a_users_own_code_reads_is_read_each_time(folder, tmp_path):
    def kind(shift):
        class Shifted(EventFolder):
            def recording(self, position, lenient=False):
                recording = super().recording(position, lenient)
                return replace(recording, events=replace(recording.events, x=recording.events.x + shift))

        return Shifted

    assert [kind(shift)(folder, columns="xytp", cache=tmp_path)[0][0]["x"][0] for shift in (1, 2)] == [2, 3]

    class First(EventFolder):
        def events(self, position):
            return super().events(position)[:1]

    assert totals(First(folder, columns="xytp", cache=tmp_path), tmp_path) == 8


def test_a_users_own_events_of_a_published_set_are_read_each_time(tmp_path):
    whole = nd.load("saccade-digits", "test")

    def first(count):
        class First(type(whole)):
            def events(self, position):
                return super().events(position)[:count]

        return First("test", user_folder())

    assert [totals(first(count), tmp_path) for count in (1, 2)] == [360, 720]


def test_what_is_left_out_is_reported_each_time(tmp_path):
    recordings = [array(GOOD), array([]), array(GOOD), array([(1, 1, 0, 0), (0, 0, -1, 0)]), array(GOOD), array(GOOD)]
    for _ in range(2):
        message = r"^2 of 6 recordings are left out; the first: own train, recording 1: events: expected one or more"
        own = Own(recordings, [0, 1, 0, 1, 1, 1], fingerprint="1")
        with pytest.warns(UserWarning, match=message):
            assert totals(own, tmp_path, on_error="skip") == 12
    own = Own(recordings[:4], [0, 1, 0, 1])
    with pytest.warns(UserWarning, match=r"no recording is left of the classes \['b'\]"):
        totals(own, tmp_path, on_error="skip")


# Requirements on recordings.

BAD = {
    "polarity -1": ([(1, 1, 0, 0), (1, 1, 1, -1)], WHOLE, "event 1: expected p to be 0 or 1 .* in all, got -1"),
    "polarity 2": ([(1, 1, 0, 2)], WHOLE, r"event 0 \(.*p=2\) is off a sensor"),
    "beyond a byte": ([(257, 1, 0, 0)], WHOLE, r"event 0 \(x=257, .* is off a sensor of size \(8, 6, 2\)"),
    "x off": ([(8, 1, 0, 0)], WHOLE, "x=8"),
    "y off": ([(1, 6, 0, 0)], WHOLE, "y=6"),
    "negative": ([(1, -1, 0, 0)], [(f, "i1") for f in "xytp"], "y=-1"),
    "wrapped around": ([(2**16 - 1, 1, 0, 0)], [("x", "u2"), ("y", "u2"), ("t", "u4"), ("p", "?")], "x=65535"),
    "descending": ([(1, 1, 5, 0), (1, 1, 4, 0)], WHOLE, "expected ascending times, got 4 after 5 at event 1"),
    "seconds": ([(1, 1, 0.25, 0)], [(f, "f4") for f in "xytp"], "event 0: expected an integer t, got 0.25; times"),
    "nan": ([(1, 1, 0, 0), (1, 1, np.nan, 0)], [(f, "f8") for f in "xytp"], "event 1: expected an integer t, got nan"),
    "inf": ([(1, 1, np.inf, 0)], [(f, "f8") for f in "xytp"], "expected an integer t, got inf"),
    "half a pixel": ([(0.5, 1, 0, 0)], [("x", "f4"), ("y", "f4"), ("t", "i8"), ("p", "?")], "integer x, got 0.5"),
    "half a polarity": ([(0, 1, 0, 0.5)], [(f, "f8") for f in "xytp"], "integer p, got 0.5"),
    "objects": ([(1, 1, 0, 0)], [(f, "O") for f in "xytp"], "expected a number as x, got object"),
    "dates": ([(1, 1, 0, 0)], [("x", "i8"), ("y", "i8"), ("t", "M8[us]"), ("p", "?")], "a number as t, got datetime64"),
    "late": ([(1, 1, 2**63, 0)], [("x", "i8"), ("y", "i8"), ("t", "u8"), ("p", "?")], "expected t in .*, got 9223"),
    "nanoseconds": ([(1, 1, 17 * 10**17, 0)], WHOLE, r"expected times within 2\*\*56 µs, got 17000"),
    "none": ([], WHOLE, "expected one or more, got none"),
    "no rows": ([(1, 0, 0)], [(f, "i8") for f in "xtp"], "expected a field y, because the sensor has 6 rows"),
    "a table": ([[1, 1, 0, 0]], np.int64, r"expected a structured array with x, y, t and p, got int64 of shape \(1, 4"),
}


@pytest.mark.parametrize("kind", BAD)
def test_recordings_are_checked_and_named(tmp_path, kind):
    rows, dtype, message = BAD[kind]
    own = Own([array(GOOD), array(GOOD), array(rows, dtype), array(GOOD)])
    with pytest.raises(RecordingError, match=f"^own train, recording 2: events: .*{message}"):
        loaders(own, cache=tmp_path, **HALVES)
    assert not list(tmp_path.rglob("*.pack*"))


def test_masked_events_and_lists_are_refused(tmp_path):
    masked = np.ma.MaskedArray(array(GOOD), mask=[(True,) * 4] + [(False,) * 4] * 2)
    for events in (masked, GOOD, None):
        with pytest.raises(RecordingError, match=r"recording 1: events: expected a structured array"):
            loaders(Own([array(GOOD), events]), cache=tmp_path, **HALVES)
        with pytest.raises(TypeError, match=r"^events: expected a structured array"):
            to_frames(events, SIZE, n_time_bins=2)


@pytest.mark.parametrize("dtype", ["<i4", ">i8", ">u2", "f4", ">f8"])
def test_whole_numbers_of_any_type_are_counted(dtype):
    frames = to_frames(array(GOOD, [(field, dtype) for field in "xytp"]), SIZE, n_time_bins=2)
    np.testing.assert_array_equal(frames, to_frames(array(GOOD), SIZE, n_time_bins=2))


def test_times_that_are_not_whole_are_refused():
    events = array([(0, 0, t, 1) for t in (0.0, 0.1, 0.2)], [("x", "i2"), ("y", "i2"), ("t", "f4"), ("p", "i1")])
    for options in ({"time_window": 0.1}, {"n_time_bins": 3}):
        with pytest.raises(
            ValueError, match=r"^events: event 1: expected an integer t, got 0.1.*multiply seconds by 1e6"
        ):
            to_frames(events, (1, 1, 2), **options)
        with pytest.raises(ValueError, match=r"^events: event 1: expected an integer t"):
            transforms.ToFrames((1, 1, 2), **options)(events)


@pytest.mark.parametrize("columns", [300, 70_000])
def test_wide_sensors(tmp_path, columns):
    own = Own([array([(columns - 1, 0, 0, 0), (3, 0, 5, 1)])] * 4, size=(columns, 1, 2))
    frames, _ = next(iter(loaders(own, cache=tmp_path, n_time_bins=1, **HALVES)[2]))
    assert frames.nonzero()[:, 2:].tolist() == [[0, 0, columns - 1], [1, 0, 3]] * 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": [0.0, 1.5]}, TypeError, r"^targets: expected integers in \[0, 1\], of shape \(n,\), got float64"),
        ({"targets": [0, -1]}, ValueError, r"^targets: expected integers in \[0, 1\], got -1 for recording 1"),
        ({"targets": [2, 0]}, ValueError, "^targets: .* got 2 for recording 0"),
        ({"targets": [[0], [1]]}, TypeError, r"^targets: .* of shape \(2, 1\)"),
        ({"targets": ["a", "b"]}, TypeError, "^targets: expected integers"),
        ({"targets": np.array([0, 2**63], "u8")}, ValueError, "^targets: .* got 9223372036854775808 for recording 1"),
        ({"size": (8, 6)}, TypeError, "^sensor_size"),
        ({"name": 3}, TypeError, "^name: expected a string, got 3"),
        ({"fingerprint": 3}, TypeError, "^fingerprint: expected a string, got 3"),
        ({"transform": 3}, TypeError, "^transform: expected a callable or None, got 3"),
    ],
)
def test_sets_check_their_arguments(options, error, message):
    with pytest.raises(error, match=message):
        Own([array(GOOD)] * 2, **options)


def test_labels_set_later_are_checked(tmp_path):
    own = Own([array(GOOD)] * 4)
    own.targets = np.array([0, 1, 0, 5])
    with pytest.raises(ValueError, match=r"^targets: .* got 5 for recording 3"):
        loaders(own, cache=tmp_path, **HALVES)
    own.targets = np.array([0, 1, 0, 1])
    own.targets = own.targets[:2]
    Own.__len__, before = lambda self: len(self.recordings), Own.__len__
    try:
        with pytest.raises(ValueError, match=r"^targets: expected 4, one per recording, got 2"):
            loaders(own, cache=tmp_path, **HALVES)
    finally:
        Own.__len__ = before


# Arguments that take effect or are refused.


def test_a_transform_of_events_takes_effect(tmp_path):
    own = Own([array(GOOD)] * 4, transform=lambda events: events[events["p"] == 1])
    for augment in (None, transforms.DropEvents(0)):
        train, _, test = loaders(own, cache=tmp_path, n_time_bins=3, augment=augment, **HALVES)
        for part in (train, test):
            assert next(iter(part))[0].sum((0, 1, 3, 4)).tolist() == [0, 4]


@pytest.mark.parametrize("result", [lambda events: events["x"], lambda events: events[::-1], lambda events: None])
def test_an_invalid_result_of_a_transform_is_refused(tmp_path, result):
    _, _, test = loaders(Own([array(GOOD)] * 4, transform=result), cache=tmp_path, **HALVES)
    with pytest.raises((TypeError, ValueError), match=r"^own train, recording \d: events: expected "):
        next(iter(test))


@pytest.mark.parametrize("options", [{"time_window": 5}, {"n_time_bins": 3}])
def test_frames_of_a_folder_or_a_transform_take_effect(folder, tmp_path, options):
    expected = to_frames(array([(1, 2, 10, 1), (3, 4, 20, 0)]), (4, 5, 2), **options)
    made = EventFolder(folder, columns="xytp", cache=tmp_path, **options)
    given = Own([made.events(0)] * 4, size=(4, 5, 2), transform=transforms.ToFrames((4, 5, 2), **options))
    for recordings in (made, given):
        _, _, test = loaders(recordings, cache=tmp_path, **HALVES)
        frames, _, *lengths = next(iter(test))
        np.testing.assert_array_equal(frames[:, 0], expected)
        assert [length.tolist() for length in lengths] == ([[3] * len(frames[0])] if "time_window" in options else [])
        for other in ({"n_time_bins": 4}, {"time_window": 4}, {"remainder": "drop"}):
            with pytest.raises(ValueError, match=r"^n_time_bins, time_window and remainder: expected none of them"):
                loaders(recordings, cache=tmp_path, **HALVES, **other)


def test_a_folder_without_frames_takes_the_loaders(folder, tmp_path):
    recordings = EventFolder(folder, columns="xytp", cache=tmp_path)
    assert next(iter(loaders(recordings, n_time_bins=3, **HALVES)[2]))[0].shape[0] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "somewhere"}, "^root and download: expected only with a name, got 'somewhere'"),
        ({"download": True}, "^root and download: expected only with a name"),
        ({"folds": 2, "fold": 0}, "^test_fraction: expected only with a data set of .* and without folds, got 0.5"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        loaders(Own([array(GOOD)] * 4), cache=tmp_path, **HALVES, **options)


# Nothing is left out.


@pytest.mark.parametrize(("steps", "bins"), [(256, 128), (300, 7), (5, 10)])
def test_bins_reach_to_the_last_event(tmp_path, steps, bins):
    events = array([(t % 8, t % 6, t, t % 2) for t in range(steps)])
    kept, dropped = (
        loaders(Own([events] * 4), cache=tmp_path, n_time_bins=bins, remainder=remainder, **HALVES)[2]
        for remainder in ("keep", "drop")
    )
    per_bin = next(iter(kept))[0].sum((1, 2, 3, 4))
    assert per_bin.sum() == 2 * steps
    assert per_bin.max() - per_bin.min() <= 2
    from tonic.transforms import ToFrame

    np.testing.assert_array_equal(next(iter(dropped))[0][:, 0], ToFrame(SIZE, n_time_bins=bins)(events.copy()))


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    for part, digits in (("Train", "02"), ("Test", "012")):
        for digit in digits:
            (tmp_path / part / digit).mkdir(parents=True)
            (tmp_path / part / digit / "0.bin").write_bytes(bytes([3, 4, 0x80, 0, 50]))
    with pytest.raises(
        ValueError, match=r"^name: expected every class of the test part in training, got none of \['1'"
    ):
        loaders("nmnist", root=tmp_path, cache=tmp_path, val_fraction=0)


def test_a_rare_class_is_in_every_part_or_refused(tmp_path):
    targets = [0] * 60 + [1] * 2
    own = Own([array(GOOD)] * 62, targets)
    with pytest.raises(ValueError, match=r"^test_fraction: .* the rarest class, 1, has 2, got 0.1"):
        loaders(own, cache=tmp_path, val_fraction=0, test_fraction=0.1)
    train, _, test = loaders(own, cache=tmp_path, **HALVES)
    assert [np.bincount(part.dataset.targets).tolist() for part in (train, test)] == [[30, 1], [30, 1]]


# Protocols.


def names(frames, labels):
    """Return the number of events and the label of each recording of a batch (B, T, C, H, W)."""
    return sorted(zip(frames.sum((1, 2, 3, 4)).int().tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("packed", [True, False])
def test_a_loaders_data_set_is_one_for_torch(tmp_path, workers, packed):
    rows = [[(1, 1, t, 0) for t in range(count + 1)] for count in range(20)]
    events = [array(row) for row in rows]
    bins = 2 if packed else 200
    train = loaders(Own(events), cache=tmp_path, n_time_bins=bins, val_fraction=0, test_fraction=0.2, batch_size=4)[0]
    assert train.dataset._packed.shape is None or packed
    everything = names(*DataLoader(train.dataset, 16).__iter__().__next__())
    assert len({count for count, _ in everything}) == 16
    assert all((count - 1) % 2 == label for count, label in everything)
    parts = random_split(train.dataset, [10, 6], torch.Generator().manual_seed(0))
    wholes = [
        ConcatDataset(parts),
        ConcatDataset([Subset(train.dataset, range(9)), Subset(train.dataset, range(9, 16))]),
        Subset(Subset(train.dataset, range(16)), range(16)),
    ]
    for whole in wholes:
        singly, together = [], []
        for frames, labels in DataLoader(whole, 4, shuffle=True, num_workers=workers):
            assert (frames.shape, labels.shape) == ((4, bins, 2, 6, 8), (4,))
            singly += names(frames, labels)
        for frames, labels in DataLoader(whole, 4, collate_fn=train.collate_fn, num_workers=workers):
            assert (frames.shape, labels.dtype) == ((bins, 4, 2, 6, 8), torch.int64)
            together += names(frames.transpose(0, 1), labels)
        assert sorted(singly) == sorted(together) == everything


def test_windows_in_a_subset(tmp_path):
    events = [array([(1, 1, t, 0) for t in range(10 * (count + 1))]) for count in range(4)]
    train, _, _ = loaders(Own(events), cache=tmp_path, time_window=10, **HALVES)
    frames, label, length = train.dataset[1]
    assert (len(frames), type(label), type(length)) == (length, int, int)
    for whole in (Subset(train.dataset, [1, 0]), ConcatDataset([train.dataset])):
        frames, _, lengths = next(iter(DataLoader(whole, 2, collate_fn=train.collate_fn)))
        assert frames.shape == (lengths.max(), 2, 2, 6, 8)
        assert (frames.sum((0, 2, 3, 4)) == 10 * lengths).all()
    with pytest.raises(IndexError):
        train.dataset[2]


def test_images_in_a_subset():
    train, _, _ = nd.images.loaders("digits", batch_size=8)
    for whole in (Subset(train.dataset, range(8)), ConcatDataset([train.dataset])):
        for collate in (None, train.collate_fn):
            images, labels = next(iter(DataLoader(whole, 8, collate_fn=collate)))
            assert torch.equal(images, torch.stack([train.dataset[i][0] for i in range(8)]))
            assert torch.equal(labels, train.dataset.targets[:8])


# Any data set: right, or an error that names the recording.

INTEGERS = ("i1", "u1", "<i2", ">i2", "u2", "i4", ">u4", "i8", "u8", "f4", "f8", "?", "O")


@st.composite
def recordings(draw):
    """Rows of four numbers, mostly valid, with a type for each column."""
    low = draw(st.sampled_from([0, 0, 0, 0, 0, -1]))
    count = draw(st.sampled_from([0] + [1, 2, 3, 7, 20] * 4))
    scale = draw(st.sampled_from([1, 1, 1, 1, 1000, 1e-3, 0.5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([0] * 9 + [1]))
    table = np.stack([rng.integers(low, side + reach, count) for side in SIZE], axis=1).astype(float)
    t = rng.integers(0, draw(st.sampled_from([1, 3, 50, 100])), count) * float(scale)
    if draw(st.integers(0, 9)):
        t = np.sort(t)
    if count and not draw(st.integers(0, 19)):
        t[draw(st.integers(0, count - 1))] = draw(st.sampled_from([np.nan, np.inf, -5.0]))
    types = [draw(st.sampled_from(INTEGERS if draw(st.integers(0, 3)) == 0 else ("i8", "f8"))) for _ in "xytp"]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        events = np.zeros(count, list(zip("xytp", types, strict=True)))
        for field, column in zip("xytp", (table[:, 0], table[:, 1], t, table[:, 2]), strict=True):
            events[field] = column.astype(types["xytp".index(field)])
    return events


def is_good(events):
    """Return whether a recording is valid, checking its numbers one by one."""
    rows = [tuple(row) for row in events.tolist()]
    if not rows or any(dtype == "O" for dtype, _ in events.dtype.fields.values()):
        return False
    if not all(np.isfinite(value) and value == int(value) for row in rows for value in row):
        return False
    on = all(0 <= x < SIZE[0] and 0 <= y < SIZE[1] for x, y, _, _ in rows)
    on = on and any({p for *_, p in rows} <= codes for codes in ({0, 1}, {-1, 1}))
    on = on and all(abs(t) < 2**56 for _, _, t, _ in rows)
    return on and all(before[2] <= after[2] for before, after in itertools.pairwise(rows))


def counted(events, bins, window):
    """Return frames, counted event by event."""
    rows = [[int(value) for value in row] for row in events.tolist()]
    first, last = rows[0][2], rows[-1][2]
    frames = np.zeros((bins or (last - first) // window + 1, *SIZE[::-1]))
    for x, y, t, p in rows:
        number = (t - first) * bins // (last - first + 1) if bins else (t - first) // window
        frames[number, int(p > 0), y, x] += 1
    return frames


@settings(
    max_examples=int(os.environ.get("HTAF_EXAMPLES", "100")),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=st.lists(recordings(), min_size=4, max_size=8),
    later=st.lists(recordings(), min_size=4, max_size=8),
    bins=st.sampled_from([None, 1, 2, 5, 40]),
    window=st.integers(1, 60),
    fingerprint=st.booleans(),
    data=st.data(),
)
def test_random_sets_are_counted_right_or_refused_by_name(tmp_path, first, later, bins, window, fingerprint, data):
    for number, events in enumerate((first, data.draw(st.sampled_from([first, later, first[::-1]])))):
        if data.draw(st.integers(0, 2)):
            events = [recording for recording in events if is_good(recording)]
            events += [array(GOOD)] * (4 - len(events))
        state = (
            f"{number} {[(recording.dtype.descr, recording.tolist()) for recording in events]}" if fingerprint else ""
        )
        own = Own(events, fingerprint=state)
        time = {"n_time_bins": bins} if bins else {"time_window": window}
        bad = [number for number, recording in enumerate(events) if not is_good(recording)]
        if bad:
            with pytest.raises(RecordingError, match=f"^own train, recording {bad[0]}: events: "):
                loaders(own, cache=tmp_path, **time, **HALVES)
            continue
        expected = [(number % 2, counted(recording, bins, window)) for number, recording in enumerate(events)]
        for part in loaders(own, cache=tmp_path, batch_size=3, **time, **HALVES)[::2]:
            for frames, labels, *lengths in part:
                for column, label in enumerate(labels.tolist()):
                    length = int(lengths[0][column]) if lengths else len(frames)
                    ours = frames[:length, column].numpy()
                    same = [n for n, (one, want) in enumerate(expected) if one == label and np.array_equal(want, ours)]
                    assert same and not frames[length:, column].any()
                    expected.pop(same[0])
        assert expected == []
