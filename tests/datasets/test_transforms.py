"""Transforms through Tonic, and augmentations."""

import pickle

import numpy as np
import pytest
import tonic.transforms
from random_recordings import DTYPES, recording

from neuromorphic_datasets import transforms

SIZE = (7, 5, 2)
AUGMENTATIONS = [
    transforms.Flip(SIZE, 1.0),
    transforms.Roll(SIZE, 2),
    transforms.DropEvents(0.3),
    transforms.TimeJitter(50.0),
    transforms.Augment((transforms.Flip(SIZE), transforms.DropEvents(0.5), transforms.TimeJitter(5))),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_voxel_grids_and_time_surfaces_are_tonics(dtype):
    events = recording(count=200, dtype=dtype)
    signed = np.zeros(len(events), DTYPES["int64"])
    for field in "xytp":
        signed[field] = events[field]
    before = events.copy()
    grid = transforms.VoxelGrid(SIZE, 6)(events)
    np.testing.assert_array_equal(grid, tonic.transforms.ToVoxelGrid(SIZE, 6)(signed.copy()))
    surface = transforms.TimeSurface(SIZE, dt=100, tau=50)(events)
    np.testing.assert_array_equal(surface, tonic.transforms.ToTimesurface(SIZE, dt=100, tau=50)(signed.copy()))
    np.testing.assert_array_equal(events, before)


def test_a_voxel_grid_needs_a_duration():
    with pytest.raises(ValueError, match=r"^events: expected a duration longer than 0 µs, got 1"):
        transforms.VoxelGrid(SIZE, 6)(recording(count=1))


@pytest.mark.parametrize(("field", "value"), [("x", 7), ("y", -1), ("p", 2), ("t", 0.5)])
def test_grids_and_surfaces_check_their_events(field, value):
    events = recording().astype([(name, "f8") for name in "xytp"])
    events[field][0] = value
    for transform in (transforms.VoxelGrid(SIZE, 6), transforms.TimeSurface(SIZE, dt=100, tau=50)):
        with pytest.raises(ValueError, match=r"^events: event 0"):
            transform(events)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS, ids=lambda a: type(a).__name__)
def test_augmentations_are_seeded_pure_and_give_recordings(augmentation):
    events = recording(count=300)
    before = events.copy()
    first = augmentation(events, np.random.default_rng(1))
    np.testing.assert_array_equal(events, before)
    np.testing.assert_array_equal(augmentation(events, np.random.default_rng(1)), first)
    assert 0 < len(first) <= 300
    assert (np.diff(first["t"]) >= 0).all()
    assert first["t"].min() >= 0
    assert 0 <= first["x"].min() <= first["x"].max() < 7
    assert 0 <= first["y"].min() <= first["y"].max() < 5
    copy = pickle.loads(pickle.dumps(augmentation))
    np.testing.assert_array_equal(copy(events, np.random.default_rng(1)), first)
    with pytest.raises(AttributeError):
        augmentation.other = 1


def test_flip():
    events = recording()
    np.testing.assert_array_equal(transforms.Flip(SIZE, 1.0)(events, np.random.default_rng(0))["x"], 6 - events["x"])
    assert transforms.Flip(SIZE, 0.0)(events, np.random.default_rng(0)) is events


def test_roll_moves_all_by_one_vector():
    events = np.zeros(9, DTYPES["int64"])
    events["x"], events["y"] = 3, 2
    shifts = set()
    for seed in range(100):
        shifted = transforms.Roll(SIZE, 2)(events, np.random.default_rng(seed))
        assert len(set(shifted[["x", "y"]].tolist())) == 1
        shifts.add((int(shifted["x"][0]) - 3, int(shifted["y"][0]) - 2))
    assert shifts == {(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)}


def test_drop_and_jitter_have_their_rates():
    events = recording(count=10_000, last=10**6, first=10**6)
    assert 0.67 < len(transforms.DropEvents(0.3)(events, np.random.default_rng(0))) / 10_000 < 0.73
    assert len(transforms.DropEvents(0.999999)(events[:3], np.random.default_rng(0))) == 1
    numbered = events.copy()
    numbered["x"] = np.arange(10_000)
    moved = transforms.TimeJitter(100.0)(numbered, np.random.default_rng(0))
    differences = moved["t"][np.argsort(moved["x"])] - events["t"]
    assert 95 < differences.std() < 105
    with pytest.raises(ValueError, match=r"^probability: expected a number >= 0 and < 1, got 1"):
        transforms.DropEvents(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transforms.Flip(SIZE, 1.5), "^probability: expected a number in .0, 1., got 1.5"),
        (lambda: transforms.Flip(SIZE, float("nan")), "^probability: expected a number"),
        (lambda: transforms.Flip((7, 0, 2)), "^sensor_size: height: expected"),
        (lambda: transforms.Roll(SIZE, -1), "^pixels: expected an integer >= 0"),
        (lambda: transforms.TimeJitter(float("inf")), "^std_us: expected a finite number >= 0, got inf"),
        (lambda: transforms.TimeJitter(-1), "^std_us: expected a finite number >= 0, got -1"),
    ],
)
def test_augmentations_check_their_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
