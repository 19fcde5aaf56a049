"""ST-MNIST."""

from pathlib import Path

import numpy as np

from .._download import RemoteFile
from .._events import Events, Recording, RecordingError
from ._info import DIGITS, Info, class_folders


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


INFO = Info(
    name="stmnist",
    title="ST-MNIST",
    sensor_size=(10, 10, 2),
    n_classes=10,
    splits=("all",),
    licence="see its homepage",
    citation="See et al. 2020, ST-MNIST: The Spiking Tactile MNIST Neuromorphic Dataset",
    homepage="https://scholarbank.nus.edu.sg/handle/10635/168106",
    files=(
        RemoteFile(
            "STMNIST dataset NUS Tee Research Group.zip",
            (
                "https://scholarbank.nus.edu.sg/bitstream/10635/168106/2/"
                "STMNIST%20dataset%20NUS%20Tee%20Research%20Group.zip",
            ),
            by_hand=True,
        ),
    ),
    folder="STMNIST",
    patterns={"all": "data_submission/[0-9]/*.mat"},
    note="The host requires a form: fetch the file with a browser.",
    free=True,
    class_names=DIGITS,
    open=class_folders({"all": "data_submission"}, (".mat",), DIGITS, _read_stmnist, skip="LUT"),
)
