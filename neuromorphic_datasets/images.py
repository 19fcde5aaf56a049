"""Static images for binary, Heaviside and concept bottleneck networks.

``digits`` comes with scikit-learn and needs no download; ``mnist``, ``fashion-mnist`` and ``cifar10`` come from
torchvision, or from a local copy: a folder of idx files (as published, or .gz), an .npz with x_train, y_train, x_test
and y_test, or a folder with train/ and test/, each with class folders of images, named after the classes or their
numbers. Your own images go into class folders. They are grey of 8 or 16 bits, or have eight bits per colour; others are
refused, not converted.

Example:
    >>> train, test = load("digits")
    >>> image, label = train[0]
    >>> image.shape, image.dtype, float(image.max()) <= 1, train.classes[label] == str(label)
    (torch.Size([1, 8, 8]), torch.float32, True, True)
"""

import functools
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.utils.data import DataLoader, Dataset, default_collate

from . import _checks
from ._batches import Samples, loader
from ._cache import user_folder
from ._events import described
from ._image_files import DTYPES, MOST_CHANNELS, Part, checked_labels, of_copy, of_folder, of_torchvision, pixels_of
from ._sources import of_code, unknown
from ._splits import divided, fixed_test_part

__all__ = ["Images", "load", "loaders", "names", "read"]

_FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
_CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_DIGITS = [str(digit) for digit in range(10)]
# Name: torchvision's class, and the names of the labels.
_PUBLISHED = {
    "mnist": ("MNIST", _DIGITS),
    "fashion-mnist": ("FashionMNIST", _FASHION),
    "cifar10": ("CIFAR10", _CIFAR),
}
Source = str | PathLike | Sequence["Images"]


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
        images: uint8 or uint16 array of shape (n, C, H, W) with 1 to 4 channels.
        targets: n labels, whole numbers in [0, len(classes) - 1].
        classes: the name of each label.

    Raises:
        ValueError: an array has another shape or dtype, or a label is not a class.
        TypeError: classes is not a sequence of strings.

    Attributes:
        images: tensor of shape (n, C, H, W), uint8, or int32 for 16 bits.
        white: the value that becomes 1, 255 or 65535.
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
        if images.dtype not in DTYPES or images.ndim != 4 or not 1 <= images.shape[1] <= MOST_CHANNELS:
            raise ValueError(
                f"images: expected uint8 or uint16 of shape (n, channels, height, width) with 1 to {MOST_CHANNELS} "
                f"channels, got {images.dtype} of shape {images.shape}"
            )
        if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
            raise TypeError(f"classes: expected a list of strings, got {classes!r}")
        if images.dtype == np.uint16 and images.size and images.max() < 256:
            raise ValueError(
                f"images: expected uint16 values up to 65535, got none above {images.max()}; are they uint8?"
            )
        self.white = int(np.iinfo(images.dtype).max)
        # A copy: torch warns of read-only arrays, such as those backed by a file's bytes. It cannot index uint16.
        own = np.array(images, np.uint8 if images.dtype == np.uint8 else np.int32, order="C")
        self.images = torch.from_numpy(own)
        self.targets = torch.from_numpy(checked_labels("targets", targets, len(images), len(classes)))
        self.classes = list(classes)

    @property
    def pixels(self) -> np.ndarray:
        """The images as they were given: uint8 or uint16 of shape (n, C, H, W)."""
        return self.images.numpy().astype(np.uint8 if self.white == 255 else np.uint16, copy=False)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index].to(torch.float32) / self.white, int(self.targets[index])


class _Batches(Images):
    """Images fetched as whole batches, which is about ten times as fast as collating them."""

    def __getitems__(self, indices: Sequence[int | tuple[int, int]]) -> Samples:
        """Return samples, by indices or (epoch, index) pairs; torch's loader calls this."""
        numbers = torch.tensor([i[1] if isinstance(i, tuple) else int(i) for i in indices], dtype=torch.int64)
        images, targets = self.images[numbers].to(torch.float32) / self.white, self.targets[numbers]
        return Samples((images, targets), lambda: zip(images, targets.tolist(), strict=True))

    @classmethod
    def of(cls, images: Images, chosen: np.ndarray) -> "_Batches":
        part = cls.__new__(cls)
        part.images, part.targets = images.images[chosen], images.targets[chosen]
        part.white, part.classes = images.white, images.classes
        return part


def _collated(samples: Sequence) -> Sequence[torch.Tensor]:
    return samples.batch if isinstance(samples, Samples) else default_collate(list(samples))


def read(path: str | PathLike, *, resize: int | tuple[int, int] | None = None) -> torch.Tensor:
    """Read one image as a data set reads its files.

    Args:
        path: an image file, grey of 8 or 16 bits or with eight bits per colour.
        resize: the side, or (height, width), that it is brought to; None leaves it as it is.

    Returns:
        float32 (C, H, W) within [0, 1], with one channel or three.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such image, or `resize` is out of range.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (6, 4), 255).save(f"{folder}/white.png")
        ...     image = read(f"{folder}/white.png", resize=8)
        >>> image.shape, image.max().item()
        (torch.Size([1, 8, 8]), 1.0)
    """
    if not Path(path).is_file():
        state = "a folder" if Path(path).is_dir() else "no file"
        raise FileNotFoundError(f"{path}: expected an image, got {state}")
    size = None if resize is None else _checks.sides("resize", resize)
    pixels = pixels_of(Path(path), size)
    channels = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return Images(np.ascontiguousarray(channels)[None], [0], ["any"])[0][0]


def load(
    name: Source,
    *,
    root: str | PathLike | None = None,
    download: bool = False,
    resize: int | tuple[int, int] | None = None,
) -> tuple[Images, Images]:
    """Open a set of images.

    Args:
        name: one of `names`; or the path of a folder of class folders of images, all of one size, whose test part is a
            stratified fifth, always the same; or of a folder with train/, test/ and perhaps val/, each with the same
            class folders, and no other folder; or (train, test) or (train, val, test) of `Images`; or ``FILE.py:NAME``
            or ``MODULE:NAME`` of any of these, or of a function that returns one. Hidden files are left out; a warning
            counts other files that are not read.
        root: the local copy, see above, or torchvision's folder; None is this package's folder in the user's cache.
        download: whether torchvision may fetch missing files.
        resize: (height, width), or the side of a square, that every image of files is brought to by Pillow's bilinear
            filter.

    Returns:
        (train, test), each an `Images`. The test part of digits is a stratified fifth, always the same.

    Raises:
        TypeError: the name is neither a string nor a path.
        ValueError: the name is unknown, a file is damaged, differs in shape, or has more than 16 bits of grey or eight
            of each colour, transparent pixels or more than one frame, a label is not a class, a class is not in the
            training part, the folders are not class folders, there is more than one local copy, or an argument has no
            effect.
        FileNotFoundError: the images are missing and `download` is False, or a class has none.

    Example:
        >>> train, test = load("digits")
        >>> len(train), len(test), train.images.shape, train.classes[-1]
        (1437, 360, torch.Size([1437, 1, 8, 8]), '9')
    """
    parts = _all_parts(name, root, download, resize)
    return parts["train"], parts["test"]


def _all_parts(
    name: Source, root: str | PathLike | None, download: bool, resize: int | tuple[int, int] | None
) -> dict[str, Images]:
    """Return the images of train, test and perhaps val."""
    size = None if resize is None else _checks.sides("resize", resize)
    if isinstance(name, str) and name in names():
        return _known(name, root, download, size)
    is_folder = isinstance(name, str | PathLike) and Path(name).expanduser().is_dir()
    if isinstance(name, str) and not is_folder and (found := of_code(name)) is not None:
        return _all_parts(found, root, download, resize)
    if isinstance(name, list | tuple) and all(isinstance(part, Images) for part in name):
        if resize is not None:
            raise ValueError(f"resize: expected None for images in memory, got {resize!r}")
        parts = _together(name)
    elif isinstance(name, str | PathLike) and is_folder:
        parts = _divided(*of_folder(Path(name).expanduser(), size))
    elif isinstance(name, str | PathLike):
        raise ValueError(f"name: {unknown(name, names(), 'images')}")
    else:
        raise TypeError(
            f"name: expected one of {names()}, a folder, or (train, test) or (train, val, test) of Images, got "
            f"{described(name)}"
        )
    if root is not None or download:
        raise ValueError(f"root and download: expected only with a name, got {root!r} and {download!r}")
    return parts


def parts(name: Source, **options: Any) -> dict[str, Images]:
    """Return the images of train, test and perhaps val; the arguments are those of `load`."""
    given = {"root": None, "download": False, "resize": None} | options
    return _all_parts(name, **given)


def _known(name: str, root: str | PathLike | None, download: bool, size: tuple[int, int] | None) -> dict[str, Images]:
    if name == "digits":
        for argument, value, none in (("root", root, None), ("download", download, False), ("resize", size, None)):
            if value is not none:
                raise ValueError(f"{argument}: expected {none}, as digits are generated, got {value!r}")
        return _divided({"all": _digits()}, _DIGITS)
    folder = _checks.folder("root", root) or user_folder()
    kind, classes = _PUBLISHED[name]
    parts = of_copy(folder, classes, size) or of_torchvision(name, kind, folder, download, len(classes), size)
    return _divided(parts, classes)


def loaders(
    name: Source,
    *,
    batch_size: int = 32,
    root: str | PathLike | None = None,
    download: bool = False,
    resize: int | tuple[int, int] | None = None,
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
        download, resize: as in `load`.
        val_fraction: the stratified fraction of the training images used for validation, within [0, 1). A set with a
            validation part uses that instead, and none with 0.
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
    parts = _all_parts(name, root, download, resize)
    train, targets = parts["train"], parts["train"].targets.numpy()
    train_part, val_part = np.arange(len(train)), np.arange(0)
    if "val" not in parts:
        train_part, val_part = divided("val_fraction", targets, train_part, fraction, seed, classes=train.classes)
    elif fraction:
        val_part = np.arange(len(parts["val"]))
    train_part, _ = divided("train_fraction", targets, train_part, 1 - kept, seed, kept, classes=train.classes)
    return (
        make_loader(_Batches.of(train, train_part), shuffled=True),
        make_loader(_Batches.of(parts.get("val", train), val_part)) if len(val_part) else None,
        make_loader(_Batches.of(parts["test"], np.arange(len(parts["test"])))),
    )


def _digits() -> Part:
    from sklearn.datasets import load_digits

    scans = load_digits()
    return Part(Path("digits"), np.rint(scans.images * (255 / 16)).astype(np.uint8)[:, None], scans.target)


def _divided(parts: dict[str, Part], classes: list[str]) -> dict[str, Images]:
    """Return the images of each part, divided into train and test if all are in one, and checked against each other."""
    if set(parts) == {"all"}:
        parts = _with_test_part(parts["all"], classes)
    first = parts["train"]
    for name, (where, images, labels) in parts.items():
        expected, got = ((kind.dtype, kind.shape[1:]) for kind in (first.images, images))
        if expected != got:
            raise ValueError(
                f"{where}: expected images of shape {expected[1]} and {expected[0]} as in training, got {got[1]} and "
                f"{got[0]}"
            )
        untrained = [classes[label] for label in np.setdiff1d(labels, first.labels)]
        if untrained:
            raise ValueError(f"{where}: expected every class of the {name} part in training, got none of {untrained}")
    try:
        return {name: Images(images, labels, classes) for name, (_, images, labels) in parts.items()}
    except ValueError as error:
        raise ValueError(f"{first.where}: {error}") from None


def _with_test_part(whole: Part, classes: list[str]) -> dict[str, Part]:
    counts = np.bincount(whole.labels, minlength=len(classes))
    if counts.min() < 2 or len(whole.labels) // 5 < len(classes):
        least = whole.where / classes[counts.argmin()]
        raise ValueError(f"{least}: expected at least five images per class, a fifth for the test, got {counts.min()}")
    chosen = zip(("train", "test"), fixed_test_part(whole.labels, classes), strict=True)
    return {name: Part(whole.where, whole.images[part], whole.labels[part]) for name, part in chosen}


def _together(sets: Sequence[Images]) -> dict[str, Images]:
    """Return the parts that a user gives, checked against each other."""
    if not 2 <= len(sets) <= 3:
        raise ValueError(f"name: expected (train, test) or (train, val, test), got {len(sets)} sets")
    for part in sets[1:]:
        if part.classes != sets[0].classes:
            raise ValueError(f"name: expected parts with the same classes, got {sets[0].classes} and {part.classes}")
    names = ("train", "test") if len(sets) == 2 else ("train", "val", "test")
    raw = {name: Part(Path(name), part.pixels, part.targets.numpy()) for name, part in zip(names, sets, strict=True)}
    return _divided(raw, sets[0].classes)
