"""N-Caltech101."""

from pathlib import Path

from .._download import RemoteFile
from .._events import Events, Recording
from ..readers import read_recording
from ._info import Info, class_folders


def _read_ncaltech(path: Path) -> Recording:
    events = read_recording(path).events
    x, y = events.x, events.rows()
    # As in Tonic: each recording starts at its own leftmost and topmost event.
    return Recording(Events(x - x.min(), y - y.min(), events.t, events.p))


_MENDELEY = "https://data.mendeley.com/public-files/datasets/"
INFO = Info(
    name="ncaltech101",
    title="N-Caltech101",
    sensor_size=(240, 180, 2),
    n_classes=101,
    splits=("all",),
    licence="see its homepage",
    citation="Orchard et al. 2015, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades",
    homepage="https://www.garrickorchard.com/datasets/n-caltech101",
    files=(
        RemoteFile(
            "N-Caltech101-archive.zip",
            (f"{_MENDELEY}cy6cvx3ryv/files/36b5c52a-b49d-4853-addb-a836a8883e49/file_downloaded",),
            md5="66201824eabb0239c7ab992480b50ba3",
        ),
    ),
    folder="NCALTECH101",
    patterns={"all": "**/Caltech101/*/*.bin"},
    note="Recordings differ in size; none is larger than the sensor.",
    free=True,
    open=class_folders({"all": "Caltech101"}, (".bin",), read=_read_ncaltech),
)
