"""DVS128 Gesture as published: recordings of many gestures, cut here by their annotation."""

from collections.abc import Callable
from pathlib import Path

from .._cache import user_folder
from .._dataset import EventDataset
from .._download import RemoteFile
from .._files import FileDataset
from .._pieces import Pieces, by_label, read_intervals
from ._info import Info

_PAGE = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
_CLASSES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter clockwise",
    "left arm clockwise", "left arm counter clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip


def _open(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    listed = (folder / info.patterns[split]).read_text().split()
    files = [folder / "DvsGesture" / name for name in listed]
    intervals = [read_intervals(file.with_name(f"{file.stem}_labels.csv")) for file in files]
    whole = FileDataset(info.name, split, info.sensor_size, list(_CLASSES), files, [0] * len(files), None, transform)
    return Pieces(whole, by_label(intervals, [str(number) for number in range(1, 12)]), user_folder(), _CLASSES)


INFO = Info(
    name="dvsgesture-raw",
    title="DVS128 Gesture, uncut",
    sensor_size=(128, 128, 2),
    n_classes=11,
    splits=("train", "test"),
    licence="CC BY 4.0",
    citation="Amir et al. 2017, A Low Power, Fully Event-Based Gesture Recognition System",
    homepage="https://research.ibm.com/interactive/dvsgesture/",
    files=(RemoteFile("DvsGesture.tar.gz", (_PAGE,), md5="8a5c71fb11e24e5ca5b11866ca6c00a1", by_hand=True),),
    folder="DvsGesture",
    patterns={split: f"DvsGesture/trials_to_{split}.txt" for split in ("train", "test")},
    note="The host shows a page: fetch the file with a browser. Opened, its recordings are packed in the user's cache.",
    free=True,
    class_names=_CLASSES,
    open=_open,
)
