"""Your own data in place of a name: folders, lists of arrays, sets, parts of sets, and code."""

import sys

import numpy as np
import pytest

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventFolder, EventList, RecordingError, loaders
from neuromorphic_datasets._events import EVENT_DTYPE


def recording(seed, count=60, rows=True):
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["x"], events["y"], events["p"] = rng.integers(6, size=count), rng.integers(4, size=count), seed % 2
    events["t"] = np.sort(rng.integers(1000, size=count))
    return events if rows else events[["x", "t", "p"]]


def listed(count=12, shift=0, **options):
    targets = np.arange(count) % 2
    return EventList([recording(shift + number) for number in range(count)], targets, sensor_size=(6, 4, 2), **options)


@pytest.fixture
def divided(tmp_path):
    """A folder with parts, of eight, four and six recordings."""
    for part, count in (("train", 8), ("val", 4), ("test", 6)):
        for number in range(count):
            folder = tmp_path / "divided" / part / ("left", "right")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            events = recording(100 * len(part) + number)
            lines = [f"{e['t']},{e['x']},{e['y']},{e['p']}" for e in events]
            (folder / f"{number}.csv").write_text("\n".join(["t,x@6,y@4,p", *lines]))
    return tmp_path / "divided"


def sizes(made):
    return [len(loader.dataset) if loader else None for loader in made]


def test_a_list_of_arrays_is_a_set(tmp_path):
    train, val, test = loaders(listed(20), cache=tmp_path, n_time_bins=3, val_fraction=0.25, test_fraction=0.2)
    assert sizes((train, val, test)) == [12, 4, 4]
    assert sum(float(frames.sum()) for loader in (train, val, test) for frames, _ in loader) == 20 * 60
    assert train.dataset.classes == ["0", "1"]
    [packed] = tmp_path.glob("*.pack")
    loaders(listed(20), cache=tmp_path, n_time_bins=3)
    assert list(tmp_path.glob("*.pack")) == [packed]
    loaders(listed(20, shift=1), cache=tmp_path, n_time_bins=3)
    assert len(list(tmp_path.glob("*.pack"))) == 2


def test_a_list_takes_the_smallest_sensor_and_no_rows_where_there_are_none():
    assert EventList([recording(0)], [0]).sensor_size == (6, 4, 2)
    assert EventList([recording(0, rows=False)], [0]).sensor_size == (6, 1, 2)
    assert EventList([recording(0)], [2]).classes == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], []), TypeError, "^recordings: expected a list of one or more arrays, got an empty list"),
        ((recording(0), [0]), TypeError, "^recordings: expected a list .* of shape \\(60,\\)"),
        (([recording(0)], [0, 1]), ValueError, r"^targets: expected 1, one per recording, got shape \(2,\)"),
        (([recording(0)], [0.5]), TypeError, "^targets: expected integers"),
        (([recording(0)], [-1]), ValueError, "^targets: expected integers .* got -1 for recording 0"),
        (([recording(0), recording(1)[::-1]], [0, 1]), ValueError, "^recordings, number 1: events: expected ascending"),
        (([recording(0), [1, 2]], [0, 1]), TypeError, "^recordings, number 1: events: expected a structured array"),
    ],
)
def test_lists_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        EventList(*arguments)


def test_a_list_off_its_sensor_is_refused():
    with pytest.raises(
        ValueError, match=r"^recordings, number 0: events: event 0 .* is off a sensor of size \(1, 1, 2\)"
    ):
        EventList([recording(0)], [0], sensor_size=(1, 1, 2))


def test_a_folder_with_parts_keeps_them(divided, tmp_path):
    made = loaders(divided, cache=tmp_path, n_time_bins=3)
    assert sizes(made) == [8, 4, 6]
    assert made[0].dataset.classes == ["left", "right"]
    assert sizes(loaders(str(divided), cache=tmp_path, val_fraction=0)) == [8, None, 6]
    assert sizes(loaders(divided, cache=tmp_path, train_fraction=0.5)) == [4, 4, 6]
    assert sizes(loaders(divided, cache=tmp_path, folds=3, fold=0, val_fraction=0)) == [12, None, 6]
    with pytest.raises(
        ValueError, match=r"^test_fraction: expected only with a data set of your own that has no parts"
    ):
        loaders(divided, cache=tmp_path, test_fraction=0.5)
    expected = recording(100 * len("test"))
    np.testing.assert_array_equal(nd.load(divided, "test")[0][0], expected)
    assert [len(nd.load(divided, split)) for split in ("train", "val", "test", "all")] == [8, 4, 6, 18]


def test_damaged_recordings_leave_the_parts_right(divided, tmp_path):
    (divided / "train" / "left" / "0.csv").write_text("t,x,y,p\n0,0,0,7\n")
    with pytest.warns(UserWarning, match="1 of 18 recordings are left out"):
        made = loaders(divided, cache=tmp_path, on_error="skip")
    assert sizes(made) == [7, 4, 6]
    with pytest.raises(RecordingError, match=r"0\.csv: event 0: expected p"):
        loaders(divided, cache=tmp_path)


def test_a_folder_without_a_val_part_divides_its_training(divided, tmp_path):
    (divided / "val").rename(tmp_path / "val")
    assert sizes(loaders(divided, cache=tmp_path, val_fraction=0.25)) == [6, 2, 6]
    (divided / "test" / "up").mkdir()
    with pytest.raises(ValueError, match=r"test: expected only classes that are in .*train, got \['up'\]"):
        EventFolder(divided, cache=tmp_path)


def test_a_folder_without_parts_is_divided(divided, tmp_path):
    assert sizes(loaders(divided / "train", cache=tmp_path, val_fraction=0, test_fraction=0.25)) == [6, None, 2]


def test_parts_of_sets(tmp_path):
    pair = listed(8), listed(6, shift=50)
    made = loaders(pair, cache=tmp_path, val_fraction=0.25)
    assert sizes(made) == [6, 2, 6]
    expected = nd.to_frames(recording(50), (6, 4, 2), n_time_bins=10)
    np.testing.assert_array_equal(made[2].dataset[0][0].numpy(), expected)
    assert sizes(loaders((listed(8), listed(4, shift=70), listed(6, shift=50)), cache=tmp_path)) == [8, 4, 6]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([listed()], r"^name: expected \(train, test\) or \(train, val, test\), got 1 sets"),
        ([listed(), listed(classes=["a", "b"])], r"^name: expected parts with the same classes, got \['0', '1'\] and"),
        ([listed(), EventList([recording(0)] * 2, [0, 1], sensor_size=(7, 4, 2))], "with the same sensor_size"),
        ([listed(), listed(transform=len)], "^name: expected parts with the same transform"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        loaders(parts)


CODE = """
import numpy as np
import neuromorphic_datasets as nd

events = np.array([(0, 0, 0, 1), (1, 2, 9, 0)], nd.EVENT_DTYPE)

def make():
    return nd.EventList([events] * 10, [0, 1] * 5)

ready = make()
pair = make(), make()
other = 3

def needs(number):
    return number
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "recordings_of_mine.py"
    path.write_text(CODE)
    yield path
    sys.modules.pop("recordings_of_mine", None)


@pytest.mark.parametrize("name", ["make", "ready", "pair"])
def test_code_names_a_set(code, name, tmp_path):
    expected = [9, 1, 10] if name == "pair" else [6, 2, 2]
    assert sizes(loaders(f"{code}:{name}", cache=tmp_path, val_fraction=0.2)) == (
        [8, 2, 10] if name == "pair" else expected
    )
    assert sizes(loaders(f"recordings_of_mine:{name}", cache=tmp_path, val_fraction=0.2))[2] == expected[2]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("{code}:nothing", ValueError, "^name: expected a name in .*recordings_of_mine.py, got 'nothing'"),
        ("{code}:other", TypeError, "^name: expected a name, a folder, a data set, .* got int 3"),
        ("{folder}/none.py:make", ValueError, "^name: expected a file, got none at .*none.py"),
        ("{folder}/json.py:make", ValueError, "^name: expected a file whose name no other module has, got .*json.py"),
        ("no_such_module:make", ValueError, "^name: expected a module that can be imported, got 'no_such_module'"),
        ("{folder}/nowhere", ValueError, "^name: expected a folder, got none at .*nowhere"),
        ("nmnsit", ValueError, "^name: expected one of .*, got 'nmnsit'; did you mean 'nmnist'"),
        (
            "{folder}/recordings_of_mine.py",
            ValueError,
            r"^name: expected a folder .* got the file .*recordings_of_mine\.py; add :NAME",
        ),
        ("{folder}/recordings_of_mine.py:needs", ValueError, r"required arguments, got needs\(number\)"),
    ],
)
def test_mistakes_in_specifications_are_named(code, tmp_path, spec, error, message):
    (tmp_path / "json.py").write_text("make = None")
    with pytest.raises(error, match=message):
        loaders(spec.format(code=code, folder=tmp_path))


def test_what_the_users_code_lacks_is_not_hidden(tmp_path, code):
    code.write_text("import a_package_that_is_not_installed\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_installed"):
        loaders(f"{code}:make")


def test_a_root_for_data_of_ones_own_is_refused(divided):
    with pytest.raises(ValueError, match=r"^root and download: expected only with a name"):
        nd.load(divided, root=divided)


def test_a_transform_of_a_loaded_part(divided):
    events, _ = nd.load(divided, "test", transform=lambda events: events[:3])[0]
    assert len(events) == 3
    assert len(nd.load(divided, "all", transform=lambda events: events[:2])[5][0]) == 2


def test_a_set_shows_what_it_is():
    own = nd.EventList([recording(0)] * 4, [0, 1] * 2, sensor_size=(8, 6, 2), name="mine")
    assert repr(own) == "<EventList mine all: 4 recordings, 2 classes, sensor (8, 6, 2)>"


def test_rows_are_checked_when_a_list_is_made():
    flat = recording(0)[["x", "t", "p"]]
    with pytest.raises(TypeError, match=r"^recordings, number 1: events: expected a field y in all .* or in none"):
        nd.EventList([recording(0), flat], [0, 1])
    with pytest.raises(TypeError, match=r"^recordings, number 0: events: expected a field y, because the sensor has"):
        nd.EventList([flat], [0], sensor_size=(8, 6, 2))
