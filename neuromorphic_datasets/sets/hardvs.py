"""HARDVS, in its small form; the layout is that of SpikingJelly."""

from collections.abc import Callable
from pathlib import Path

from .._dataset import EventDataset
from .._download import RemoteFile
from .._events import RecordingError
from .._files import FileDataset
from ._info import Info

_PAGE = "https://github.com/Event-AHU/HARDVS"
_CLASSES = tuple(f"action_{number:03}" for number in range(1, 301))


def _open(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    """Open the recordings that a list names, "action_001/dvSave-2021_10_15_19_18_02 0 ..." in each line."""
    listed = folder / f"{split}_label.txt"
    below = {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.rglob("action_*/*.npz"))}
    files, labels = [], []
    for number, line in enumerate(listed.read_text().splitlines(), 1):
        if not line.strip():
            continue
        name = line.split()[0]
        if name not in below or name.split("/")[0] not in _CLASSES:
            raise RecordingError(f"{listed}: line {number}: expected a recording below {folder}, got {name}")
        files.append(below[name])
        labels.append(_CLASSES.index(name.split("/")[0]))
    return FileDataset(info.name, split, info.sensor_size, list(_CLASSES), files, labels, transform=transform)


INFO = Info(
    name="hardvs",
    title="HARDVS (small)",
    sensor_size=(346, 260, 2),
    n_classes=300,
    splits=("train", "val", "test"),
    licence="see its homepage",
    citation="Wang et al. 2024, HARDVS: Revisiting Human Activity Recognition with Dynamic Vision Sensors",
    homepage=_PAGE,
    files=tuple(
        RemoteFile(name, (_PAGE,), md5=md5, split=split, by_hand=True, pattern=pattern)
        for name, split, md5, pattern in (
            ("MINI_HARDVS_files.zip", "all", "9c4cc0d9ba043faa17f6f1a9e9aff982", "**/action_*/*.npz"),
            ("train_label.txt", "train", "0d642b6e6871034f151b2649a89d8d3c", ""),
            ("val_label.txt", "val", "cd2cebcba80e4552102bbacf2b5df812", ""),
            ("test_label.txt", "test", "5b664af5843f9b476a9c22626f7f5a59", ""),
        )
    ),
    folder="HARDVS",
    patterns={split: f"{split}_label.txt" for split in ("train", "val", "test")},
    note="The publisher links to clouds: fetch the files with a browser.",
    class_names=_CLASSES,
    open=_open,
)
