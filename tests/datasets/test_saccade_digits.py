"""The offline data set: simulation, cache and split."""

import dataclasses
import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

import neuromorphic_datasets
from neuromorphic_datasets import _cache, _catalogue, _saccades, saccade_digits
from neuromorphic_datasets._events import EVENT_DTYPE, Events, Recording

SCANS = load_digits()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with the generated cache."""
    folder = tmp_path_factory.mktemp("saccade-digits")
    neuromorphic_datasets.load("saccade-digits", root=folder)
    return folder


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes()


def test_simulation_is_deterministic_byte_for_byte():
    images = SCANS.images[:5]
    assert_same(saccade_digits.simulate(images), saccade_digits.simulate(images))


@pytest.mark.thorough
def test_simulation_does_not_depend_on_the_batch(root):
    pooled = neuromorphic_datasets.load("saccade-digits", "all", root=root)
    alone = [saccade_digits.simulate(SCANS.images[i : i + 1], [i])[0] for i in (0, 40, 1796)]
    assert_same(alone, [pooled[i][0] for i in (0, 40, 1796)])
    mixed = saccade_digits.simulate(SCANS.images[[1796, 3, 40, 0]], [1796, 3, 40, 0])
    assert_same([mixed[3], mixed[2], mixed[0]], alone)


def test_recordings_of_one_image_have_noise_of_their_own():
    image = SCANS.images[:1].repeat(2, axis=0)
    first, second = saccade_digits.simulate(image)
    assert not np.array_equal(first, second)
    silent = dataclasses.replace(saccade_digits.CAMERA, noise_hz=0)
    assert_same(*([events] for events in saccade_digits.simulate(image, camera=silent)))


def test_recordings_resemble_n_mnist(root):
    # The bounds surround N-MNIST's own means: 4133 events, half of them ON, 39 % of pixels active,
    # standard deviations of 4.9 columns and 6.3 rows.
    recordings = [events for events, _ in neuromorphic_datasets.load("saccade-digits", "test", root=root)]
    counts = np.array([len(events) for events in recordings])
    assert 2000 < counts.min()
    assert counts.max() < 7000
    assert 3500 < counts.mean() < 4700
    pooled = np.concatenate(recordings)
    assert pooled["p"].mean() == pytest.approx(0.5, abs=0.03)
    assert pooled["t"].max() <= 300_000
    assert 3.5 < pooled["x"].std() < 5.5
    assert 5.5 < pooled["y"].std() < 7
    active = [len(np.unique(events["y"] * 34 + events["x"])) / 34**2 for events in recordings]
    assert np.mean(active) == pytest.approx(0.39, abs=0.05)


def test_image_returns_to_where_it_started():
    path = np.array([_saccades.position(time) for time in range(0, 300_001, 1000)])
    np.testing.assert_allclose(path[0], path[-1])
    np.testing.assert_allclose(path[[0, 100, 200]], [(-3.5, -3.5), (0, 3.5), (3.5, -3.5)])
    assert np.abs(np.diff(path, axis=0)).max() < 0.15


def test_each_leg_has_the_polarities_of_dark_ink():
    # A dark bar moving down darkens below and leaves brightness above; the third leg moves it to the left.
    square = np.zeros((1, 8, 8))
    square[0, 3:5, 3:5] = 16
    [events] = saccade_digits.simulate(square)
    events = events[(abs(events["x"] - 16.5) < 9) & (abs(events["y"] - 16.5) < 9)]
    for start, field, sign in ((0, "y", 1), (100_000, "y", -1), (200_000, "x", -1)):
        leg = events[(events["t"] >= start) & (events["t"] < start + 50_000)]
        lead = leg[field][leg["p"] == 0].mean() - leg[field][leg["p"] == 1].mean()
        assert sign * lead > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((8, 8)),), r"^images: expected shape \(n, rows, columns\), got \(8, 8\)"),
        ((np.full((1, 8, 8), 17),), r"^images: expected values in \[0, 16\]"),
        ((np.full((1, 8, 8), np.nan),), r"^images: expected values in \[0, 16\]"),
        ((np.zeros((2, 8, 8)), [0]), "^recordings: expected 2 numbers"),
    ],
)
def test_simulate_checks_its_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        saccade_digits.simulate(*arguments)


def test_attributes(root):
    dataset = neuromorphic_datasets.load("saccade-digits", root=root)
    assert dataset.name == "saccade-digits"
    assert dataset.sensor_size == (34, 34, 2)
    assert dataset.classes == list("0123456789")
    assert dataset.targets.dtype == np.int64
    events, label = dataset[0]
    assert type(label) is int
    assert label == dataset.targets[0]
    assert [events.dtype[field] for field in "xytp"] == [np.int64] * 4
    assert_same([dataset[-1][0]], [dataset[len(dataset) - 1][0]])
    with pytest.raises(IndexError, match="1437"):
        dataset[1437]


def test_events_have_tonics_dtype(root):
    from tonic.datasets import NMNIST

    assert neuromorphic_datasets.load("saccade-digits", root=root)[0][0].dtype == NMNIST.dtype


def test_a_caller_may_write_into_events(root):
    dataset = neuromorphic_datasets.load("saccade-digits", root=root)
    before = dataset[0][0].copy()
    dataset[0][0]["x"] = 99
    assert_same([dataset[0][0]], [before])


def test_transform_is_applied_to_events(root):
    dataset = neuromorphic_datasets.load("saccade-digits", root=root, transform=len)
    assert dataset[3][0] == len(dataset.events(3))


def test_split_is_disjoint_stratified_and_fixed(root):
    train, test, pooled = (
        neuromorphic_datasets.load("saccade-digits", split, root=root) for split in ("train", "test", "all")
    )
    assert (len(train), len(test), len(pooled)) == (1437, 360, 1797)
    assert sorted([*train._chosen, *test._chosen]) == list(range(1797))
    np.testing.assert_array_equal(pooled.targets, SCANS.target)
    np.testing.assert_array_equal(test.targets, SCANS.target[test._chosen])
    share = np.bincount(test.targets) / np.bincount(SCANS.target)
    assert np.abs(share - 0.2).max() < 0.005
    # The split is part of every published result: a change must be noticed.
    assert hashlib.sha256(test._chosen.astype("<i8").tobytes()).hexdigest()[:16] == "2fbaae31b8c6aad1"


def test_data_set_can_be_pickled(root):
    dataset = neuromorphic_datasets.load("saccade-digits", "test", root=root)
    assert_same([pickle.loads(pickle.dumps(dataset))[5][0]], [dataset[5][0]])


def test_second_load_reads_the_cache(root, monkeypatch):
    monkeypatch.setattr(_saccades, "write", lambda *arguments: pytest.fail("generated again"))
    neuromorphic_datasets.load("saccade-digits", "test", root=root)


def test_other_constants_have_another_file(monkeypatch):
    before = saccade_digits._fingerprint()
    monkeypatch.setattr(_saccades, "BLUR_PX", 0.7)
    assert saccade_digits._fingerprint() != before


def test_default_folder_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(_catalogue, "user_folder", lambda: tmp_path / "user")

    def write(file, name, labels, *rest):
        writer = _cache.Writer(file, (34, 34, 2))
        for number in range(len(labels)):
            writer.add(Recording(Events.of(np.zeros(1, EVENT_DTYPE))), 0, number)
        writer.finish()

    monkeypatch.setattr(_saccades, "write", write)
    assert len(neuromorphic_datasets.load("saccade-digits", "test")[0][0]) == 1
    assert list((tmp_path / "user").glob("saccade-digits-*.pack"))


def test_root_that_is_a_file_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="file: expected a folder that can be written"):
        neuromorphic_datasets.load("saccade-digits", root=file)


def test_importing_the_package_is_light():
    program = (
        "import sys, neuromorphic_datasets\n"
        "heavy = {'tonic', 'sklearn', 'scipy', 'numba', 'htaf_snn', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
