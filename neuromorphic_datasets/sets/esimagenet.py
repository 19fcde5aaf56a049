"""ES-ImageNet; the layout and the order of the coordinates are those of SpikingJelly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .._dataset import EventDataset
from .._download import RemoteFile
from .._events import Events, Recording, RecordingError
from .._files import FileDataset
from ._info import Info

_CLOUD = "https://cloud.tsinghua.edu.cn/d/94873ab4ec2a4eb497b3/"
_MD5 = (
    "900bdd57b5641f7d81cd4620283fef76", "5982532009e863a8f4e18e793314c54b", "8f408c1f5a1d4604e48d0d062a8289a0",
    "5c5b5cf0a55954eb639964e3da510097", "51feb661b4c9fa87860b63e76b914673", "fcd007a2b17b7c13f338734c53f6db31",
    "d3e74b96d9c5df15714bbc3abcd329fc", "65b9cf7fa63e18d2e7d92ff45a42a5e5", "241c9a37a83ff9efd305fe46d012211e",
    "ceee96971008e30d0cdc34086c49fd75", "4fbfefbe6e48758fbb72427c81f119cf", "c8cc163be4e5f6451201dccbded4ec24",
    "08c9dff32f6b42c49ef7cd78e37c728e", "43aa157dc5bd5fcea81315a46e0322cf", "480a69b050f465ef01efcc44ae29f7df",
    "11abd24d92b93e7f85acd63abd4a18ab", "3891486a6862c63a325c5f16cd01fdd1", "cf8bb0525b514f411bca9d7c2d681f7c",
    "3766bc35572ccacc03f0f293c571d0ae", "bf73a5e338644122220e41da7b5630e6", "564de4a2609cbb0bb67ffa1bc51f2487",
    "60a9e52db1acadfccc9a9809073f0b04", "373b5484826d40d7ec35f0e1605cb6ea", "a50612e889b20f99cc7b2725dfd72e9e",
    "0802ccdeb0cff29237faf55164524101",
)  # fmt: skip
_CLASSES = tuple(f"class{number}" for number in range(1000))


def _read(path: Path) -> Recording:
    """Read rows of (row, column, time step) of ON events under "pos", of OFF events under "neg"."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            tables = [archive["neg"], archive["pos"]]
    except Exception as error:  # NumPy and zipfile have many
        raise RecordingError(f"{path}: expected arrays pos and neg, got {error}") from error
    if any(table.ndim != 2 or table.shape[1] != 3 for table in tables):
        raise RecordingError(f"{path}: expected pos and neg of shape (n, 3), got {[table.shape for table in tables]}")
    y, x, t = np.concatenate(tables).T
    order = np.argsort(t, kind="stable")
    p = np.repeat([0, 1], [len(table) for table in tables])
    try:
        return Recording(Events.compact(x[order], y[order], t[order], p[order]))
    except ValueError as error:
        raise RecordingError(f"{path}: {error}") from None


def _open(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    root = folder / "ES-imagenet-0.18"
    if split == "train":
        files = sorted(root.glob("train/*/*.npz"))
        names = [file.parent.name for file in files]
    else:
        lines = [line.split() for line in (root / "vallabel.txt").read_text().splitlines() if line.strip()]
        files = [root / "val" / Path(line[0]).with_suffix(".npz") for line in lines]
        names = [f"class{line[1]}" for line in lines]
    odd = [name for name in names if name not in _CLASSES]
    if odd:
        raise RecordingError(f"{root}: expected classes class0 to class999, got {odd[0]!r}")
    labels = [int(name.removeprefix("class")) for name in names]
    return FileDataset(info.name, split, info.sensor_size, list(_CLASSES), files, labels, _read, transform)


INFO = Info(
    name="esimagenet",
    title="ES-ImageNet",
    sensor_size=(256, 256, 2),
    n_classes=1000,
    splits=("train", "test"),
    licence="see its homepage",
    citation="Lin et al. 2021, ES-ImageNet: A Million Event-Stream Classification Dataset for Spiking Neural Networks",
    homepage="https://www.frontiersin.org/articles/10.3389/fnins.2021.726582/full",
    files=tuple(
        RemoteFile(f"ES-imagenet-0.18.part{number:02}.rar", (_CLOUD,), md5=md5, by_hand=True)
        for number, md5 in enumerate(_MD5, 1)
    ),
    folder="ESImageNet",
    patterns={"train": "ES-imagenet-0.18/train/*/*.npz", "test": "ES-imagenet-0.18/vallabel.txt"},
    note="25 RAR archives: unpack them with unrar. The published validation part is the test part. Times are the eight "
    "steps of the simulation, not µs.",
    class_names=_CLASSES,
    open=_open,
)
