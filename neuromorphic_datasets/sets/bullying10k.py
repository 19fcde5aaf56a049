"""Bullying10K; the layout is that of SpikingJelly."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from .._download import RemoteFile
from .._events import Events, Recording, RecordingError
from ._info import Info, class_folders, figshare

_ARCHIVES = {
    "handshake": (41268834, "681d70f499e736a1e805305284ddc425"),
    "slapping": (41247021, "84b41d6805958f9f62f425223916ffc2"),
    "punching": (41263314, "40954f480ab210099d448b7b88fc4719"),
    "walking": (41247024, "56e4cac9c0814ce701c3b2292c15b6a9"),
    "fingerguess": (41253057, "f83114e5b4f0ea57cac86fb080c7e4d7"),
    "strangling": (41261904, "8185ecd6f3147e9b609d22f06270aa86"),
    "greeting": (41268792, "4a763fad728b04c8356db8544f1121fe"),
    "pushing": (41268951, "7986c74ade7149a98672120a89b13ba8"),
    "hairgrabs": (41277855, "a9cf690ed0a3305da4a4b8e110f64db1"),
    "kicking": (41278008, "6c3218f977de4ac29c84a10b17779c33"),
}
_NUMPY = ("_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer")


class _OnlyNumbers(pickle.Unpickler):
    """A reader of pickles of lists and NumPy's numbers, which runs no other code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in _NUMPY:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"expected lists of numbers, got {module}.{name}")


def _read(path: Path) -> Recording:
    """Read an array of objects: lists of events (t, x, y, p, ...), one after the other."""
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            _, _, dtype = header(file)
            if dtype != np.dtype(object):
                raise ValueError(f"expected an array of objects, got {dtype}")
            lists = _OnlyNumbers(io.BytesIO(file.read())).load()
        rows = [event[:4] for events in lists for event in events]
        t, x, y, p = np.array(rows).reshape(-1, 4).T
        return Recording(Events.compact(x, y, t, p))
    except Exception as error:  # pickle raises almost anything over a damaged file
        raise RecordingError(f"{path}: {type(error).__name__}: {error}") from error


INFO = Info(
    name="bullying10k",
    title="Bullying10K",
    sensor_size=(346, 260, 2),
    n_classes=10,
    splits=("all",),
    licence="see its homepage",
    citation="Dong et al. 2023, Bullying10K: A Large-Scale Neuromorphic Dataset towards Privacy-Preserving Bullying "
    "Recognition",
    homepage="https://figshare.com/articles/dataset/Bullying10k/19160663",
    files=tuple(
        RemoteFile(f"{name}.zip", figshare(number), md5=md5, pattern=f"{name}/**/*.npy")
        for name, (number, md5) in _ARCHIVES.items()
    ),
    folder="Bullying10k",
    patterns={"all": "handshake/**/*.npy"},
    note="The publisher's division depends on the order of a file system, so this package divides it.",
    free=True,
    class_names=tuple(_ARCHIVES),
    open=class_folders({"all": ""}, (".npy",), tuple(_ARCHIVES), _read),
)
