"""Small data sets in the publishers' layouts, written without our code."""

import struct
import zipfile

import h5py
import numpy as np
import scipy.io
from event_files import EVENTS, aedat3, aedat4, dat, dat1, nmnist

import neuromorphic_datasets as nd
from neuromorphic_datasets._events import EVENT_DTYPE

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
