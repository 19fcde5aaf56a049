"""N-MNIST."""

from .._download import RemoteFile
from ._info import DIGITS, Info, class_folders

_MENDELEY = "https://data.mendeley.com/public-files/datasets/"
INFO = Info(
    name="nmnist",
    title="N-MNIST",
    sensor_size=(34, 34, 2),
    n_classes=10,
    splits=("train", "test"),
    licence="CC BY-SA 4.0",
    citation="Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades",
    homepage="https://www.garrickorchard.com/datasets/n-mnist",
    files=(
        RemoteFile(
            "train.zip",
            (f"{_MENDELEY}468j46mzdv/files/39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",),
            md5="20959b8e626244a1b502305a9e6e2031",
            split="train",
        ),
        RemoteFile(
            "test.zip",
            (f"{_MENDELEY}468j46mzdv/files/05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",),
            md5="69ca8762b2fe404d9b9bad1103e97832",
            split="test",
        ),
    ),
    folder="NMNIST",
    patterns={"train": "Train/[0-9]/*.bin", "test": "Test/[0-9]/*.bin"},
    note="A part of the set is enough.",
    free=True,
    class_names=DIGITS,
    open=class_folders({"train": "Train", "test": "Test"}, (".bin",), DIGITS, partial=True),
)
