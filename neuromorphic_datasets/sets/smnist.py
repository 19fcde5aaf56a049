"""Spiking sequential MNIST."""

from operator import attrgetter

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, tonic

_HOSTS = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")


def _mnist_file(name: str, md5: str, size: int, split: str) -> RemoteFile:
    return RemoteFile(f"{name}.gz", tuple(f"{host}{name}.gz" for host in _HOSTS), md5, size, split, pattern=name)


_FILES = (
    _mnist_file("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422, "train"),
    _mnist_file("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", 28_881, "train"),
    _mnist_file("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", 1_648_877, "test"),
    _mnist_file("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", 4_542, "test"),
)

INFO = Info(
    name="smnist",
    title="Spiking sequential MNIST",
    sensor_size=(99, 1, 1),
    n_classes=10,
    splits=("train", "test"),
    licence="CC BY-SA 3.0 (MNIST)",
    citation="LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition; spikes as in Tonic's SMNIST",
    homepage="http://yann.lecun.com/exdb/mnist/",
    files=_FILES,
    folder="smnist",
    patterns={"train": "train-*-ubyte", "test": "t10k-*-ubyte"},
    note="Events are threshold crossings of the grey values, pixel by pixel.",
    open=tonic(Reading("SMNIST", TRAIN_TEST, attrgetter("label_data"))),
)
