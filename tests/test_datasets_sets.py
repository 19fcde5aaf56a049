"""Every catalogued set, from fixtures in the publishers' layouts, written without our code."""

import hashlib
import pickle
import struct
import zipfile
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from event_files import EVENTS, aedat3, aedat4, dat, dat1, nmnist

import neuromorphic_datasets as nd
from neuromorphic_datasets import _catalogue
from neuromorphic_datasets._events import EVENT_DTYPE
from neuromorphic_datasets._splits import published_test_part

RNG = np.random.default_rng(0)


def recording(seed, size=(16, 12, 2), count=30):
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    for field, high in zip("xyp", size, strict=True):
        events[field] = rng.integers(high, size=count)
    events["t"] = np.sort(rng.integers(0, 100, size=count)) * 1000
    return events


def saved(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def dvsgesture(folder):
    """``ibmGestureTrain/user01_lab/3.npy``: float columns x, y, p and t in ms."""
    expected = {}
    for split, users in (("train", (1, 2)), ("test", (24,))):
        for user in users:
            for label in (10, 0, 3):
                events = recording(user * 20 + label)
                columns = np.stack([events[field] for field in "xyp"] + [events["t"] // 1000], axis=1).astype(float)
                saved(folder / f"ibmGesture{split.title()}" / f"user{user:02}_led" / f"{label}.npy", columns)
                expected.setdefault(split, []).append((f"user{user:02}", f"{label}.npy", events, label))
    return {
        split: [(events, label) for _, _, events, label in sorted(recordings, key=lambda e: e[:2])]
        for split, recordings in expected.items()
    }


def poker(folder):
    """``pips_train/cl/0.npy``: integer columns t, x, y, p."""
    expected = {}
    for split in ("train", "test"):
        for label, name in enumerate(("cl", "he", "di", "sp")):
            for number in range(2):
                events = recording(label * 7 + number)
                saved(folder / f"pips_{split}" / name / f"{number}.npy", np.stack([events[f] for f in "txyp"], axis=1))
                expected.setdefault(split, []).append((events, label))
    return expected


def dvs_lip(folder):
    """``DVS-Lip/train/accused/0.npy``: structured t, x, y, p."""
    expected = {}
    for split in ("train", "test"):
        for label, name in ((99, "young"), (0, "accused"), (1, "action")):
            events = recording(label)
            array = np.zeros(len(events), [("t", "<u4"), ("x", "u1"), ("y", "u1"), ("p", "u1")])
            for field in "txyp":
                array[field] = events[field]
            saved(folder / "DVS-Lip" / split / name / "0.npy", array)
            expected.setdefault(split, []).append((events, label))
        expected[split].sort(key=lambda pair: pair[1])
    return expected


def asl(folder):
    """``a/a_0001.mat``: columns ts, x, y, pol; rows count upwards."""
    recordings = []
    for label, name in enumerate("abc"):
        for number in range(5):
            events = recording(label * 9 + number)
            (folder / name).mkdir(parents=True, exist_ok=True)
            columns = {"ts": events["t"], "x": events["x"], "y": 179 - events["y"], "pol": events["p"]}
            columns = {field: column[:, None] for field, column in columns.items()}
            scipy.io.savemat(folder / name / f"{name}_{number:04}.mat", columns)
            recordings.append((events, label))
    return {"all": recordings}


def cifar(folder):
    """``airplane/cifar10_airplane_0.aedat4``."""
    recordings = []
    for label, name in enumerate(nd.info("cifar10dvs").classes):
        (folder / name).mkdir(parents=True)
        for number in range(5):
            aedat4(folder / name / f"cifar10_{name}_{number}.aedat4", EVENTS[number % 2 :])
            recordings.append((EVENTS[number % 2 :], label))
    return {"all": recordings}


def caltech(folder):
    """An archive in the archive; ``Caltech101/accordion/image_0001.bin``; Tonic moves recordings to the corner."""
    folder.mkdir(parents=True)
    recordings = []
    with zipfile.ZipFile(folder / "Caltech101.zip", "w") as inner:
        for label, name in enumerate(("BACKGROUND_Google", "accordion", "yin_yang")):
            for number in range(5):
                shifted = EVENTS.copy()
                shifted["x"] += 20 + number
                shifted["y"] += 100
                inner.writestr(f"Caltech101/{name}/image_{number:04}.bin", nmnist(shifted))
                recordings.append((EVENTS, label))
    return {"all": recordings}


def heidelberg(name):
    """``shd_train.h5``: spikes/times (s) and spikes/units of variable length, labels, extra/keys, extra/speaker."""

    def write(folder):
        folder.mkdir(parents=True)
        expected = {}
        for split in nd.info(name).splits:
            recordings = [(recording(seed, (700, 1, 1)), seed % nd.info(name).n_classes) for seed in (3, 1, 2)]
            with h5py.File(folder / nd.info(name).patterns[split], "w") as file:
                times = file.create_dataset("spikes/times", (3,), h5py.vlen_dtype(np.float64))
                units = file.create_dataset("spikes/units", (3,), h5py.vlen_dtype(np.uint16))
                for row, (events, _) in enumerate(recordings):
                    times[row], units[row] = events["t"] / 1e6, events["x"]
                file["labels"] = np.array([label for _, label in recordings], np.uint16)
                keys = [f"class {number}".encode() for number in range(nd.info(name).n_classes)]
                file["extra/keys"], file["extra/speaker"] = np.array(keys), np.zeros(3, np.uint16)
            expected[split] = recordings
        return expected

    return write


def tidigits(folder):
    """``n-tidigits.hdf5``: labels, and addresses and timestamps (s) by name; sequences of digits have longer names."""
    folder.mkdir(parents=True)
    expected = {}
    with h5py.File(folder / "n-tidigits.hdf5", "w") as file:
        for split in ("train", "test"):
            labels = ["man-ae-o", "man-ae-12", "man-ae-9", "man-ae-z"]
            file[f"{split}_labels"] = np.array([label.encode() for label in labels])
            for seed, label in enumerate(labels):
                events = recording(seed, (64, 1, 1))
                file[f"{split}_addresses/{label}"], file[f"{split}_timestamps/{label}"] = events["x"], events["t"] / 1e6
                if label[-1] in "o9z" and label[-2] == "-":
                    expected.setdefault(split, []).append((events, {"o": 0, "9": 9, "z": 10}[label[-1]]))
    return expected


def smnist(folder):
    """The idx files of MNIST; the expected events are those of Tonic, which are not in the order of time."""
    import tonic.datasets

    folder.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        images = np.random.default_rng(count).integers(256, size=(count, 28, 28), dtype=np.uint8)
        images[:, 3] = 255
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + bytes(range(count)))
    expected = {}
    for split, train in (("train", True), ("test", False)):
        for events, label in (peer := tonic.datasets.SMNIST(str(folder.parent), train=train)):
            ours = np.zeros(len(events), EVENT_DTYPE)
            ours["t"], ours["x"] = events["t"], events["x"]
            ours = ours[np.argsort(ours["t"], kind="stable")]
            expected.setdefault(split, []).append((ours, int(label)))
            if len(expected[split]) == len(peer):
                break
    return expected


def st_mnist(folder):
    """``data_submission/0/LUT_0.mat`` and samples: 100 rows of -1, 0, 1, then one of times in s."""
    recordings = []
    for label in range(10):
        for number in range(5):
            events = recording(label * 5 + number, (10, 10, 2))
            table = np.zeros((101, len(events)))
            table[events["y"] * 10 + events["x"], np.arange(len(events))] = events["p"] * 2 - 1
            table[100] = events["t"] / 1e6
            place = folder / "data_submission" / str(label)
            place.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(place / f"{label}_{number}.mat", {"spiketrain": table})
            scipy.io.savemat(place / f"LUT_{label}.mat", {"other": 1})
            recordings.append((events, label))
    return {"all": recordings}


def gesture_raw(folder):
    """``DvsGesture/user01_led.aedat`` with a table of labels and times beside it; trials_to_train.txt."""
    expected, root = {}, folder / "DvsGesture"
    root.mkdir(parents=True)
    for split, users in (("train", (1, 2)), ("test", (24,))):
        for user in users:
            events = recording(user, count=60)
            (root / f"user{user:02}_led.aedat").write_bytes(aedat3(events))
            rows = [(1, 0, 30_000), (11, 30_000, 60_000), (4, 70_000, 100_000)]
            table = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
            (root / f"user{user:02}_led_labels.csv").write_text("\n".join(table))
            for label, start, end in rows:
                inside = (events["t"] >= start) & (events["t"] < end)
                expected.setdefault(split, []).append((events[inside], label - 1))
        (root / f"trials_to_{split}.txt").write_text("".join(f"user{user:02}_led.aedat\n" for user in users))
    return expected


def ncars(folder):
    """``n-cars_train/train/cars/obj_000001_td.dat``, in an archive in the archive."""
    expected = {}
    for split in ("train", "test"):
        for label, name in enumerate(("background", "cars")):
            for number in range(2):
                path = (
                    folder / "Prophesee_Dataset_n_cars" / f"n-cars_{split}" / split / name / f"obj_{number:06}_td.dat"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                events = recording(label * 3 + number)
                path.write_bytes(dat(events, header=b"% Data file containing Event2d events.\n% Version 2\n"))
                expected.setdefault(split, []).append((events, label))
    return expected


def hardvs(folder):
    """``MINI_HARDVS_files/action_001/action_001/dvSave-1.npz``, and a list for each split."""
    expected = {}
    for number, split in enumerate(("train", "val", "test")):
        lines = []
        for label in (299, 0):
            name = f"action_{label + 1:03}/dvSave-2021_10_15_{number}"
            events = recording(label + number)
            path = folder / "MINI_HARDVS_files" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{field: events[field] for field in "txyp"})
            lines.append(f"{name} 0 {label}\n")
            expected.setdefault(split, []).append((events, label))
        (folder / f"{split}_label.txt").write_text("".join(lines))
    return expected


def es_imagenet(folder):
    """``ES-imagenet-0.18/train/class7/a.npz``: rows of (row, column, step) under pos and neg; vallabel.txt."""
    expected, root = {}, folder / "ES-imagenet-0.18"
    (root / "val").mkdir(parents=True)
    lines = []
    for split, labels in (("train", (0, 12, 7, 999)), ("test", (999, 0))):  # in the order of their names
        for label in labels:
            events = recording(label)
            events = events[np.lexsort((events["p"], events["t"]))]
            rows = np.stack([events["y"], events["x"], events["t"]], axis=1)
            folder_of = root / "train" / f"class{label}" if split == "train" else root / "val"
            folder_of.mkdir(parents=True, exist_ok=True)
            np.savez(folder_of / f"ILSVRC_{label}.npz", pos=rows[events["p"] == 1], neg=rows[events["p"] == 0])
            expected.setdefault(split, []).append((events, label))
            if split == "test":
                lines.append(f"ILSVRC_{label}.npz {label} 200 180\n")
    (root / "vallabel.txt").write_text("".join(lines))
    return expected


def bullying(folder):
    """``handshake/A/0.npy``: an array of objects, lists of (t, x, y, p, ...)."""
    recordings = []
    for label, name in enumerate(nd.info("bullying10k").classes):
        for number in range(5):
            events = recording(label + number)
            rows = [(t, x, y, p, 0) for x, y, t, p in events.tolist()]
            array = np.empty(2, object)
            array[0], array[1] = rows[:10], rows[10:]
            (folder / name / "A").mkdir(parents=True, exist_ok=True)
            np.save(folder / name / "A" / f"{number}.npy", array, allow_pickle=True)
            recordings.append((events, label))
    return {"all": recordings}


def nav(folder):
    """``user01/user01_le_00.dat``: DAT of version 1 without a version, rows from the bottom, a step back in time."""
    recordings = []
    for user in range(1, 6):
        for label, name in sorted(enumerate(("le", "ri", "up", "do", "ho", "se")), key=lambda pair: pair[1]):
            events = recording(user * 7 + label)
            upwards = events.copy()
            upwards["y"] = 239 - events["y"]
            path = folder / f"user{user:02}" / f"user{user:02}_{name}_00.dat"
            path.parent.mkdir(parents=True, exist_ok=True)
            words = dat1(upwards).split(b"Version 1\n")[1][2:]
            header = b"% Data\n\x00\x08" if user % 2 else b""
            path.write_bytes(header + words + struct.pack("<II", 0, 5))
            recordings.append((events, label))
    return {"all": recordings}


FIXTURES = {
    "asldvs": asl,
    "bullying10k": bullying,
    "cifar10dvs": cifar,
    "dvslip": dvs_lip,
    "esimagenet": es_imagenet,
    "dvsgesture": dvsgesture,
    "dvsgesture-raw": gesture_raw,
    "hardvs": hardvs,
    "navgesture-sit": nav,
    "navgesture-walk": nav,
    "ncaltech101": caltech,
    "ncars": ncars,
    "ntidigits": tidigits,
    "pokerdvs": poker,
    "shd": heidelberg("shd"),
    "smnist": smnist,
    "ssc": heidelberg("ssc"),
    "stmnist": st_mnist,
}


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
    from test_datasets_readers import formats_folder

    for digit in range(10):
        place = tmp_path / "STMNIST" / "data_submission" / str(digit)
        place.mkdir(parents=True)
        (place / "s.mat").write_bytes((formats_folder() / "sample_stmnist.mat").read_bytes())
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
