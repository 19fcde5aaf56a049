"""Data sets with one file per recording, in a folder for each class."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ._dataset import StoredDataset, digest, fingerprint_of, is_ours
from ._events import Recording
from .readers import Options, read_recording, rechecked


class FileDataset(StoredDataset):
    """A data set of files; `load` and `EventFolder` make them.

    Attributes:
        files: the paths of the recordings, in order.
    """

    def __init__(
        self,
        name: str,
        split: str,
        sensor_size: tuple[int, int, int] | None,
        classes: list[str],
        files: Sequence[Path],
        targets: Sequence[int],
        read: Callable[[Path], Recording] | None = None,
        transform: Callable[[np.ndarray], Any] | None = None,
    ):
        super().__init__(name, split, sensor_size, classes, targets, transform)
        self.files, self._read = list(files), read

    @property
    def fingerprint(self) -> str:
        """Digits of the files' current state; empty if the user's own code, which may change, reads them."""
        if not is_ours(type(self)) or (self._read is not None and not is_ours(self._read)):
            return ""
        return digest([fingerprint_of(self.files), getattr(self._read, "__qualname__", None)])

    def __len__(self) -> int:
        if len(self.files) != len(self.targets):
            raise ValueError(f"targets: expected {len(self.files)}, one per file, got {len(self.targets)}")
        return len(self.files)

    def identity(self, position: int) -> str:
        return f"{self.classes[self.targets[position]]}/{self.files[position].name}"

    def where(self, position: int) -> str:
        return str(self.files[position])

    def read(self, position: int, lenient: bool = False) -> Recording:
        path = self.files[position]
        options = Options(self.sensor_size, lenient=lenient)
        return rechecked(path, self._read(path), options) if self._read else read_recording(path, options)
