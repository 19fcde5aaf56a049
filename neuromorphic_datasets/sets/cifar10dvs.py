"""CIFAR10-DVS."""

from .._download import RemoteFile
from ._info import Info, class_folders, figshare

_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
INFO = Info(
    name="cifar10dvs",
    title="CIFAR10-DVS",
    sensor_size=(128, 128, 2),
    n_classes=10,
    splits=("all",),
    licence="CC BY 4.0",
    citation="Li et al. 2017, CIFAR10-DVS: An Event-Stream Dataset for Object Classification",
    homepage="https://www.frontiersin.org/articles/10.3389/fnins.2017.00309/full",
    files=(RemoteFile("CIFAR10DVS.zip", figshare(38023437), md5="ce3a4a0682dc0943703bd8f749a7701c"),),
    folder="CIFAR10DVS",
    patterns={"all": "*/*.aedat4"},
    free=True,
    class_names=_CIFAR,
    open=class_folders({"all": ""}, (".aedat4",), _CIFAR),
)
