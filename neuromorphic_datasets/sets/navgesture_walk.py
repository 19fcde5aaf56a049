"""NavGesture, walking; the layout is that of SpikingJelly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._dataset import EventDataset
from .._download import RemoteFile
from .._events import Events, Recording, RecordingError
from .._files import FileDataset
from ..readers._recording import body
from ._info import Info

_GESTURES = {"le": "left", "ri": "right", "up": "up", "do": "down", "ho": "home", "se": "select"}
_HEIGHT = 240


def _read(path: Path) -> Recording:
    """Read the words of a DAT file of version 1, with a header or without; rows count from the bottom.

    The cameras' clocks step back at times; as in the publisher's reader, the events that do not ascend are left out.
    """
    from .._kernels import longest_ascent

    lines, offset, data = body(path, b"%")
    data = data[2:] if lines else data
    if len(data) % 8 or not len(data):
        raise RecordingError(f"{path}: byte {offset}: expected 8 bytes per event, got {len(data)}")
    t, address = data.view("<u4").reshape(-1, 2).T.astype(np.int64)
    x, y, p = address & 0x1FF, address >> 9 & 0xFF, address >> 17 & 1
    kept = longest_ascent(t)
    left_out = int((~kept).sum())
    reason = f"event {int((~kept).argmax())}: the time goes back" if left_out else ""
    return Recording(Events.compact(x, _HEIGHT - 1 - y, t, p)[kept], None, left_out, reason)


def _open(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    """Open recordings such as ``user01/user01_le_01.dat``, whose name has the gesture."""
    files = sorted(folder.glob(info.patterns[split]))
    short = [file.stem.split("_")[1] if "_" in file.stem else file.stem for file in files]
    for file, name in zip(files, short, strict=True):
        if name not in _GESTURES:
            raise RecordingError(
                f"{file}: expected one of {list(_GESTURES)} after the first _ of the name, got {name!r}"
            )
    labels = [list(_GESTURES).index(name) for name in short]
    return FileDataset(info.name, split, info.sensor_size, list(_GESTURES.values()), files, labels, _read, transform)


def info_of(kind: str, title: str, md5: str) -> Info:
    """Return the description of one of the two NavGesture sets."""
    url = f"https://www.neuromorphic-vision.com/public/downloads/navgesture/navgesture-{kind}.zip"
    return Info(
        name=f"navgesture-{kind}",
        title=title,
        sensor_size=(304, _HEIGHT, 2),
        n_classes=6,
        splits=("all",),
        licence="see its homepage",
        citation="Maro et al. 2020, Event-Based Gesture Recognition With Dynamic Background Suppression Using "
        "Smartphone Computational Capabilities",
        homepage="https://www.frontiersin.org/articles/10.3389/fnins.2020.00275/full",
        files=(RemoteFile(f"navgesture-{kind}.zip", (url,), md5=md5, by_hand=True),),
        folder=f"NavGesture-{kind}",
        patterns={"all": "**/*_*.dat"},
        note="The host has not delivered the file since 2023.",
        free=True,
        class_names=tuple(_GESTURES.values()),
        open=_open,
    )


INFO = info_of("walk", "NavGesture, walking", "5d305266f13005401959e819abe206f0")
