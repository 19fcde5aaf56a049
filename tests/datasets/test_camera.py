"""The simulated event camera obeys its physics."""

import dataclasses

import numpy as np
import pytest

from neuromorphic_datasets._event_camera import EventCamera
from neuromorphic_datasets._events import EVENT_DTYPE

IDEAL = EventCamera(1, 1, threshold_on=0.25, threshold_off=0.25, mismatch=0, refractory_us=0, noise_hz=0)


def one_pixel(camera, times_us, levels):
    """Record a pixel whose ln(intensity) goes through `levels`."""
    frames = np.exp(np.array(levels, dtype=float)).reshape(-1, 1, 1, 1)
    [events] = camera.record(times_us, frames, [0])
    return events


def moving_bar(camera):
    """Record a bright vertical bar that moves to the right."""
    columns = np.arange(camera.width)
    times = np.arange(0, 50_001, 500)
    profiles = [1 + 9 * np.exp(-(((columns - 8 - 10 * time / 50_000) / 2) ** 2)) for time in times]
    return camera.record(times, [np.tile(profile, (1, camera.height, 1)) for profile in profiles], [0])[0]


def test_constant_scene_without_noise_gives_no_event():
    camera = EventCamera(noise_hz=0)
    scene = np.random.default_rng(0).uniform(0.1, 1, (2, 34, 34))
    for events in camera.record(range(0, 10_000, 1000), [scene] * 10, [0, 1]):
        assert len(events) == 0
        assert events.dtype == EVENT_DTYPE


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("sign", [1, -1])
def test_step_of_k_thresholds_gives_k_events(count, sign):
    camera = dataclasses.replace(IDEAL, threshold_on=0.3, threshold_off=0.2)
    threshold = 0.3 if sign > 0 else 0.2
    level = sign * (count + 0.5) * threshold
    events = one_pixel(camera, [0, 1000, 2000], [0, level, level])
    assert events["p"].tolist() == [sign > 0] * count
    expected = np.arange(1, count + 1) / (count + 0.5) * 1000
    np.testing.assert_allclose(events["t"], expected, atol=1)


def test_reference_is_stored_between_frames():
    # Neither half step crosses the threshold; together they do, and going back crosses it once more.
    events = one_pixel(IDEAL, [0, 1000, 2000, 3000], [0, 0.2, 0.4, 0])
    assert events["p"].tolist() == [1, 0]
    # Up to 0.25 at 1250 µs, then from 0.4 down to 0 at 3000 µs.
    np.testing.assert_allclose(events["t"], [1250, 3000], atol=1)


def test_refractory_time_limits_the_rate():
    ramp = ([0, 100_000], [0, 100])
    fast = one_pixel(IDEAL, *ramp)
    assert len(fast) in (399, 400)
    slow = one_pixel(dataclasses.replace(IDEAL, refractory_us=1000), *ramp)
    # Each event waits for the reset and then for a whole threshold, 250 µs.
    np.testing.assert_allclose(np.diff(slow["t"]), 1250, atol=1)
    assert len(slow) == 80


def test_refractory_time_reaches_over_frames():
    camera = dataclasses.replace(IDEAL, refractory_us=1000)
    times = np.arange(0, 100_001, 400)
    events = one_pixel(camera, times, times * 1e-3)
    np.testing.assert_allclose(np.diff(events["t"]), 1250, atol=1)


def test_moving_bar_is_on_ahead_and_off_behind():
    events = moving_bar(EventCamera(mismatch=0, noise_hz=0))
    early = events[events["t"] < 10_000]
    on, off = early[early["p"] == 1], early[early["p"] == 0]
    assert len(on) > 100
    assert len(off) > 100
    assert on["x"].min() > off["x"].max()


def test_events_are_sorted_and_inside_sensor_and_duration():
    camera = EventCamera(width=40, height=20, noise_hz=50)
    events = moving_bar(camera)
    assert (np.diff(events["t"]) >= 0).all()
    assert 0 <= events["t"].min() <= events["t"].max() <= 50_000
    assert set(np.unique(events["x"])) == set(range(40))
    assert set(np.unique(events["y"])) == set(range(20))
    assert set(np.unique(events["p"])) == {0, 1}


def test_noise_rate_is_poisson():
    camera = EventCamera(noise_hz=5)
    scene = np.ones((50, 34, 34))
    counts = np.array([len(events) for events in camera.record([0, 1_000_000], [scene, scene], range(50))])
    mean = 5 * 34 * 34
    assert abs(counts.mean() - mean) < 5 * np.sqrt(mean / 50)
    assert 0.4 < counts.var(ddof=1) / mean < 2


def test_noise_is_uniform_over_time_pixels_and_polarity():
    camera = EventCamera(noise_hz=100)
    scene = np.ones((1, 34, 34))
    [events] = camera.record([2000, 1_002_000], [scene, scene], [3])
    assert abs(events["p"].mean() - 0.5) < 5 * 0.5 / np.sqrt(len(events))
    assert events["t"].min() >= 2000
    for field, low, size in (("x", 0, 34), ("y", 0, 34), ("t", 2000, 1_000_000)):
        spread = size / np.sqrt(12 * len(events))
        assert abs(events[field].mean() - (low + (size - 1) / 2)) < 5 * spread


def test_mismatch_belongs_to_the_sensor():
    camera = EventCamera(mismatch=0.1)
    on, off = camera.thresholds()
    again_on, again_off = EventCamera(mismatch=0.1).thresholds()
    np.testing.assert_array_equal(on, again_on)
    np.testing.assert_array_equal(off, again_off)
    assert not np.array_equal(on, EventCamera(mismatch=0.1, seed=1).thresholds()[0])
    assert on.std() / 0.25 == pytest.approx(0.1, rel=0.1)
    assert abs(np.corrcoef(on.ravel(), off.ravel())[0, 1]) < 0.15
    assert min(level.min() for level in EventCamera(300, 300, mismatch=0.3).thresholds()) > 0


def test_equal_scenes_differ_only_in_noise():
    rising = [np.full((2, 34, 34), level) for level in (1.0, 2.0)]
    first, second = EventCamera(noise_hz=0).record([0, 1000], rising, [0, 1])
    np.testing.assert_array_equal(first, second)
    first, second = EventCamera(noise_hz=20).record([0, 1000], rising, [0, 1])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("width", 0, ValueError),
        ("height", 2.5, TypeError),
        ("seed", -1, ValueError),
        ("threshold_on", 0, ValueError),
        ("threshold_off", float("nan"), ValueError),
        ("mismatch", 0.31, ValueError),
        ("refractory_us", -1, ValueError),
        ("noise_hz", float("nan"), ValueError),
    ],
)
def test_bad_parameters_are_named(field, value, error):
    with pytest.raises(error, match=rf"^{field}: expected .* got"):
        EventCamera(**{field: value})


@pytest.mark.parametrize("times", [[0], [0, 0], [1000, 0]])
def test_times_must_ascend(times):
    with pytest.raises(ValueError, match=r"^times_us: expected"):
        one_pixel(IDEAL, times, [0] * len(times))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_intensity_must_be_positive_and_finite(value):
    frames = np.ones((2, 1, 1, 1))
    frames[1] = value
    with pytest.raises(ValueError, match=r"^frames: expected intensities"):
        IDEAL.record([0, 1000], frames, [0])


def test_frame_shape_must_fit():
    with pytest.raises(ValueError, match=r"^frames: expected shape \(1, 1, 1\), got \(1, 2, 1\)"):
        IDEAL.record([0, 1000], np.ones((2, 1, 2, 1)), [0])
