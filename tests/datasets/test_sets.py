"""Every catalogued set, from fixtures in the publishers' layouts, written without our code."""

import hashlib
import pickle
import zipfile
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from folders import real_data
from published_sets import FIXTURES, bullying

import neuromorphic_datasets as nd
from neuromorphic_datasets import _catalogue
from neuromorphic_datasets._splits import published_test_part


def assert_same(dataset, expected):
    assert dataset.targets.tolist() == [label for _, label in expected]
    for position, (events, label) in enumerate(expected):
        loaded, target = dataset[position]
        fields = "xytp" if dataset.sensor_size[1] > 1 else "xtp"
        assert (loaded.dtype, target) == (np.dtype([(field, np.int64) for field in fields]), label)
        for field in fields:
            np.testing.assert_array_equal(loaded[field], events[field])


@pytest.fixture(params=FIXTURES)
def fixture(request, tmp_path):
    name = request.param
    if name == "ncaltech101":
        expected = FIXTURES[name](tmp_path / "inner")
        (tmp_path / "NCALTECH101").mkdir()
        (tmp_path / "NCALTECH101" / "N-Caltech101-archive").mkdir()
        with zipfile.ZipFile(tmp_path / "inner" / "Caltech101.zip") as inner:
            inner.extractall(tmp_path / "NCALTECH101" / "N-Caltech101-archive")
        return name, tmp_path, expected
    return name, tmp_path, FIXTURES[name](tmp_path / nd.info(name).folder)


def test_a_fixture_is_read_event_by_event(fixture):
    name, root, expected = fixture
    if set(expected) == {"all"}:
        whole = nd.load(name, "all", root=root)
        assert_same(whole, expected["all"])
        parts = [nd.load(name, split, root=root) for split in ("train", "test")]
        assert [len(part) for part in parts] == [len(whole) * 4 // 5, len(whole) // 5]
        assert sorted(np.concatenate([part.targets for part in parts])) == sorted(whole.targets)
        assert sorted(parts[1].targets) == sorted(set(whole.targets))
    else:
        for split, recordings in expected.items():
            assert_same(nd.load(name, split, root=root), recordings)
        pooled = nd.load(name, "all", root=root)
        assert_same(pooled, [pair for split in nd.info(name).splits for pair in expected[split]])


def test_a_fixture_states_its_classes(fixture):
    name, root, _ = fixture
    dataset = nd.load(name, "all", root=root)
    assert dataset.sensor_size == nd.info(name).sensor_size
    assert len(dataset.classes) == (3 if name == "ncaltech101" else nd.info(name).n_classes)
    assert all(isinstance(known, str) for known in dataset.classes)
    assert nd.info(name).classes in ((), tuple(dataset.classes))


def test_a_fixture_can_be_pickled(fixture):
    name, root, _ = fixture
    dataset = nd.load(name, "test", root=root)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[1][0], dataset[1][0])


def test_a_fixture_makes_batches(fixture):
    name, root, _ = fixture
    steps_back = name.startswith("navgesture")
    with pytest.warns(UserWarning, match="the time goes back") if steps_back else nullcontext():
        train, _, test = nd.loaders(name, root=root, cache=root / "cache", n_time_bins=5, val_fraction=0)
    width, height, polarities = nd.info(name).sensor_size
    for loader in (train, test):
        frames, _ = next(iter(loader))
        assert frames.shape == (5, min(32, len(loader.dataset)), polarities, height, width)
        assert (frames.sum((0, 2, 3, 4)) > 0).all()
        everything = torch.cat([labels for _, labels in loader])
        assert sorted(everything.tolist()) == sorted(loader.dataset.targets.tolist())


def test_a_fixture_is_verified(fixture):
    name, root, _ = fixture
    assert nd.verify(name, root=root) == []


def test_missing_files_are_reported(fixture, tmp_path_factory):
    name, _, _ = fixture
    with pytest.raises(FileNotFoundError) as caught:
        nd.load(name, root=tmp_path_factory.mktemp("none"))
    for file in nd.info(name).files:
        if file.split in ("train", "all"):
            assert file.urls[0] in str(caught.value)
            assert file.name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("asldvs", "ASLDVS/a/a_0000.mat"),
        ("cifar10dvs", "CIFAR10DVS/airplane/cifar10_airplane_0.aedat4"),
        ("dvslip", "DVSLip/DVS-Lip/train/accused/0.npy"),
        ("dvsgesture", "DVSGesture/ibmGestureTrain/user01_led/0.npy"),
        ("stmnist", "STMNIST/data_submission/0/0_0.mat"),
    ],
)
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros"])
def test_a_damaged_recording_is_named(tmp_path, name, file, damage):
    FIXTURES[name](tmp_path / nd.info(name).folder)
    path = tmp_path / file
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "zeros": bytes(len(content))}[damage])
    [wrong] = nd.verify(name, root=tmp_path)
    assert str(path) in wrong
    with pytest.raises(nd.RecordingError, match=path.name):
        nd.load(name, "train" if "train" in nd.info(name).splits else "all", root=tmp_path)[0]


def test_ssc_validates_on_its_own_part(tmp_path):
    FIXTURES["ssc"](tmp_path / "SSC")
    _, val, _ = nd.loaders("ssc", root=tmp_path, cache=tmp_path, n_time_bins=2)
    assert val.dataset.targets.tolist() == nd.load("ssc", "val", root=tmp_path).targets.tolist()
    with pytest.raises(ValueError, match=r"^split: expected one of \['train', 'test', 'all'\], got 'val'"):
        nd.load("shd", "val", root=tmp_path)


@pytest.mark.real_data
def test_the_real_st_mnist_sample(tmp_path):
    for digit in range(10):
        place = tmp_path / "STMNIST" / "data_submission" / str(digit)
        place.mkdir(parents=True)
        (place / "s.mat").write_bytes((real_data("event_formats") / "sample_stmnist.mat").read_bytes())
    events, label = nd.load("stmnist", "all", root=tmp_path)[0]
    assert (len(events), label) == (745 + 1601, 0)
    assert (events["p"] == 1).sum() == 1601
    assert events["t"][0] == 196_626


@pytest.mark.parametrize("name", nd.names())
def test_the_catalogue_is_complete(name):
    info = nd.info(name)
    assert info.name == name
    for text in (info.title, info.licence, info.citation, info.homepage):
        assert text.strip()
    assert len(info.sensor_size) == 3
    assert len(info.classes) in (0, info.n_classes)
    assert set(info.splits) in ({"all"}, {"train", "test"}, {"train", "val", "test"})
    if name in ("random-manifolds", "saccade-digits"):
        assert (info.files, info.hosts, info.bytes) == ((), (), 0)
        return
    assert set(info.patterns) == set(info.splits)
    assert info.hosts
    for file in info.files:
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)
        assert file.md5 is None or len(file.md5) == 32
    if "figshare" in "".join(info.hosts):
        assert not any(file.urls[0].startswith("https://figshare.com") for file in info.files)


def test_published_splits_are_fixed_by_name():
    """CIFAR10-DVS as published: 1000 recordings per class, by whose names two papers use the same test part."""
    names = [
        f"{kind}/cifar10_{kind}_{number}.aedat4" for kind in nd.info("cifar10dvs").classes for number in range(1000)
    ]
    labels = np.repeat(np.arange(10), 1000)
    train, test = published_test_part(labels, names)
    assert np.bincount(labels[test]).tolist() == [200] * 10
    assert sorted([*train, *test]) == list(range(10_000))
    digest = hashlib.sha256("\n".join(sorted(names[number] for number in test)).encode()).hexdigest()
    assert digest == "a4d4240d68db27e5541b9239db98a3742b5dc979d404e449a603130770e3deb6"
    shuffled = np.random.default_rng(0).permutation(len(names))
    _, again = published_test_part(labels[shuffled], [names[number] for number in shuffled])
    assert {names[number] for number in shuffled[again]} == {names[number] for number in test}


def test_pickles_run_no_code(tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    bullying(tmp_path)
    array = np.empty(1, object)
    array[0] = Harm()
    np.save(tmp_path / "handshake" / "A" / "0.npy", array, allow_pickle=True)
    with pytest.raises(nd.RecordingError, match=r"0\.npy: UnpicklingError: expected lists of numbers, got .*print"):
        nd.load("bullying10k", "all", root=tmp_path)[0]


def test_every_archive_of_a_set_is_unpacked(tmp_path, monkeypatch):
    folder = tmp_path / "Bullying10k"
    recordings = bullying(tmp_path / "unpacked")["all"]
    folder.mkdir()
    for name in nd.info("bullying10k").classes:
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / "unpacked" / name).rglob("*.npy")):
                archive.write(path, path.relative_to(tmp_path / "unpacked"))
    monkeypatch.setattr(_catalogue, "is_right", lambda *archive: True)
    whole = nd.load("bullying10k", "all", root=tmp_path)
    assert np.bincount(whole.targets).tolist() == [5] * 10
    assert len(whole) == len(recordings)


def test_a_class_without_recordings_is_refused(tmp_path):
    bullying(tmp_path / "Bullying10k")
    for path in (tmp_path / "Bullying10k" / "kicking").rglob("*.npy"):
        path.unlink()
    with pytest.raises(nd.RecordingError, match=r"expected recordings of every class, got none of \['kicking'\]"):
        nd.load("bullying10k", "all", root=tmp_path)


def test_unsorted_recordings_of_a_reader_of_its_own_are_refused(tmp_path):
    bullying(tmp_path / "Bullying10k")
    array = np.empty(2, object)
    array[0], array[1] = [(500, 1, 1, 1, 0)], [(20, 1, 1, 0, 0)]
    np.save(tmp_path / "Bullying10k" / "handshake" / "A" / "0.npy", array, allow_pickle=True)
    with pytest.raises(nd.RecordingError, match=r"0\.npy: event 1: the time goes back, from 500 to 20"):
        nd.load("bullying10k", "all", root=tmp_path)[0]
