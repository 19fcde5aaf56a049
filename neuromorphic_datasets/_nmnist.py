"""``nmnist``: N-MNIST (Orchard et al. 2015), read by Tonic from a full or a partial local copy."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import _cache
from ._dataset import EVENT_DTYPE, EventDataset

_FOLDERS = {"train": ("Train",), "test": ("Test",), "all": ("Train", "Test")}
_EVENT_BYTES = 5


class NMNIST(EventDataset):
    """The data set ``nmnist``; make it with ``neuromorphic_datasets.load("nmnist")``.

    Recordings are in the order of part (Train, Test), digit and file name.
    """

    def __init__(
        self,
        split: str,
        root: Path | None = None,
        download: bool = False,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        root = root or _cache.user_folder()
        self._files = [file for part in _FOLDERS[split] for file in _part(root, part, download)]
        targets = [int(file.parent.name) for file in self._files]
        super().__init__("nmnist", (34, 34, 2), [str(digit) for digit in range(10)], targets, transform)

    def events(self, position: int) -> np.ndarray:
        from tonic.io import read_mnist_file

        events = read_mnist_file(self._files[position], dtype=EVENT_DTYPE)
        width, height, _ = self.sensor_size
        outside = (events["x"] >= width) | (events["y"] >= height)
        if outside.any():
            x, y = events[outside][0][["x", "y"]]
            raise ValueError(
                f"{self._files[position]}: damaged; expected x < {width} and y < {height}, came x={x}, y={y}"
            )
        return events


def _part(root: Path, part: str, download: bool) -> list[Path]:
    """Return the recordings of "Train" or "Test", downloaded first if need be and `download` is set."""
    files = _find(root, part)
    if not files and download:
        _download(root, part)
        files = _find(root, part)
    if not files:
        raise FileNotFoundError(
            f"root: expected N-MNIST recordings {part}/<digit>/<id>.bin in {root} or in {root / 'NMNIST'}, "
            f"came {_described(root)}; pass download=True (htaf-snn train: --download) to fetch the data set (1.2 GB), "
            "or the folder of a copy"
        )
    for file in files:
        size = file.stat().st_size
        if size == 0 or size % _EVENT_BYTES:
            raise ValueError(
                f"{file}: damaged; expected a positive multiple of {_EVENT_BYTES} bytes, came {size} bytes"
            )
    return files


def _find(root: Path, part: str) -> list[Path]:
    """Return a part's recordings in the order of digit and file name, from the first of the two places."""
    for place in (root / part, root / "NMNIST" / part):
        files = [file for digit in range(10) for file in sorted((place / str(digit)).glob("*.bin"))]
        if files:
            return files
    return []


def _described(root: Path) -> str:
    """Say what is at `root` in place of recordings."""
    if not root.exists():
        return "a folder that does not exist"
    return "a folder without any" if root.is_dir() else "a file"


def _download(root: Path, part: str) -> None:
    """Let Tonic fetch, check and unpack a part into root/NMNIST, where it appears whole or not at all."""
    import tonic.datasets
    from filelock import FileLock

    if root.exists() and not root.is_dir():
        return
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / "NMNIST.lock"):
        if _find(root, part):
            return
        # Unpacking takes minutes; a copy cut short there would later pass for a partial one.
        with tempfile.TemporaryDirectory(dir=root, prefix="NMNIST-") as folder:
            tonic.datasets.NMNIST(folder, train=part == "Train")
            target = root / "NMNIST" / part
            target.parent.mkdir(exist_ok=True)
            os.replace(Path(folder, "NMNIST", part), target)
