"""Static images for binary, Heaviside and concept bottleneck networks.

``digits`` comes with scikit-learn and needs no download; ``mnist``, ``fashion-mnist`` and ``cifar10`` come from
torchvision, or from a local copy: a folder of idx files (as published, or .gz), an .npz with x_train, y_train, x_test
and y_test, or a folder with train/ and test/, each with class folders of images, named after the classes or their
numbers. Your own images go into class folders. All have eight bits per channel; others are refused, not converted.

Example:
    >>> train, test = load("digits")
    >>> image, label = train[0]
    >>> image.shape, image.dtype, float(image.max()) <= 1, train.classes[label] == str(label)
    (torch.Size([1, 8, 8]), torch.float32, True, True)
"""

import functools
import gzip
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader, Dataset, default_collate

from . import _checks
from ._cache import user_folder
from ._class_folders import all_by_class, loose_files, names_of, refuse_parts, warn_of
from ._loaders import Samples, loader
from ._splits import divided, fixed_test_part

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
_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif",
)  # fmt: skip
_MOST_CHANNELS = 4
_GREY = ("1", "L", "LA")  # as Pillow names them


def names() -> list[str]:
    """Return the names that `load` accepts, sorted.

    Example:
        >>> names()
        ['cifar10', 'digits', 'fashion-mnist', 'mnist']
    """
    return sorted([*_PUBLISHED, "digits"])


class Images(Dataset):
    """Images and labels in memory; indexing gives (image, label), float32 (C, H, W) within [0, 1] and int.

    Args:
        images: uint8 array of shape (n, C, H, W) with 1 to 4 channels.
        targets: n labels, whole numbers in [0, len(classes) - 1].
        classes: the name of each label.

    Raises:
        ValueError: an array has another shape or dtype, or a label is not a class.
        TypeError: classes is not a sequence of strings.

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

    def __init__(self, images: np.ndarray, targets: ArrayLike, classes: list[str]):
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or not 1 <= images.shape[1] <= _MOST_CHANNELS:
            raise ValueError(
                f"images: expected uint8 of shape (n, channels, height, width) with 1 to {_MOST_CHANNELS} channels, "
                f"got {images.dtype} of shape {images.shape}"
            )
        if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
            raise TypeError(f"classes: expected a list of strings, got {classes!r}")
        # A copy: torch warns of read-only arrays, such as those backed by a file's bytes.
        self.images = torch.from_numpy(np.array(images, order="C"))
        self.targets = torch.from_numpy(_labels("targets", targets, len(images), len(classes)))
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].to(torch.float32) / 255, int(self.targets[index])


class _Batches(Images):
    """Images fetched as whole batches, which is about ten times as fast as collating them."""

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> Samples:
        """Return samples, by indices or (epoch, index) pairs; torch's loader calls this."""
        numbers = torch.tensor([i[1] if isinstance(i, tuple) else int(i) for i in indices], dtype=torch.int64)
        images, targets = self.images[numbers].to(torch.float32) / 255, self.targets[numbers]
        return Samples((images, targets), lambda: zip(images, targets.tolist(), strict=True))

    @classmethod
    def of(cls, images: Images, chosen: np.ndarray) -> "_Batches":
        return cls(images.images.numpy()[chosen], images.targets.numpy()[chosen], images.classes)


def _collated(samples: Sequence) -> Sequence[torch.Tensor]:
    return samples.batch if isinstance(samples, Samples) else default_collate(list(samples))


def load(name: str, *, root: str | PathLike | None = None, download: bool = False) -> tuple[Images, Images]:
    """Open a set of images.

    Args:
        name: one of `names`, or the path of a folder of class folders of images, all of one size, whose test part is a
            stratified fifth, always the same; or of a folder with train/ and test/, each with the same class folders,
            and no other folder. Hidden files are left out; a warning counts other files that are not read.
        root: the local copy, see above, or torchvision's folder; None is this package's folder in the user's cache.
        download: whether torchvision may fetch missing files.

    Returns:
        (train, test), each an `Images`. The test part of digits is a stratified fifth, always the same.

    Raises:
        TypeError: the name is neither a string nor a path.
        ValueError: the name is unknown, a file is damaged, differs in shape, or has more than eight bits per channel,
            transparent pixels or more than one frame, a label is not a class, a class is only in the test part, the
            folders are not class folders, there is more than one local copy, or root or download is given for digits
            or a folder.
        FileNotFoundError: the images are missing and `download` is False, or a class has none.

    Example:
        >>> train, test = load("digits")
        >>> len(train), len(test), train.images.shape, train.classes[-1]
        (1437, 360, torch.Size([1437, 1, 8, 8]), '9')
    """
    if not isinstance(name, str | PathLike):
        raise TypeError(f"name: expected one of {names()} or a folder of images, got {name!r}")
    own = name not in names() and Path(name).is_dir()
    if root is not None and (own or name == "digits"):
        raise ValueError(f"root: expected None, as {name} is {'a folder itself' if own else 'no file'}, got {root}")
    if download and (own or name == "digits"):
        raise ValueError(f"download: expected False, as {name} needs no download, got {download!r}")
    if own:
        return _own(Path(name))
    if name not in names():
        raise ValueError(f"name: expected one of {names()} or a folder of images, got {name!r}")
    if name == "digits":
        return _digits()
    folder = _checks.folder("root", root) or user_folder()
    classes = _PUBLISHED[name][1]
    return _pair(_local(folder, classes) or _torchvision(name, folder, download), classes)


def loaders(
    name: str,
    *,
    batch_size: int = 32,
    root: str | PathLike | None = None,
    download: bool = False,
    val_fraction: float = 0.1,
    train_fraction: float = 1.0,
    seed: int = 0,
) -> tuple[DataLoader, DataLoader | None, DataLoader]:
    """Make the loaders of a set of images.

    Each gives batches ``(images, labels)``, float32 of shape (B, C, H, W) within [0, 1] and int64 of shape (B,). The
    training order depends on `seed` and epoch alone: call ``train.sampler.set_epoch(epoch)`` before each epoch.

    Args:
        name: as in `load`.
        batch_size: images per batch, >= 1; the last batch may have fewer.
        root: as in `load`.
        download: as in `load`.
        val_fraction: the stratified fraction of the training images used for validation, within [0, 1).
        train_fraction: the stratified fraction of the other training images that is trained on, within (0, 1].
        seed: seed of the training order and the choice of the validation images, in [0, 2**32 - 1].

    Returns:
        (train, val, test); val is None when val_fraction is 0.

    Raises:
        ValueError, FileNotFoundError: as in `load`, or an argument is out of range.

    Example:
        >>> train, val, test = loaders("digits", batch_size=50)
        >>> images, labels = next(iter(test))
        >>> images.shape, len(train.dataset), len(val.dataset)
        (torch.Size([50, 1, 8, 8]), 1293, 144)
    """
    make_loader = functools.partial(
        loader,
        batch_size=_checks.integer("batch_size", batch_size, 1),
        seed=_checks.integer("seed", seed, 0, 2**32 - 1),
        num_workers=0,
        collate=_collated,
    )
    fraction = _checks.fraction("val_fraction", val_fraction)
    kept = _checks.positive_fraction("train_fraction", train_fraction)
    train, test = load(name, root=root, download=download)
    train_part, val_part = divided("val_fraction", train.targets.numpy(), np.arange(len(train)), fraction, seed)
    train_part, _ = divided("train_fraction", train.targets.numpy(), train_part, 1 - kept, seed, kept)
    return (
        make_loader(_Batches.of(train, train_part), shuffled=True),
        make_loader(_Batches.of(train, val_part)) if len(val_part) else None,
        make_loader(_Batches.of(test, np.arange(len(test)))),
    )


def _digits() -> tuple[Images, Images]:
    from sklearn.datasets import load_digits

    scans = load_digits()
    images = np.rint(scans.images * (255 / 16)).astype(np.uint8)[:, None]
    return _with_test_part(images, scans.target, _DIGITS)


def _with_test_part(images: np.ndarray, labels: np.ndarray, classes: list[str]) -> tuple[Images, Images]:
    train, test = (Images(images[part], labels[part], classes) for part in fixed_test_part(labels))
    return train, test


def _pair(parts: Sequence[tuple[Path, np.ndarray, np.ndarray]], classes: list[str]) -> tuple[Images, Images]:
    """Make the train and test parts from the path, the images (n, H, W[, C]) and the labels of each."""
    train, test = (Images(*_checked(where, images, labels, len(classes)), classes) for where, images, labels in parts)
    if train.images.shape[1:] != test.images.shape[1:]:
        shapes = [tuple(part.images.shape[1:]) for part in (train, test)]
        raise ValueError(f"{parts[1][0]}: expected images of shape {shapes[0]} as in training, got {shapes[1]}")
    untrained = [classes[label] for label in np.setdiff1d(test.targets, train.targets)]
    if untrained:
        raise ValueError(f"{parts[1][0]}: expected every class of the test part in training, got none of {untrained}")
    return train, test


def _own(folder: Path) -> tuple[Images, Images]:
    parts = _divided(folder)
    if parts is not None:
        train, test = map(names_of, parts)
        if train != test:
            only = {"train": sorted(set(train) - set(test)), "test": sorted(set(test) - set(train))}
            raise ValueError(
                f"{folder}: expected the same class folders in train and test, got some in only one of them: {only}"
            )
    first = parts[0] if parts else folder
    classes = names_of(first)
    if len(classes) < 2:
        raise ValueError(f"{first}: expected two or more class folders, got {classes}")
    if parts is not None:
        return _pair([_class_folders(part, classes) for part in parts], classes)
    images, labels = _checked(*_class_folders(folder, classes), len(classes))
    counts = np.bincount(labels, minlength=len(classes))
    fewest = counts.min()
    if fewest < 2 or len(labels) // 5 < len(classes):
        least = folder / classes[counts.argmin()]
        raise ValueError(f"{least}: expected at least five images per class, a fifth for the test, got {fewest}")
    return _with_test_part(images, labels, classes)


def _divided(folder: Path) -> tuple[Path, Path] | None:
    """Return the parts train/ and test/ of a folder, or None if it has class folders."""
    names = names_of(folder)
    if names != ["test", "train"]:
        refuse_parts(folder, names, "name them train and test, without other folders; validation is taken from train")
        return None
    warn_of(folder, loose_files(folder))
    return folder / "train", folder / "test"


def _local(folder: Path, classes: list[str]) -> list[tuple[Path, np.ndarray, np.ndarray]] | None:
    """Return the path, the images and the labels of train and test in a local copy, or None if there is none."""
    if folder.suffix == ".npz":
        return _npz(folder)
    archives, idx = sorted(folder.glob("*.npz")), list(folder.glob("train-images*ubyte*"))
    has_parts = (folder / "train").is_dir() and (folder / "test").is_dir()
    copies = [*archives, *idx[:1], *([folder / "train"] if has_parts else [])]
    if len(copies) > 1:
        raise ValueError(f"root: expected one local copy, got {[str(copy) for copy in copies]}")
    if archives:
        return _npz(archives[0])
    if idx:
        return [
            (
                folder / f"{part}-images-idx3-ubyte",
                _idx(folder, f"{part}-images-idx3"),
                _idx(folder, f"{part}-labels-idx1"),
            )
            for part in ("train", "t10k")
        ]
    parts = _divided(folder) if has_parts else None
    return [_published_folders(part, classes) for part in parts] if parts else None


def _published_folders(folder: Path, classes: list[str]) -> tuple[Path, np.ndarray, np.ndarray]:
    """Read class folders named after the classes or their numbers."""
    numbers = {name: label for label, name in enumerate(classes)}
    folders = names_of(folder)
    unknown = [name for name in folders if name not in numbers and not (name.isdecimal() and int(name) < len(classes))]
    if unknown:
        raise ValueError(f"{folder}: expected folders named as {classes} or 0 to {len(classes) - 1}, got {unknown}")
    labels = np.array([numbers[name] if name in numbers else int(name) for name in folders])
    where, images, positions = _class_folders(folder, folders)
    return where, images, labels[positions]


def _npz(path: Path) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    names = ("x_train", "y_train", "x_test", "y_test")
    if not path.is_file():
        raise FileNotFoundError(f"root: expected a file, got nothing at {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive[name] for name in names]
            others = sorted(set(archive.files) - set(names))
    except Exception as error:  # NumPy and zipfile have many
        raise ValueError(f"{path}: expected {', '.join(names)}, got {error}") from error
    if others:
        warnings.warn(f"{path}: arrays that are not read: {others}", stacklevel=4)
    return [(path, *arrays[:2]), (path, *arrays[2:])]


def _idx(folder: Path, name: str) -> np.ndarray:
    """Read an idx file (LeCun): two zero bytes, the type 8 (uint8), the number of dimensions, their sizes, the data."""
    paths = [path for path in (folder / f"{name}-ubyte", folder / f"{name}-ubyte.gz") if path.is_file()]
    if not paths:
        raise FileNotFoundError(f"{folder}: expected {name}-ubyte or {name}-ubyte.gz, got neither")
    path = paths[0]
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged: {error}") from None
    dimensions = content[3] if len(content) > 3 else 0
    head = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < head:
        raise ValueError(f"{path}: byte 0: expected an idx file of uint8, got {content[:4]!r}")
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != np.prod(shape):
        raise ValueError(
            f"{path}: byte {head}: expected {np.prod(shape)} values of shape {shape}, got {len(content) - head}"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _class_folders(folder: Path, classes: list[str]) -> tuple[Path, np.ndarray, np.ndarray]:
    files, labels = all_by_class(folder, classes, _ENDINGS, "images")
    images: list[np.ndarray] = []
    for path in files:
        pixels = _pixels(path)
        if images and pixels.shape != images[0].shape:
            raise ValueError(
                f"{path}: expected shape {images[0].shape} as in {files[0]} and the others, got {pixels.shape}"
            )
        images.append(pixels)
    return folder, np.stack(images), np.array(labels)


def _pixels(path: Path) -> np.ndarray:
    """Read an image of one frame as uint8, (H, W) if it is grey, else (H, W, 3), without changing any value."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            fault = _fault(image)
            if not fault:
                # A palette's opacities are dropped with a warning unless they are converted to a channel first.
                opaque = image.convert("RGBA") if image.has_transparency_data else image
                pixels = np.asarray(opaque.convert("L" if image.mode in _GREY else "RGB"))
    except Exception as error:  # Pillow raises almost anything over a damaged file
        raise ValueError(f"{path}: not an image: {error}") from error
    if fault:
        raise ValueError(f"{path}: {fault}")
    return pixels


def _fault(image: Any) -> str:
    """Return why eight bits of grey or of red, green and blue cannot hold an image, or an empty string."""
    # Pillow truncates deeper colours when it decodes them; its tiles show them before. BGR;16 has 16 bits per pixel.
    if any(re.search("(?<!BGR);(16|32)", str(tile)) or _ppm_depth(tile) > 255 for tile in image.tile):
        return f"expected eight bits per channel, got more, in Pillow's mode {image.mode}; scale it to eight bits first"
    if image.mode not in (*_GREY, "P", "PA", "RGB", "RGBA", "RGBX"):
        return f"expected a grey or RGB image of eight bits, got Pillow's mode {image.mode}; convert it first"
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # the other frames of MPO are previews
    if frames > 1:
        return f"expected one frame, got {frames}; save each as an image first"
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        return "expected no transparency, got transparent pixels; put the image on a background first"
    return ""


def _ppm_depth(tile: Any) -> int:
    """Return the largest value that a tile of a PPM file can have, or 0 for other formats."""
    return tile[3][1] if tile[0].startswith("ppm") and isinstance(tile[3], tuple) else 0


def _torchvision(name: str, folder: Path, download: bool) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    import torchvision.datasets

    published = getattr(torchvision.datasets, _PUBLISHED[name][0])
    try:
        parts = [published(folder, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"root: expected {name} in {folder}, got none; pass download=True (in a command --download) to fetch it, "
            f"or a local copy: idx files, an .npz, or train/ and test/ with class folders ({error})"
        ) from None
    return [(folder, np.asarray(part.data), np.asarray(part.targets)) for part in parts]


def _checked(where: Path, images: np.ndarray, labels: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (n, C, H, W) and labels (n,), checked against each other."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[3:] > (_MOST_CHANNELS,):
        raise ValueError(
            f"{where}: expected uint8 images (n, height, width[, channels]), 1 to {_MOST_CHANNELS} channels, "
            f"got {images.dtype} of shape {images.shape}"
        )
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return images, _labels(str(where), labels, len(images), n_classes)


def _labels(where: str, targets: ArrayLike, count: int, n_classes: int) -> np.ndarray:
    """Return labels as int64 (n,), checked to be numbers of classes."""
    labels = np.asarray(targets)
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected {count} labels, one per image, got {labels.dtype} of shape {labels.shape}")
    labels = labels.reshape(-1)
    wrong = ~((labels >= 0) & (labels < n_classes) & (labels == np.trunc(labels)))
    if wrong.any():
        image = int(wrong.argmax())
        raise ValueError(f"{where}: expected labels in [0, {n_classes - 1}], got {labels[image]} for image {image}")
    return labels.astype(np.int64)
