"""Your own data sets: checked like files, never stale, nothing left out or ignored."""

import gc
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
from sets_of_users import GOOD, HALVES, SIZE, WHOLE, Own, array, totals

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventFolder, RecordingError, loaders, to_frames, transforms
from neuromorphic_datasets._cache import user_folder

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


@pytest.mark.thorough
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


def test_other_columns_are_another_reading(folder, tmp_path):
    for _ in range(2):
        for columns, expected in (("txyp", (2, 10, 1, 1)), ("xytp", (1, 2, 10, 1)), ("yxtp", (2, 1, 10, 1))):
            assert EventFolder(folder, columns=columns, cache=tmp_path)[0][0][0].item() == expected
    with pytest.raises(
        ValueError, match=r"^columns: expected the letters t, x, y and p in some order, .*, such as \"txyp\", got 'abc'"
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
    with pytest.raises(RecordingError, match=f"^own train, recording 2: events: .*{message}") as kept:
        loaders(own, cache=tmp_path, **HALVES)
    assert kept.tb and not list(tmp_path.rglob("*.pack*"))


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
