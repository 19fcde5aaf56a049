"""Images as events: the same for everyone, kept, and taken wherever recordings are."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import neuromorphic_datasets as nd
from neuromorphic_datasets import _saccades, images, saccade_digits
from neuromorphic_datasets._event_camera import EventCamera


def bars(count=6, dtype=np.uint8, channels=1):
    """Return images of bars, upright or lying."""
    shown = np.zeros((count, channels, 10, 12), dtype)
    for number in range(count):
        shown[number, :, :, 4:6] = np.iinfo(dtype).max if number % 2 else 0
        shown[number, :, 4:6] = np.iinfo(dtype).max if number % 2 == 0 else shown[number, :, 4:6]
    return images.Images(shown, np.arange(count) % 2, ["lying", "upright"])


def test_recordings_are_the_same_each_time_and_read_from_the_cache(tmp_path, monkeypatch):
    first = nd.as_events(bars(), cache=tmp_path / "a")
    again = nd.as_events(bars(), cache=tmp_path / "b", num_workers=0)
    for position in range(6):
        np.testing.assert_array_equal(first[position][0], again[position][0])
    monkeypatch.setattr(_saccades, "write", lambda *arguments: pytest.fail("simulated again"))
    kept = nd.as_events(bars(), cache=tmp_path / "a")
    np.testing.assert_array_equal(kept[3][0], first[3][0])
    assert (kept.sensor_size, kept.classes, kept.targets.tolist()) == ((19, 17, 2), ["lying", "upright"], [0, 1] * 3)


def test_workers_change_nothing(tmp_path):
    alone = nd.as_events(bars(70), cache=tmp_path / "a", num_workers=0)
    shared = nd.as_events(bars(70), cache=tmp_path / "b", num_workers=2)
    assert all(np.array_equal(alone[position][0], shared[position][0]) for position in range(70))


def test_what_changes_the_events_changes_the_file(tmp_path):
    camera = EventCamera(19, 17)
    sets = [
        nd.as_events(bars(), cache=tmp_path),
        nd.as_events(bars(8), cache=tmp_path),
        nd.as_events(bars(), cache=tmp_path, pixel=0.9),
        nd.as_events(bars(), cache=tmp_path, camera=dataclasses.replace(camera, seed=1)),
        nd.as_events(bars(), cache=tmp_path, camera=dataclasses.replace(camera, noise_hz=0)),
    ]
    assert len({recordings.fingerprint for recordings in sets}) == len(list(tmp_path.glob("*.pack"))) == 5


def test_light_is_bright_and_colours_are_grey(tmp_path):
    silent = EventCamera(19, 17, noise_hz=0)
    grey = nd.as_events(bars(), cache=tmp_path, camera=silent)
    for other in (bars(channels=3), bars(dtype=np.uint16)):
        same = nd.as_events(other, cache=tmp_path, camera=silent)
        assert abs(len(same[1][0]) - len(grey[1][0])) <= 2
    # The first leg moves the upright bar to the right and down: its right edge brightens.
    events = grey[1][0]
    leg = events[events["t"] < 50_000]
    assert leg["x"][leg["p"] == 1].mean() > leg["x"][leg["p"] == 0].mean() + 1


def test_digits_on_paper_are_those_of_saccade_digits():
    scans = np.random.default_rng(0).integers(0, 17, (2, 8, 8)).astype(float)
    expected = saccade_digits.simulate(scans)
    scene = _saccades.Scene(saccade_digits.TILE_PX, is_ink=True)
    made = _saccades.recorded(scans / 16, range(2), saccade_digits.CAMERA, scene)
    assert all(np.array_equal(*pair) for pair in zip(made, expected, strict=True))


def test_parts_go_into_the_loaders(tmp_path):
    parts = nd.as_events((bars(20), bars(6)), cache=tmp_path)
    made = nd.loaders(parts, n_time_bins=3, val_fraction=0.25, cache=tmp_path)
    assert [len(loader.dataset) for loader in made] == [15, 5, 6]
    frames, _ = next(iter(made[2]))
    assert frames.shape == (3, 6, 2, 17, 19)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pixel": 0}, ValueError, "^pixel: expected a finite number > 0"),
        ({"num_workers": -1}, ValueError, "^num_workers: expected an integer >= 0"),
        ({"resize": 8}, TypeError, "^expected no resize with images in memory"),
    ],
)
def test_arguments_are_checked(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        nd.as_events(bars(), cache=tmp_path, **options)


def test_images_of_the_same_bytes_are_told_apart(tmp_path):
    camera = EventCamera(24, 24)
    content = np.arange(256, dtype=np.uint8)
    shapes = [(2, 1, 8, 16), (2, 1, 16, 8), (4, 1, 8, 8)]
    arrays = [content.reshape(shape) for shape in shapes] + [content.view(np.uint16).reshape(2, 1, 8, 8)]
    sets = [images.Images(array, [0] * len(array), ["any"]) for array in arrays]
    assert len({nd.as_events(one, cache=tmp_path, camera=camera).fingerprint for one in sets}) == 4


def test_a_camera_with_code_of_its_own_and_crops_are_refused(tmp_path):
    class Mine(EventCamera):
        pass

    with pytest.raises(TypeError, match=r"^camera: expected an EventCamera, got a Mine"):
        nd.as_events(bars(), camera=Mine(24, 24), cache=tmp_path)
    with pytest.raises(ValueError, match=r"^camera: expected one of at least 12 x 10 pixels"):
        nd.as_events(bars(), camera=EventCamera(11, 17), cache=tmp_path)
    with pytest.raises(ValueError, match=r"^images: expected one channel or three, got 2"):
        nd.as_events(bars(channels=2), cache=tmp_path)


def test_each_recording_has_noise_of_its_own(tmp_path):
    dark = images.Images(np.zeros((2, 1, 10, 12), np.uint8), [0, 0], ["dark"])
    train, test = nd.as_events((dark, dark), cache=tmp_path)
    assert not any(np.array_equal(train[0][0], other) for other in (train[1][0], test[0][0], test[1][0]))


@pytest.mark.thorough
def test_workers_that_do_not_fork_can_simulate(tmp_path):
    code = (
        "import multiprocessing, sys, numpy as np\n"
        "import neuromorphic_datasets as nd\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        "    shown = nd.images.Images(np.full((40, 1, 6, 6), 255, np.uint8), [0] * 40, ['white'])\n"
        "    print(len(nd.as_events(shown, cache=sys.argv[1], num_workers=2)))\n"
    )
    (tmp_path / "simulate.py").write_text(code)
    run = subprocess.run(
        [sys.executable, tmp_path / "simulate.py", tmp_path / "cache"], capture_output=True, text=True, check=True
    )
    assert run.stdout == "40\n"
