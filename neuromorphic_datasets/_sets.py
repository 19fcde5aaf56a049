"""The catalogue: what each data set is, where its files are, and how it is read.

URLs, checksums and layouts are those of Tonic 1.7, except figshare's URLs: its pages answer programs with an empty 202,
while ``ndownloader.figshare.com`` and the API deliver.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np

from ._class_folders import by_class
from ._dataset import EventDataset
from ._download import RemoteFile
from ._events import Events, Recording, RecordingError
from ._files import FileDataset
from ._tonic import Reading, TonicDataset, class_names
from .readers import read_recording


@dataclass(frozen=True)
class Info:
    """The description of a data set.

    Attributes:
        name: its name in this package.
        title: its name in the literature.
        sensor_size: (width, height, polarities); sound has height 1.
        n_classes: the number of classes.
        class_names: their names, where Tonic has none or different ones; see `classes`.
        splits: the publisher's parts; a set with only "all" is divided by `load`, stratified and always the same way.
        licence: the licence that its publisher states.
        citation: authors, year, title.
        homepage: the page that describes it.
        files: the files to download; empty for a generated set.
        folder: the folder below root, named as in Tonic.
        patterns: the recordings of each split below the folder.
        note: further remarks.
        free: whether the recordings may be in root itself.
        open: the function that opens a split from the set's folder.
    """

    name: str
    title: str
    sensor_size: tuple[int, int, int]
    n_classes: int
    splits: tuple[str, ...]
    licence: str
    citation: str
    homepage: str
    files: tuple[RemoteFile, ...] = ()
    folder: str = ""
    patterns: dict[str, str] = field(default_factory=dict)
    note: str = ""
    free: bool = False
    class_names: tuple[str, ...] = ()
    open: "_Opener" = field(kw_only=True, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty if they are known only from the files."""
        return self.class_names or class_names(self.folder)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of the files."""
        return tuple(dict.fromkeys(urlparse(url).netloc for file in self.files for url in file.urls))

    @property
    def bytes(self) -> int | None:
        """The size of the download; None if a file's size is not known in advance."""
        sizes = [file.bytes for file in self.files if file.bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


_Opener = Callable[[Info, str, Path, Callable | None], EventDataset]


def _figshare(number: int) -> tuple[str, ...]:
    return (
        f"https://ndownloader.figshare.com/files/{number}",
        f"https://api.figshare.com/v2/file/download/{number}",
        f"https://figshare.com/ndownloader/files/{number}",
    )


def _tonic(reading: Reading) -> _Opener:
    def open_set(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
        files = sorted(folder.glob(info.patterns[split]))
        return TonicDataset(info.name, split, folder, files, info.sensor_size, reading, transform)

    return open_set


def _class_folders(
    part: dict[str, str],
    endings: tuple[str, ...],
    classes: Sequence[str] | None = None,
    read: Callable[[Path], Recording] | None = None,
    skip: str = ".",
) -> _Opener:
    """Return an opener of sets with one file per recording, in a folder for each class.

    `part` is the folder of each split, anywhere below the set's; files whose names start with `skip` are ignored.
    """

    def open_set(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
        parent = next(iter(sorted(folder.rglob(part[split]))), folder) if part[split] else folder
        names = classes or sorted(path.name for path in parent.iterdir() if path.is_dir())
        files, labels, _ = by_class(parent, names, endings, skip)
        return FileDataset(info.name, split, info.sensor_size, list(names), files, labels, read, transform)

    return open_set


def _open_saccade_digits(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    from .saccade_digits import SaccadeDigits

    return SaccadeDigits(split, folder, transform)


def _read_ncaltech(path: Path) -> Recording:
    events = read_recording(path).events
    x, y = events.x, events.rows()
    # As in Tonic: each recording starts at its own leftmost and topmost event.
    return Recording(Events(x - x.min(), y - y.min(), events.t, events.p))


def _read_stmnist(path: Path) -> Recording:
    """Read 100 rows of signs and one of times in seconds; taxels are numbered along rows of ten."""
    from scipy.io import loadmat

    try:
        table = loadmat(path)["spiketrain"]
    except Exception as error:  # SciPy has no common error for damaged files
        raise RecordingError(f"{path}: {type(error).__name__}: {error}") from error
    if table.ndim != 2 or table.shape[0] != 101:
        raise RecordingError(f"{path}: expected 101 rows, got an array of shape {table.shape}")
    column, taxel = np.nonzero(table[:100].T)
    if not len(column):
        raise RecordingError(f"{path}: expected at least one event, got none")
    t = np.rint(table[100, column] * 1e6).astype(np.int64)
    order = np.argsort(t, kind="stable")
    x, y, p = taxel % 10, taxel // 10, table[taxel, column] > 0
    return Recording(Events.compact(x[order], y[order], t[order], p[order]))


def _hdf5_labels(source: Any) -> np.ndarray:
    import h5py

    with h5py.File(Path(source.location_on_system, source.data_filename), "r") as file:
        return file["labels"][()].astype(np.int64)


def _tidigits_labels(source: Any) -> list[int]:
    return [source.class_map[name.split("-")[-1]] for name in source._samples]


_DIGITS = tuple(str(digit) for digit in range(10))
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}
_MENDELEY = "https://data.mendeley.com/public-files/datasets/"
_ZENKE = "https://zenkelab.org/datasets/"
_ZENKE_PAGE = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
_POKER = "https://raw.githubusercontent.com/neuromorphs/tonic/d6f0a56421008c8e5700ca52abda193f9ff29836/tonic/datasets/"
_MNIST = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")


def _mnist_file(name: str, md5: str, size: int, split: str) -> RemoteFile:
    return RemoteFile(f"{name}.gz", tuple(f"{host}{name}.gz" for host in _MNIST), md5, size, split)


_MNIST_FILES = (
    _mnist_file("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422, "train"),
    _mnist_file("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", 28_881, "train"),
    _mnist_file("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", 1_648_877, "test"),
    _mnist_file("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", 4_542, "test"),
)

_ALL = (
    Info(
        "asldvs",
        "ASL-DVS",
        (240, 180, 2),
        26,
        ("all",),
        "see its homepage",
        "Bi et al. 2019, Graph-based Object Classification for Neuromorphic Vision Sensing",
        "https://github.com/PIX2NVS/NVS2Graph",
        (RemoteFile("ASLDVS.zip", ("https://www.dropbox.com/sh/ibq0jsicatn7l6r/AACNrNELV56rs1YInMWUs9CAa?dl=1",)),),
        "ASLDVS",
        {"all": "**/*.mat"},
        note="No recordings of j and z, which are movements. The host repacks the file for each download, so its "
        "checksum is not fixed; the file was reported missing in 2024.",
        open=_tonic(Reading("ASLDVS", {"all": {}})),
    ),
    Info(
        "cifar10dvs",
        "CIFAR10-DVS",
        (128, 128, 2),
        10,
        ("all",),
        "CC BY 4.0",
        "Li et al. 2017, CIFAR10-DVS: An Event-Stream Dataset for Object Classification",
        "https://www.frontiersin.org/articles/10.3389/fnins.2017.00309/full",
        (RemoteFile("CIFAR10DVS.zip", _figshare(38023437), "ce3a4a0682dc0943703bd8f749a7701c"),),
        "CIFAR10DVS",
        {"all": "*/*.aedat4"},
        free=True,
        class_names=_CIFAR,
        open=_class_folders({"all": ""}, (".aedat4",), _CIFAR),
    ),
    Info(
        "dvslip",
        "DVS-Lip",
        (128, 128, 2),
        100,
        ("train", "test"),
        "see its homepage",
        "Tan et al. 2022, Multi-Grained Spatio-Temporal Features Perceived Network for Event-Based Lip-Reading",
        "https://sites.google.com/view/event-based-lipreading",
        (
            RemoteFile(
                "DVS-Lip.zip",
                ("https://drive.google.com/file/d/1dBEgtmctTTWJlWnuWxFtk8gfOdVVpkQ0/view",),
                "2dcb959255122d4cdeb6094ca282494b",
                by_hand=True,
            ),
        ),
        "DVSLip",
        {"train": "DVS-Lip/train/*/*.npy", "test": "DVS-Lip/test/*/*.npy"},
        note="Google Drive asks for confirmation before it delivers a file of this size: fetch it with a browser.",
        open=_tonic(Reading("DVSLip", _TRAIN_TEST)),
    ),
    Info(
        "dvsgesture",
        "DVS128 Gesture",
        (128, 128, 2),
        11,
        ("train", "test"),
        "CC BY 4.0",
        "Amir et al. 2017, A Low Power, Fully Event-Based Gesture Recognition System",
        "https://research.ibm.com/interactive/dvsgesture/",
        (
            RemoteFile(
                "ibmGestureTrain.tar.gz", _figshare(38022171), "3a8f0d4120a166bac7591f77409cb105", split="train"
            ),
            RemoteFile("ibmGestureTest.tar.gz", _figshare(38020584), "56070e45dadaa85fff82e0fbfbc06de5", split="test"),
        ),
        "DVSGesture",
        {"train": "ibmGestureTrain/*/*.npy", "test": "ibmGestureTest/*/*.npy"},
        note="Tonic's cut version: one gesture per recording, times in whole ms.",
        open=_tonic(Reading("DVSGesture", _TRAIN_TEST)),
    ),
    Info(
        "ncaltech101",
        "N-Caltech101",
        (240, 180, 2),
        101,
        ("all",),
        "see its homepage",
        "Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades",
        "https://www.garrickorchard.com/datasets/n-caltech101",
        (
            RemoteFile(
                "N-Caltech101-archive.zip",
                (f"{_MENDELEY}cy6cvx3ryv/files/36b5c52a-b49d-4853-addb-a836a8883e49/file_downloaded",),
                "66201824eabb0239c7ab992480b50ba3",
            ),
        ),
        "NCALTECH101",
        {"all": "**/Caltech101/*/*.bin"},
        note="Recordings differ in size; none is larger than the sensor.",
        free=True,
        open=_class_folders({"all": "Caltech101"}, (".bin",), read=_read_ncaltech),
    ),
    Info(
        "ntidigits",
        "N-TIDIGITS18, single digits",
        (64, 1, 1),
        11,
        ("train", "test"),
        "see its homepage",
        "Anumula et al. 2018, Feature Representations for Neuromorphic Audio Spike Streams",
        "https://docs.google.com/document/d/1Uxe7GsKKXcy6SlDUX4hoJVAC0-UkH-8kr5UXp0Ndi1M",
        (
            RemoteFile(
                "n-tidigits.hdf5",
                (
                    "https://www.dropbox.com/scl/fi/1x4lxt9yyw25sc3tez8oi/n-tidigits.hdf5"
                    "?e=2&rlkey=w8gi5udvib2zqzosusa5tr3wq&dl=1",
                ),
                "360a2d11e5429555c9197381cf6b58e0",
            ),
        ),
        "NTIDIGITS18",
        {"train": "n-tidigits.hdf5", "test": "n-tidigits.hdf5"},
        open=_tonic(
            Reading(
                "NTIDIGITS18",
                {split: {**arguments, "single_digits": True} for split, arguments in _TRAIN_TEST.items()},
                _tidigits_labels,
            )
        ),
    ),
    Info(
        "nmnist",
        "N-MNIST",
        (34, 34, 2),
        10,
        ("train", "test"),
        "CC BY-SA 4.0",
        "Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades",
        "https://www.garrickorchard.com/datasets/n-mnist",
        (
            RemoteFile(
                "train.zip",
                (f"{_MENDELEY}468j46mzdv/files/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",),
                "20959b8e626244a1b502305a9e6e2031",
                split="train",
            ),
            RemoteFile(
                "test.zip",
                (f"{_MENDELEY}468j46mzdv/files/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",),
                "69ca8762b2fe404d9b9bad1103e97832",
                split="test",
            ),
        ),
        "NMNIST",
        {"train": "Train/[0-9]/*.bin", "test": "Test/[0-9]/*.bin"},
        note="A part of the set is enough.",
        free=True,
        class_names=_DIGITS,
        open=_class_folders({"train": "Train", "test": "Test"}, (".bin",), _DIGITS),
    ),
    Info(
        "pokerdvs",
        "POKER-DVS",
        (35, 35, 2),
        4,
        ("train", "test"),
        "see its homepage",
        "Serrano-Gotarredona and Linares-Barranco 2015, Poker-DVS and MNIST-DVS",
        "http://www2.imse-cnm.csic.es/caviar/POKERDVS.html",
        (
            RemoteFile(
                "pips_train.tar.gz", (f"{_POKER}pips_train.tar.gz",), "412bcfb96826e4fcb290558e8c150aae", split="train"
            ),
            RemoteFile(
                "pips_test.tar.gz", (f"{_POKER}pips_test.tar.gz",), "eef2bf7d0d3defae89a6fa98b07c17af", split="test"
            ),
        ),
        "POKERDVS",
        {"train": "pips_train/*/*.npy", "test": "pips_test/*/*.npy"},
        note="Tonic's package lacks the files; its repository has them.",
        open=_tonic(Reading("POKERDVS", _TRAIN_TEST, sort_by_label=True)),
    ),
    Info(
        "saccade-digits",
        "saccade-digits",
        (34, 34, 2),
        10,
        ("train", "test"),
        "BSD 3-Clause (scikit-learn's digits)",
        "Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits",
        "https://archive.ics.uci.edu/dataset/80",
        note="Simulated on first use and kept; needs no network.",
        class_names=_DIGITS,
        open=_open_saccade_digits,
    ),
    Info(
        "shd",
        "Spiking Heidelberg Digits",
        (700, 1, 1),
        20,
        ("train", "test"),
        "CC BY 4.0",
        "Cramer et al. 2020, The Heidelberg Spiking Data Sets",
        _ZENKE_PAGE,
        (
            RemoteFile(
                "shd_train.h5.zip", (f"{_ZENKE}shd_train.h5.zip",), "f3252aeb598ac776c1b526422d90eecb", split="train"
            ),
            RemoteFile(
                "shd_test.h5.zip", (f"{_ZENKE}shd_test.h5.zip",), "1503a5064faa34311c398fb0a1ed0a6f", split="test"
            ),
        ),
        "SHD",
        {"train": "shd_train.h5", "test": "shd_test.h5"},
        open=_tonic(Reading("SHD", _TRAIN_TEST, _hdf5_labels)),
    ),
    Info(
        "smnist",
        "Spiking sequential MNIST",
        (99, 1, 1),
        10,
        ("train", "test"),
        "CC BY-SA 3.0 (MNIST)",
        "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition; spikes as in Tonic's SMNIST",
        "http://yann.lecun.com/exdb/mnist/",
        _MNIST_FILES,
        "smnist",
        {"train": "train-*-ubyte", "test": "t10k-*-ubyte"},
        note="Events are threshold crossings of the grey values, pixel by pixel.",
        open=_tonic(Reading("SMNIST", _TRAIN_TEST, attrgetter("label_data"))),
    ),
    Info(
        "ssc",
        "Spiking Speech Commands",
        (700, 1, 1),
        35,
        ("train", "valid", "test"),
        "CC BY 4.0",
        "Cramer et al. 2020, The Heidelberg Spiking Data Sets",
        _ZENKE_PAGE,
        tuple(
            RemoteFile(f"ssc_{split}.h5.zip", (f"{_ZENKE}ssc_{split}.h5.zip",), md5, split=split)
            for split, md5 in (
                ("train", "d102be95e7144fcc0553d1f45ba94170"),
                ("valid", "b4eee3516a4a90dd0c71a6ac23a8ae43"),
                ("test", "a35ff1e9cffdd02a20eb850c17c37748"),
            )
        ),
        "SSC",
        {"train": "ssc_train.h5", "valid": "ssc_valid.h5", "test": "ssc_test.h5"},
        open=_tonic(Reading("SSC", {split: {"split": split} for split in ("train", "valid", "test")}, _hdf5_labels)),
    ),
    Info(
        "stmnist",
        "ST-MNIST",
        (10, 10, 2),
        10,
        ("all",),
        "see its homepage",
        "See et al. 2020, ST-MNIST: The Spiking Tactile MNIST Neuromorphic Dataset",
        "https://scholarbank.nus.edu.sg/handle/10635/168106",
        (
            RemoteFile(
                "STMNIST dataset NUS Tee Research Group.zip",
                (
                    "https://scholarbank.nus.edu.sg/bitstream/10635/168106/2/"
                    "STMNIST%20dataset%20NUS%20Tee%20Research%20Group.zip",
                ),
                by_hand=True,
            ),
        ),
        "STMNIST",
        {"all": "data_submission/[0-9]/*.mat"},
        note="The host requires a form: fetch the file with a browser.",
        free=True,
        class_names=_DIGITS,
        open=_class_folders({"all": "data_submission"}, (".mat",), _DIGITS, _read_stmnist, skip="LUT"),
    ),
)
SETS = {info.name: info for info in _ALL}
"""Every data set by name."""
