"""Frames: equal to Tonic's, and right where Tonic's are not."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_recordings import DTYPES, SIZE, recording
from tonic.transforms import ToFrame

from neuromorphic_datasets import batch_to_frames, to_frames
from neuromorphic_datasets.transforms import ToFrames

DROP = {"remainder": "drop"}


def assert_equals_tonic(events, size=SIZE, **options):
    expected = ToFrame(size, **options)(events.copy())
    before = events.copy()
    frames = to_frames(events, size, **options, remainder="drop")
    assert frames.dtype == expected.dtype == np.int16
    np.testing.assert_array_equal(frames, expected)
    np.testing.assert_array_equal(events, before)


recordings = st.builds(
    recording,
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    last=st.integers(1, 300),
    first=st.integers(0, 10**9),
    dtype=st.sampled_from(list(DTYPES)),
)


@pytest.mark.thorough
@given(events=recordings, bins=st.integers(1, 40), overlap=st.sampled_from([0.0, 0, 0.1, 0.25, 0.5, 0.99]))
def test_bins_equal_tonics(events, bins, overlap):
    assert_equals_tonic(events, n_time_bins=bins, overlap=overlap)


@given(
    events=recordings,
    window=st.one_of(st.integers(2, 400), st.floats(2, 400)),
    overlap=st.one_of(st.just(0), st.integers(0, 1), st.floats(0, 1.9)),
    include_incomplete=st.booleans(),
    start=st.one_of(st.none(), st.integers(-10, 100)),
    end=st.one_of(st.none(), st.integers(0, 500)),
)
def test_windows_equal_tonics(events, window, overlap, include_incomplete, start, end):
    first = int(events["t"][0])
    options = {
        "time_window": window,
        "overlap": overlap,
        "include_incomplete": include_incomplete,
        "start_time": None if start is None else first + start,
        "end_time": None if end is None else first + end,
    }
    # Tonic subtracts numbers of the times' own type, and unsigned ones wrap around.
    signed = np.zeros(len(events), DTYPES["int64"])
    for field in "xytp":
        signed[field] = events[field]
    events = signed if events["t"].dtype.kind == "u" else events
    assert_equals_tonic(events, **options)


@pytest.mark.parametrize("polarity", [0, 1])
def test_one_polarity_as_tonic_without_its_mutation(polarity):
    events = recording()
    events["p"] = polarity
    assert_equals_tonic(events, (7, 5, 1), n_time_bins=4)


def test_one_polarity_but_events_of_both():
    with pytest.raises(ValueError, match="expected one polarity, as the sensor has, got both"):
        to_frames(recording(), (7, 5, 1), n_time_bins=4)


def test_sound_without_rows_as_tonic():
    events = recording()[["x", "t", "p"]]
    events["p"] = 1
    assert_equals_tonic(np.array(events.tolist(), events.dtype), (7, 1, 1), n_time_bins=4)


def test_views_with_steps():
    assert_equals_tonic(recording(count=100)[::3], n_time_bins=4)


def test_counts_wrap_around_as_tonics_unless_another_dtype_is_given():
    events = np.zeros(40_001, DTYPES["int64"])
    events["t"][-1] = 10
    assert_equals_tonic(events, n_time_bins=1)
    assert to_frames(events, SIZE, n_time_bins=1, remainder="drop")[0, 0, 0, 0] < 0
    for dtype in (np.int32, np.float32, "uint16"):
        frames = to_frames(events, SIZE, n_time_bins=1, dtype=dtype)
        assert frames.dtype == dtype
        assert frames[0, 0, 0, 0] == 40_001


@pytest.mark.parametrize(("dtype", "most"), [(np.int16, 32_767), ("uint8", 255), (np.float32, 1 << 24)])
def test_counts_that_do_not_fit_are_refused(dtype, most):
    events = np.zeros(most + 1, DTYPES["int64"])
    assert to_frames(events[1:], SIZE, n_time_bins=1, dtype=dtype)[0, 0, 0, 0] == most
    with pytest.raises(ValueError, match=rf"^dtype: expected one that holds the counts, .*: a count exceeds {most}"):
        to_frames(events, SIZE, n_time_bins=1, dtype=dtype)


@given(events=recordings, bins=st.integers(1, 40))
def test_every_event_is_in_a_bin(events, bins):
    frames = to_frames(events, SIZE, n_time_bins=bins)
    assert frames.shape == (bins, 2, 5, 7)
    assert frames.sum() == len(events)
    elapsed = events["t"].astype(np.int64) - int(events["t"][0])
    number = elapsed * bins // (int(elapsed[-1]) + 1)
    expected = np.zeros_like(frames)
    np.add.at(expected, (number, events["p"].astype(int), events["y"], events["x"]), 1)
    np.testing.assert_array_equal(frames, expected)


@given(events=recordings, window=st.integers(1, 400))
def test_every_event_is_in_a_window(events, window):
    frames = to_frames(events, SIZE, time_window=window)
    elapsed = events["t"].astype(np.int64) - int(events["t"][0])
    assert len(frames) == int(elapsed[-1]) // window + 1
    np.testing.assert_array_equal(frames.sum((1, 2, 3)), np.bincount(elapsed // window, minlength=len(frames)))


@given(events=recordings, window=st.floats(0.3, 400))
def test_windows_of_parts_of_a_microsecond_lose_no_event(events, window):
    frames = to_frames(events, SIZE, time_window=window)
    elapsed = events["t"].astype(np.int64) - int(events["t"][0])
    # The windows' starts as they are rounded: 5 * 0.4 is 2.0, although 2 // 0.4 is 4.
    edges = np.arange(1, elapsed[-1] // window + 3) * window
    number = np.searchsorted(edges, elapsed, side="right")
    assert len(frames) == number[-1] + 1
    np.testing.assert_array_equal(frames.sum((1, 2, 3)), np.bincount(number, minlength=len(frames)))


@pytest.mark.parametrize(("options", "frames"), [({"n_time_bins": 3}, 3), ({"time_window": 4}, 1)])
def test_frames_of_no_events(options, frames):
    result = to_frames(recording(count=0), SIZE, **options)
    assert result.shape == (frames, 2, 5, 7)
    assert not result.any()


@pytest.mark.parametrize(("field", "value"), [("x", 7), ("x", -1), ("y", 5), ("p", 2)])
def test_events_off_the_sensor_are_named(field, value):
    events = recording()
    events[field][3] = value
    with pytest.raises(
        ValueError, match=rf"^events: event 3 \(.*{field}={value}.* is off a sensor of size \(7, 5, 2\)"
    ):
        to_frames(events, SIZE, n_time_bins=4)
    with pytest.raises(ValueError, match=r"^events: event 3 \(.* is off a sensor"):
        batch_to_frames([events], SIZE, n_time_bins=4)


def test_descending_times_are_named():
    events = recording()
    events["t"][7] = 10**6
    with pytest.raises(ValueError, match=r"^events: expected ascending times, .* at event 8; sort them"):
        to_frames(events, SIZE, n_time_bins=4)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "^n_time_bins and time_window: expected one of them, got None and None"),
        ({"n_time_bins": 2, "time_window": 2}, ValueError, "^n_time_bins and time_window"),
        ({"n_time_bins": 0}, ValueError, "^n_time_bins: expected an integer >= 1, got 0"),
        ({"n_time_bins": 2.5}, TypeError, "^n_time_bins: expected an integer"),
        ({"n_time_bins": 2, "overlap": 1, **DROP}, ValueError, "^overlap: expected a number >= 0 and < 1"),
        ({"n_time_bins": 2, "start_time": 1}, ValueError, "expected only with time_window"),
        ({"time_window": 0}, ValueError, "^time_window: expected more than overlap >= 0, got 0 and 0"),
        ({"time_window": 5, "overlap": 5, **DROP}, ValueError, "^time_window"),
        ({"time_window": float("nan")}, ValueError, "^time_window"),
        ({"time_window": 1e-9}, ValueError, "^time_window: expected at most 67108864 windows of a recording, got "),
        ({"time_window": 1e-9, **DROP}, ValueError, "^time_window: expected at most 67108864 windows"),
        ({"time_window": "5"}, TypeError, "^time_window: expected a number of µs, got '5'"),
        ({"time_window": 5, "remainder": "all"}, ValueError, "^remainder: expected 'keep' or 'drop', got 'all'"),
        ({"time_window": 5, "overlap": 1}, ValueError, "^overlap, .* expected only with remainder='drop', got 1"),
        ({"time_window": 5, "end_time": 9}, ValueError, "^overlap, include_incomplete and end_time: expected only"),
        ({"time_window": 5, "include_incomplete": True}, ValueError, "^overlap, include_incomplete and end_time"),
        ({"time_window": 5, "start_time": float("nan")}, TypeError, "^start_time: expected a finite number"),
        ({"time_window": 5, "dtype": bool}, TypeError, "^dtype: expected an integer type, float32 or float64"),
        ({"time_window": 5, "dtype": np.float16}, TypeError, "^dtype: expected an integer type, float32 or"),
        ({"sensor_size": (7, 5), "n_time_bins": 2}, TypeError, r"^sensor_size: expected \(width, height, polarities\)"),
        ({"sensor_size": (7, 0, 2), "n_time_bins": 2}, ValueError, "^sensor_size: height: expected an integer >= 1"),
        (
            {"events": np.zeros((3, 4)), "n_time_bins": 2},
            TypeError,
            r"^events: expected a structured .* \(3, 4\)",
        ),
        ({"events": [1], "n_time_bins": 2}, TypeError, "^events: expected a structured array"),
    ],
)
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        to_frames(**{"events": recording(), "sensor_size": SIZE, **options})


def devices():
    return ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("remainder", ["drop", "keep"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_on_a_device_equals_its_recordings(device, remainder, dtype):
    batch = [recording(seed, count, dtype=dtype) for seed, count in enumerate((1, 70, 0, 500))]
    frames = batch_to_frames(batch, SIZE, n_time_bins=6, remainder=remainder, device=device)
    assert (frames.shape, frames.dtype, frames.device.type) == ((6, 4, 2, 5, 7), torch.float32, device)
    for column, events in enumerate(batch):
        expected = to_frames(events, SIZE, n_time_bins=6, remainder=remainder)
        np.testing.assert_array_equal(frames[:, column].cpu().numpy(), expected)


def test_an_empty_batch():
    assert batch_to_frames([], SIZE, n_time_bins=6).shape == (6, 0, 2, 5, 7)


def test_the_transform_is_frozen_and_picklable():
    options = {"time_window": 50, "overlap": 5, "include_incomplete": True, **DROP}
    transform = ToFrames(SIZE, **options)
    events = recording()
    expected = to_frames(events, SIZE, **options)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(transform))(events), expected)
    with pytest.raises(AttributeError):
        transform.overlap = 3
