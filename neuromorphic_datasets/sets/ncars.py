"""N-CARS."""

from collections.abc import Callable
from pathlib import Path

from .._class_folders import by_class
from .._dataset import EventDataset
from .._download import RemoteFile
from .._files import FileDataset
from ._info import Info

_CLASSES = ("background", "cars")


def _open(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    parent = next(iter(sorted(folder.rglob(f"n-cars_{split}/**/cars")))).parent
    files, labels, _ = by_class(parent, _CLASSES, (".dat",))
    return FileDataset(info.name, split, info.sensor_size, list(_CLASSES), files, labels, transform=transform)


INFO = Info(
    name="ncars",
    title="N-CARS",
    sensor_size=(120, 100, 2),
    n_classes=2,
    splits=("train", "test"),
    licence="see its homepage",
    citation="Sironi et al. 2018, HATS: Histograms of Averaged Time Surfaces for Robust Event-Based Object "
    "Classification",
    homepage="https://www.prophesee.ai/2018/03/13/dataset-n-cars/",
    files=(
        RemoteFile(
            "Prophesee_Dataset_n_cars.zip",
            ("https://www.prophesee.ai/2018/03/13/dataset-n-cars/",),
            md5="553ce464d6e5e617b3c21ce27c19368e",
            by_hand=True,
        ),
    ),
    folder="NCARS",
    patterns={split: f"**/n-cars_{split}/**/cars/*.dat" for split in ("train", "test")},
    note="The host requires a form: fetch the file with a browser.",
    free=True,
    class_names=_CLASSES,
    open=_open,
)
