"""How a folder is divided, and what is said where it cannot be."""

import warnings

import numpy as np
import pytest
from event_files import csv

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventFolder


def filled(folder, *classes, count=8):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.csv").write_bytes(csv())
    return folder


def sizes(source, tmp_path, **options):
    return [len(part.dataset) if part else 0 for part in nd.loaders(source, cache=tmp_path, **options)]


def test_too_small_a_fraction_is_answered_with_one_that_works(tmp_path):
    folder = filled(tmp_path / "mine", "left", "right", "up")
    message = (
        "val_fraction: expected a fraction that puts recordings of every class into both parts of the 19 recordings, "
        "of which the rarest class, left, has 6, got 0.1; use for example 0.15, or 0 for no validation"
    )
    with pytest.raises(ValueError) as caught:
        nd.loaders(folder, cache=tmp_path)
    assert str(caught.value) == message
    assert sizes(folder, tmp_path, val_fraction=0.15) == [16, 3, 5]
    assert sizes(folder, tmp_path, val_fraction=0) == [19, 0, 5]
    with pytest.raises(ValueError, match=r"class, left, has 6, got 0\.99; use for example 0\.85, or 1 for all$"):
        nd.loaders(folder, cache=tmp_path, val_fraction=0, train_fraction=0.99)
    assert sizes(folder, tmp_path, val_fraction=0, train_fraction=0.85) == [16, 0, 5]


def test_a_test_part_that_is_too_small(tmp_path):
    folder = filled(tmp_path / "few", *"abc", count=3)
    with pytest.raises(ValueError, match=r"set test_fraction=0\.25 in nd\.loaders, or put .* folders train/ and test/"):
        nd.loaders(folder, cache=tmp_path, val_fraction=0)
    assert sizes(folder, tmp_path, val_fraction=0, test_fraction=0.25) == [6, 0, 3]
    folder = filled(tmp_path / "one", *"ab", count=1)
    with pytest.raises(ValueError, match=r"has 1, got 0\.2; put the recordings into folders train/ and test/, with"):
        nd.loaders(folder, cache=tmp_path)


def test_as_many_recordings_as_the_documentation_says(tmp_path):
    generator = np.random.default_rng(0)
    for n_classes in (2, 3, 10, 50):
        events = [np.array([(generator.integers(9), 0, 1, 1)], nd.EVENT_DTYPE) for _ in range(13 * n_classes)]
        for count, fraction in ((13, 0.1), (5, 0.0)):
            labels = np.repeat(np.arange(n_classes), count)
            own = nd.EventList(events[: len(labels)], labels, sensor_size=(9, 1, 2))
            assert min(sizes(own, tmp_path, val_fraction=fraction)[::2]) >= n_classes
    labels = np.repeat(np.arange(50), 12)
    with pytest.raises(ValueError, match="val_fraction"):
        nd.loaders(nd.EventList(events[: len(labels)], labels, sensor_size=(9, 1, 2)), cache=tmp_path)


@pytest.mark.parametrize("names", [("Train", "Test"), ("TRAIN", "validation", "test"), ("train", "Val", "TEST")])
def test_parts_in_any_case(tmp_path, names):
    for count, part in enumerate(names, 1):
        filled(tmp_path / "mine" / part, "left", "right", count=count)
    recordings = EventFolder(tmp_path / "mine", cache=tmp_path)
    known = ("train", "test") if len(names) == 2 else ("train", "val", "test")
    assert {part: len(own) for part, own in recordings.parts.items()} == {
        part: 2 * count for count, part in enumerate(known, 1)
    }
    assert recordings.classes == ["left", "right"]


def test_two_folders_of_one_part_are_no_parts(tmp_path):
    for part in ("train", "test", "val", "validation"):
        filled(tmp_path / "mine" / part, "left", count=1)
    with pytest.raises(ValueError, match="got the parts"):
        EventFolder(tmp_path / "mine", cache=tmp_path)


def test_files_in_no_folder(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.csv").write_bytes(csv())
    with pytest.raises(FileNotFoundError, match=r"got no class folder; put the files .*, such as left/0\.csv$"):
        EventFolder(tmp_path, cache=tmp_path)


def test_images_of_parts_in_any_case(tmp_path):
    from PIL import Image

    for part in ("Train", "Validation", "test"):
        for label, name in enumerate("ab"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (4, 4), label).save(tmp_path / part / name / "0.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {name: len(part) for name, part in nd.images.parts(tmp_path).items()} == {
            "train": 2,
            "val": 2,
            "test": 2,
        }
