"""Static images for binary, Heaviside and concept bottleneck networks.

``digits`` comes with scikit-learn and needs no download; ``mnist``, ``fashion-mnist`` and ``cifar10`` are those of
torchvision, or a local copy: a folder of idx files (as published, or .gz), an .npz with x_train, y_train, x_test and
y_test, or a folder with train/ and test/, each of class folders of images. Images of your own lie in class folders.

Example:
    >>> train, test = load("digits")
    >>> image, label = train[0]
    >>> image.shape, image.dtype, float(image.max()) <= 1, train.classes[label] == str(label)
    (torch.Size([1, 8, 8]), torch.float32, True, True)
"""

import gzip
import struct
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from . import _checks
from ._cache import user_folder
from ._loaders import Samples, loader
from ._splits import divided

__all__ = ["Images", "load", "loaders", "names"]

_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_DIGITS = [str(digit) for digit in range(10)]
# Name: torchvision's class, and the names of the labels.
_PUBLISHED = {
    "mnist": ("MNIST", _DIGITS),
    "fashion-mnist": ("FashionMNIST", _FASHION),
    "cifar10": ("CIFAR10", _CIFAR),
}
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def names() -> list[str]:
    """Return the names that `load` accepts, sorted.

    Example:
        >>> names()
        ['cifar10', 'digits', 'fashion-mnist', 'mnist']
    """
    return sorted([*_PUBLISHED, "digits"])


class Images(TensorDataset):
    """Images and labels in memory; indexing gives (image, label), float32 (C, H, W) within [0, 1] and int.

    Attributes:
        images: uint8 tensor of shape (n, C, H, W).
        targets: the labels, int64 tensor of shape (n,).
        classes: the name of each label.

    Example:
        >>> white = np.full((2, 1, 4, 4), 255, np.uint8)
        >>> image, label = Images(white, [1, 0], ["cat", "dog"])[0]
        >>> image.shape, image.dtype, image.max(), label
        (torch.Size([1, 4, 4]), torch.float32, tensor(1.), 1)
    """

    def __init__(self, images: np.ndarray, targets: np.ndarray, classes: list[str]):
        # A copy: torch warns of arrays that cannot be written, as those over a file's bytes.
        self.images = torch.from_numpy(np.array(images, order="C"))
        self.targets = torch.from_numpy(np.array(targets, np.int64))
        self.classes = classes
        super().__init__(self.images, self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].to(torch.float32) / 255, int(self.targets[index])


class _Batches(Images):
    """Images that are fetched as whole batches, which is some ten times as fast as collating them."""

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> Samples:
        """Return samples, by indices or (epoch, index) pairs; this is what torch's loader calls."""
        numbers = torch.tensor([i[1] if isinstance(i, tuple) else int(i) for i in indices], dtype=torch.int64)
        images, targets = self.images[numbers].to(torch.float32) / 255, self.targets[numbers]
        return Samples((images, targets), lambda: zip(images, targets.tolist(), strict=True))

    @classmethod
    def some(cls, images: Images, chosen: np.ndarray) -> "_Batches":
        return cls(images.images.numpy()[chosen], images.targets.numpy()[chosen], images.classes)


def _collated(samples: Sequence) -> Sequence[torch.Tensor]:
    return samples.batch if isinstance(samples, Samples) else default_collate(samples)


def load(name: str, *, root: str | PathLike | None = None, download: bool = False) -> tuple[Images, Images]:
    """Open a set of images.

    Args:
        name: one of `names`, or the path of a folder of class folders of images, all of one size, whose test part is a
            stratified fifth, always the same; or of such folders train/ and test/.
        root: the local copy, see above, or where torchvision keeps its own; None is this package's folder in
            the user's cache.
        download: whether torchvision may fetch what is missing.

    Returns:
        (train, test), each an `Images`. The test part of digits is a stratified fifth, always the same.

    Raises:
        ValueError: the name is unknown, a file is damaged or of another shape, or a root is given for digits or a
            folder.
        FileNotFoundError: the images are not there and `download` is False.

    Example:
        >>> train, test = load("digits")
        >>> len(train), len(test), train.images.shape, train.classes[-1]
        (1437, 360, torch.Size([1437, 1, 8, 8]), '9')
    """
    own = name not in names() and Path(name).is_dir()
    if root is not None and (own or name == "digits"):
        raise ValueError(f"root: expected None, as {name} is {'a folder itself' if own else 'no file'}, came {root}")
    if own:
        return _own(Path(name))
    if name not in names():
        raise ValueError(f"name: expected one of {names()} or a folder of images, came {name!r}")
    if name == "digits":
        return _digits()
    folder = _checks.folder("root", root) or user_folder()
    arrays = _local(folder)
    if arrays is None:
        arrays = _torchvision(name, folder, download)
    train_images, train_labels, test_images, test_labels = arrays
    classes = _PUBLISHED[name][1]
    return (
        Images(*_checked(folder, train_images, train_labels, len(classes)), classes),
        Images(*_checked(folder, test_images, test_labels, len(classes)), classes),
    )


def loaders(
    name: str,
    *,
    batch_size: int = 32,
    root: str | PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.1,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader | None, DataLoader]:
    """Make the loaders of a set of images.

    Each gives batches ``(images, labels)``, float32 of shape (B, C, H, W) within [0, 1] and int64 of shape (B,). The
    training order is a function of `seed` and epoch alone: call ``train.sampler.set_epoch(epoch)`` before each epoch.

    Args:
        name, root, download: as in `load`.
        batch_size: >= 1; the last batch may have fewer.
        val_fraction: the stratified share of the training images that validation takes, within [0, 1).
        seed: of the training order and the choice of the validation images, in [0, 2**32 - 1].

    Returns:
        (train, val, test); val is None when val_fraction is 0.

    Raises:
        ValueError, FileNotFoundError: as `load`, or an argument is out of range.

    Example:
        >>> train, val, test = loaders("digits", batch_size=50)
        >>> images, labels = next(iter(test))
        >>> images.shape, len(train.dataset), len(val.dataset)
        (torch.Size([50, 1, 8, 8]), 1293, 144)
    """
    options = {
        "batch_size": _checks.integer("batch_size", batch_size, 1),
        "seed": _checks.integer("seed", seed, 0, 2**32 - 1),
        "num_workers": 0,
        "collate": _collated,
    }
    fraction = _checks.fraction("val_fraction", val_fraction)
    train, test = load(name, root=root, download=download)
    kept, rest = divided("val_fraction", train.targets.numpy(), np.arange(len(train)), fraction, seed)
    return (
        loader(_Batches.some(train, kept), **options, shuffled=True),
        loader(_Batches.some(train, rest), **options) if len(rest) else None,
        loader(_Batches.some(test, np.arange(len(test))), **options),
    )


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)[:, None]
    return _with_test_part(images, scans.target, _DIGITS)


def _with_test_part(images: np.ndarray, labels: np.ndarray, classes: list[str]) -> tuple[Images, Images]:
    from sklearn.model_selection import train_test_split

    parts = train_test_split(np.arange(len(images)), test_size=0.2, stratify=labels, random_state=0)
    return tuple(Images(images[part], labels[part], classes) for part in map(np.sort, parts))


def _own(folder: Path) -> tuple[Images, Images]:
    divided_already = (folder / "train").is_dir() and (folder / "test").is_dir()
    first = folder / "train" if divided_already else folder
    classes = _class_names(first)
    if len(classes) < 2:
        raise ValueError(f"{first}: expected class folders, two or more, came {classes}")
    found = [_class_folders(part, classes) for part in ((first, folder / "test") if divided_already else (first,))]
    parts = [_checked(folder, images, labels, len(classes)) for images, labels in found]
    if divided_already:
        return tuple(Images(images, labels, classes) for images, labels in parts)
    images, labels = parts[0]
    counts = np.bincount(labels, minlength=len(classes))
    fewest = counts.min()
    if fewest < 2 or len(labels) // 5 < len(classes):
        least = folder / classes[counts.argmin()]
        raise ValueError(f"{least}: expected five images a class or more, to keep a fifth for the test, came {fewest}")
    return _with_test_part(images, labels, classes)


def _local(folder: Path) -> tuple[np.ndarray, ...] | None:
    """Return the four arrays of a local copy, or None if there is none."""
    archives = [folder] if folder.suffix == ".npz" else sorted(folder.glob("*.npz"))
    if archives:
        return _npz(archives[0])
    if list(folder.glob("train-images*ubyte*")):
        return tuple(
            _idx(folder, f"{part}-{kind}") for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
        )
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes = _class_names(folder / "train")
        return (*_class_folders(folder / "train", classes), *_class_folders(folder / "test", classes))
    return None


def _npz(path: Path) -> tuple[np.ndarray, ...]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return tuple(archive[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    except Exception as error:  # NumPy and zipfile have many
        raise ValueError(f"{path}: expected x_train, y_train, x_test and y_test, came {error}") from error


def _idx(folder: Path, name: str) -> np.ndarray:
    """Read an idx file (LeCun): two zero bytes, the type 8 (uint8), the number of dimensions, their sizes, the data."""
    found = [path for path in (folder / f"{name}-ubyte", folder / f"{name}-ubyte.gz") if path.is_file()]
    if not found:
        raise FileNotFoundError(f"{folder}: expected {name}-ubyte or {name}-ubyte.gz, came none")
    path = found[0]
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: damaged: {error}") from None
    dimensions = content[3] if len(content) > 3 else 0
    head = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < head:
        raise ValueError(f"{path}: byte 0: expected an idx file of uint8, came {content[:4]!r}")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != np.prod(shape):
        raise ValueError(
            f"{path}: byte {head}: expected {np.prod(shape)} values of shape {shape}, came {len(content) - head}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _class_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(folder: Path, classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    images, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _ENDINGS):
            try:
                with Image.open(path) as image:
                    pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
            except OSError as error:
                raise ValueError(f"{path}: no image: {error}") from None
            if images and pixels.shape != images[0].shape:
                raise ValueError(f"{path}: expected shape {images[0].shape} as of the others, came {pixels.shape}")
            images.append(pixels)
            labels.append(label)
    if not images:
        raise FileNotFoundError(f"{folder}: expected images ({' '.join(_ENDINGS)}) in class folders, came none")
    return np.stack(images), np.array(labels)


def _torchvision(name: str, folder: Path, download: bool) -> tuple[np.ndarray, ...]:
    import torchvision.datasets

    published = getattr(torchvision.datasets, _PUBLISHED[name][0])
    try:
        parts = [published(folder, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"root: expected {name} in {folder}, came none; pass download=True (in a command --download) to fetch it, "
            "or a local copy: "
            f"idx files, an .npz, or train/ and test/ with class folders ({error})"
        ) from None
    return tuple(np.asarray(array) for part in parts for array in (part.data, part.targets))


def _checked(where: Path, images: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (n, C, H, W) and labels (n,) of arrays that fit each other."""
    images, labels = np.asarray(images), np.asarray(labels).reshape(-1)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels):
        raise ValueError(
            f"{where}: expected uint8 images (n, height, width[, channels]) and n labels, came {images.dtype} "
            f"{images.shape} and {len(labels)}"
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"{where}: expected labels in [0, {classes - 1}], came [{labels.min()}, {labels.max()}]")
    return (images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)), labels
