"""The random manifolds: series, spikes, cache and splits."""

import itertools
import math
import pickle

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import neuromorphic_datasets as nd
from neuromorphic_datasets import RandomManifolds, random_manifolds
from neuromorphic_datasets.random_manifolds import _coordinates, _Model, _standardised, _times

SMALL = {"n_classes": 3, "n_units": 5, "n_samples": 40}


def model(**changes):
    return _Model(
        **{
            "n_classes": 3,
            "n_units": 5,
            "dim": 1,
            "alpha": 2.0,
            "n_samples": 40,
            "duration": 1000,
            "seed": 0,
            **changes,
        }
    )


def times(recordings):
    """The spike times, (recordings, units)."""
    events = [events for events, _ in recordings]
    return np.array([each["t"][np.argsort(each["x"])] for each in events])


def curve(alpha, points=2000, units=30, seed=0):
    """Neighbouring points of a one-dimensional manifold, standardised, (points, units)."""
    series = np.random.default_rng(seed).random((3, units, 1, 1000))
    return _standardised(_coordinates(np.linspace(0, 1, points)[:, None], series, alpha))


def test_series_is_its_formula():
    random = np.random.default_rng(0)
    a, b, c = series = random.random((3, 2, 3, 4))
    points = random.random((5, 3))
    expected = np.ones((5, 2))
    for n, i, j in np.ndindex(5, 2, 3):
        terms = [
            a[i, j, k - 1] * k**-1.5 * math.sin(2 * math.pi * (k * b[i, j, k - 1] * points[n, j] + c[i, j, k - 1]))
            for k in range(1, 5)
        ]
        expected[n, i] *= sum(terms)
    np.testing.assert_allclose(_coordinates(points, series, 1.5), expected, rtol=1e-12)


def test_pieces_do_not_change_the_series(monkeypatch):
    series, points = np.random.default_rng(0).random((3, 2, 1, 6)), np.random.default_rng(1).random((10, 1))
    whole = _coordinates(points, series, 1.0)
    monkeypatch.setattr(random_manifolds, "_PIECE", 4)
    np.testing.assert_allclose(_coordinates(points, series, 1.0), whole, rtol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "terms"), [(0.1, 1000), (1.0, 1000), (1.5, 100), (3.0, 10), (1e9, 2), (5e-324, 1000)]
)
def test_terms_below_a_thousandth_are_left_out(alpha, terms, monkeypatch):
    seen = []
    coordinates = random_manifolds._coordinates
    monkeypatch.setattr(
        random_manifolds, "_coordinates", lambda *arguments: seen.append(arguments[1].shape) or coordinates(*arguments)
    )
    _times(model(alpha=alpha), 0)
    assert seen == [(3, 5, 1, terms)]


def test_neighbours_on_a_manifold_are_near():
    steps = np.abs(np.diff(curve(2.0), axis=0))
    assert steps.max() < 0.03
    assert np.abs(np.diff(np.random.default_rng(0).permutation(curve(2.0)), axis=0)).max() > 0.9


def test_roughness_falls_with_alpha():
    roughness = [np.abs(np.diff(curve(alpha), axis=0)).sum(axis=0).mean() for alpha in (0.5, 1.0, 2.0, 3.0)]
    assert all(rough > 1.2 * smooth for rough, smooth in itertools.pairwise(roughness))


def test_smooth_manifolds_are_easier():
    """The nearest of 80 neighbours per class, at eight times chance and more, and less where they are rough."""

    def accuracy(alpha, seed):
        rough = model(n_classes=10, n_units=20, n_samples=100, alpha=alpha, seed=seed)
        points = np.stack([_times(rough, label) for label in range(10)], axis=1)
        labels = np.tile(np.arange(10), 80)
        nearest = KNeighborsClassifier(1).fit(points[:80].reshape(800, 20), labels)
        return nearest.score(points[80:].reshape(200, 20), labels[:200])

    for seed in range(3):
        assert accuracy(2.0, seed) > 0.98
        assert accuracy(0.5, seed) < 0.75


def test_values_are_standardised_over_all_points_of_a_class(tmp_path):
    recordings = RandomManifolds("all", **SMALL, duration=1001, root=tmp_path)
    for label in range(3):
        own = times([recordings[number] for number in np.flatnonzero(recordings.targets == label)])
        assert own.min(axis=0).tolist() == [0] * 5
        assert own.max(axis=0).tolist() == [1000] * 5
    values = _standardised(np.array([[3.0, -1.0], [5.0, 1.0], [4.5, 0.0]]))
    np.testing.assert_array_equal(values, [[0, 0], [1, 1], [0.75, 0.5]])


@pytest.mark.parametrize(
    "changes", [{}, {"dim": 2}, {"alpha": 0.5}, {"duration": 1}, {"n_units": 300, "n_samples": 10}]
)
def test_each_unit_spikes_once_within_the_duration(changes, tmp_path):
    options = {**SMALL, "duration": 500, **changes}
    recordings = RandomManifolds("all", **options, root=tmp_path)
    assert len(recordings) == 3 * options["n_samples"]
    for events, _ in recordings:
        assert sorted(events["x"]) == list(range(options["n_units"]))
        assert events["t"].min() >= 0
        assert events["t"].max() < options["duration"]
        assert (np.diff(events["t"]) >= 0).all()
        assert (events["p"] == 1).all()


def test_events_are_those_of_sets_of_sound(tmp_path):
    recordings = RandomManifolds("train", **SMALL, root=tmp_path)
    events, label = recordings[4]
    assert events.dtype == [(field, np.int64) for field in "xtp"]
    assert (type(label), label, recordings.classes[label]) == (int, 1, "1")
    assert recordings.sensor_size == (5, 1, 1)
    events["x"] = 99
    assert recordings[4][0]["x"].max() == 4
    assert len(pickle.loads(pickle.dumps(recordings))[4][0]) == 5


def test_recordings_depend_on_parameters_and_seed_alone(tmp_path):
    first = RandomManifolds("all", **SMALL, root=tmp_path / "first")
    again = RandomManifolds("all", **SMALL, root=tmp_path / "again")
    np.testing.assert_array_equal(times(first), times(again))
    assert first.fingerprint == again.fingerprint
    for changes in ({"seed": 1}, {"alpha": 2}, {"dim": 2}, {"duration": 1000}):
        other = RandomManifolds("all", **SMALL, **changes, root=tmp_path / "first")
        assert other.fingerprint != first.fingerprint
        assert (times(other) != times(first)).mean() > 0.9
    np.testing.assert_array_equal(times(RandomManifolds("all", **SMALL, root=tmp_path / "first")), times(first))


def test_classes_do_not_depend_on_their_number(tmp_path):
    three, two = (RandomManifolds("all", **{**SMALL, "n_classes": n}, root=tmp_path) for n in (3, 2))
    np.testing.assert_array_equal(times(three)[three.targets == 1], times(two)[two.targets == 1])
    assert (times(three)[three.targets == 1] != times(three)[three.targets == 2]).mean() > 0.9


def test_the_published_recordings_do_not_change():
    """They are part of every published result: a change must be noticed."""
    default = _Model(10, 20, 1, 1.0, 1000, 50_000, 0)
    assert _times(default, 0)[0, :5].tolist() == [7490, 12793, 13034, 13555, 28371]
    assert default._asdict().items() <= RandomManifolds.__init__.__kwdefaults__.items()


def test_parts_are_disjoint_and_balanced(tmp_path):
    parts = {split: RandomManifolds(split, **SMALL, root=tmp_path) for split in ("train", "val", "test", "all")}
    assert [np.bincount(part.targets).tolist() for part in parts.values()] == [[32] * 3, [4] * 3, [4] * 3, [40] * 3]
    joined = [number for split in ("train", "val", "test") for number in parts["all"].parts[split]]
    assert joined == list(range(120))
    whole = times(parts["all"])
    assert len(np.unique(whole, axis=0)) == 120
    for split, own in parts["all"].parts.items():
        np.testing.assert_array_equal(times(parts[split]), whole[own])
    assert parts["train"].parts == {}


def test_loaders_use_the_parts(tmp_path):
    train, val, test = nd.loaders(RandomManifolds("all", **SMALL, root=tmp_path), n_time_bins=8, batch_size=96)
    assert [len(part.dataset) for part in (train, val, test)] == [96, 12, 12]
    frames, labels = next(iter(train))
    assert frames.shape == (8, 96, 1, 1, 5)
    assert (frames.sum(0) == 1).all()
    assert labels.bincount().tolist() == [32] * 3
    assert len(list(tmp_path.glob("*.pack"))) == 1


def test_the_catalogue_has_the_default_set(tmp_path):
    info = nd.info("random-manifolds")
    whole = nd.load("random-manifolds", "all", root=tmp_path, transform=len)
    assert (len(whole), whole.sensor_size, tuple(whole.classes)) == (10_000, info.sensor_size, info.classes)
    assert whole[-1] == (20, 9)
    [file] = tmp_path.glob("*.pack")
    assert [len(nd.load("random-manifolds", split, root=tmp_path)) for split in info.splits] == [8000, 1000, 1000]
    assert file in nd.clear("random-manifolds", root=tmp_path)  # other tests may have filled the common cache


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "valid"}, ValueError, r"^split: expected one of \['train', 'val', 'test', 'all'\], got 'valid'$"),
        ({"n_classes": 0}, ValueError, "^n_classes: expected an integer >= 1, got 0$"),
        ({"n_units": 40_000}, ValueError, r"^n_units: expected an integer in \[1, 32768\], got 40000$"),
        ({"dim": 1.5}, TypeError, "^dim: expected an integer >= 1, got 1.5 of type float$"),
        ({"alpha": 0}, ValueError, "^alpha: expected a finite number > 0, got 0$"),
        ({"alpha": "3"}, TypeError, "^alpha: expected a finite number > 0, got '3' of type str$"),
        ({"n_samples": 9}, ValueError, "^n_samples: expected an integer >= 10, got 9$"),
        ({"duration": 0}, ValueError, "^duration: expected an integer >= 1, got 0$"),
        ({"seed": -1}, ValueError, "^seed: expected an integer >= 0, got -1$"),
        ({"root": 3}, TypeError, "^root: expected a path or None, got 3 of type int$"),
        ({"transform": 3}, TypeError, "^transform: expected a callable or None, got 3$"),
    ],
)
def test_arguments_are_checked(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        RandomManifolds(**{"root": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())
