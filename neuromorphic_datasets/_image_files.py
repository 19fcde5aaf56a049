"""Images in files: idx, .npz, class folders, and what torchvision has."""

import gzip
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ._class_folders import all_by_class, divided_folders, loose_files, names_of, refuse_parts, warn_of
from ._packages import needs

_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".gif",
)  # fmt: skip
MOST_CHANNELS = 4
DTYPES = (np.uint8, np.uint16)
_GREY = ("1", "L", "LA")  # as Pillow names them
_DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_BILINEAR = 2  # Pillow's number of the filter, without importing Pillow

Size = tuple[int, int]


class Part(NamedTuple):
    """A part of a set: where it is, for messages, its images (n, C, H, W) of one of `DTYPES` and its labels (n,)."""

    where: Path
    images: np.ndarray
    labels: np.ndarray


def of_folder(folder: Path, resize: Size | None) -> tuple[dict[str, Part], list[str]]:
    """Read a user's folder: its parts train, test and perhaps val, or "all", and the names of the classes."""
    parts = divided_folders(folder)
    if not parts:
        classes = names_of(folder)
        refuse_parts(folder, classes, "name them train, test and, if there is one, val, without other folders")
        return {"all": _class_folders(folder, _two_or_more(folder, classes), resize)}, classes
    warn_of(folder, loose_files(folder))
    first = parts["train"]
    classes = _two_or_more(first, names_of(first))
    for part in parts.values():
        if odd := sorted(set(names_of(part)) ^ set(classes)):
            raise ValueError(
                f"{folder}: expected the same class folders in {first.name} and {part.name}, got in only one of "
                f"them {odd}"
            )
    return {part: _class_folders(own, classes, resize) for part, own in parts.items()}, classes


def _two_or_more(folder: Path, classes: list[str]) -> list[str]:
    if len(classes) < 2:
        raise ValueError(f"{folder}: expected two or more class folders, got {classes}")
    return classes


def of_copy(folder: Path, classes: list[str], resize: Size | None) -> dict[str, Part]:
    """Read the local copy of a published set in a folder, or in an .npz; empty if there is none."""
    if folder.suffix == ".npz":
        return _npz(folder, len(classes), resize)
    if not folder.is_dir():
        return {}
    archives, idx = sorted(folder.glob("*.npz")), list(folder.glob("train-images*ubyte*"))
    parts = divided_folders(folder)
    if not parts and (folder / "train").is_dir() and (folder / "test").is_dir():
        refuse_parts(folder, names_of(folder), "leave only folders named train, test and val")
    copies = [*archives, *idx[:1], *list(parts.values())[:1]]
    if len(copies) > 1:
        raise ValueError(f"root: expected one local copy, got {[str(copy) for copy in copies]}")
    if archives:
        return _npz(archives[0], len(classes), resize)
    if idx:
        return {
            part: checked(
                folder / f"{name}-images-idx3-ubyte",
                _idx(folder, f"{name}-images-idx3"),
                _idx(folder, f"{name}-labels-idx1"),
                len(classes),
                resize,
            )
            for part, name in (("train", "train"), ("test", "t10k"))
        }
    if parts:
        warn_of(folder, loose_files(folder))
    return {part: _published_folders(own, classes, resize) for part, own in parts.items()}


def _published_folders(folder: Path, classes: list[str], resize: Size | None) -> Part:
    """Read class folders named after the classes or their numbers."""
    numbers = {name: label for label, name in enumerate(classes)}
    folders = names_of(folder)
    unknown = [name for name in folders if name not in numbers and not (name.isdecimal() and int(name) < len(classes))]
    if unknown:
        raise ValueError(f"{folder}: expected folders named as {classes} or 0 to {len(classes) - 1}, got {unknown}")
    labels = np.array([numbers[name] if name in numbers else int(name) for name in folders])
    part = _class_folders(folder, folders, resize)
    return part._replace(labels=labels[part.labels])


def _npz(path: Path, n_classes: int, resize: Size | None) -> dict[str, Part]:
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
    x_train, y_train, x_test, y_test = arrays
    return {
        "train": checked(path, x_train, y_train, n_classes, resize),
        "test": checked(path, x_test, y_test, n_classes, resize),
    }


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


def _class_folders(folder: Path, classes: list[str], resize: Size | None) -> Part:
    files, labels = all_by_class(folder, classes, _ENDINGS, "images")
    images: list[np.ndarray] = []
    for path in files:
        pixels = pixels_of(path, resize)
        first = images[0] if images else pixels
        if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
            hint = "; resize= makes sizes equal" if pixels.shape[:2] != first.shape[:2] else ""
            raise ValueError(
                f"{path}: expected shape {first.shape} and {first.dtype} as in {files[0]} and the others, got "
                f"{pixels.shape} and {pixels.dtype}{hint}"
            )
        images.append(pixels)
    return checked(folder, np.stack(images), np.array(labels), len(classes), None)


def pixels_of(path: Path, resize: Size | None) -> np.ndarray:
    """Read an image as `_pixels` does, and bring it to (height, width) unless that is None."""
    pixels = _pixels(path)
    return pixels if resize is None else _resized(pixels, resize)


def _pixels(path: Path) -> np.ndarray:
    """Read an image of one frame as uint8, or as uint16 if it has more bits: (H, W) if it is grey, else (H, W, 3).

    No value is changed, but that Pillow scales a PGM's largest value to 65535.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            fault = _fault(image)
            if not fault:
                # A palette's opacities are dropped with a warning unless they are converted to a channel first.
                opaque = image.convert("RGBA") if image.has_transparency_data else image
                deep = image.mode in _DEEP_GREY
                pixels = np.asarray(opaque if deep else opaque.convert("L" if image.mode in _GREY else "RGB"))
    except Exception as error:  # Pillow raises almost anything over a damaged file
        raise ValueError(f"{path}: not an image: {error}") from error
    if fault:
        raise ValueError(f"{path}: {fault}")
    if deep and not 0 <= pixels.min() <= pixels.max() <= np.iinfo(np.uint16).max:
        raise ValueError(f"{path}: expected values in [0, 65535], got {pixels.min()} to {pixels.max()}")
    return pixels.astype(np.uint16) if deep else pixels


def _fault(image: Any) -> str:
    """Return why 8 or 16 bits of grey, or 8 of red, green and blue, cannot hold an image, or an empty string."""
    # Pillow truncates deeper colours when it decodes them; its tiles show them before. BGR;16 has 16 bits per pixel.
    deep = any(re.search("(?<!BGR);(16|32)", str(tile)) or _ppm_depth(tile) > 255 for tile in image.tile)
    if deep and not (image.mode in _DEEP_GREY and not re.search(";32|;16B?S", str(image.tile))):
        return f"expected eight bits per colour, got more, in Pillow's mode {image.mode}; scale it to eight bits first"
    if not deep and image.mode not in (*_GREY, "P", "PA", "RGB", "RGBA", "RGBX"):
        return f"expected grey, or RGB of eight bits, got Pillow's mode {image.mode}; convert it first"
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # the other frames of MPO are previews
    if frames > 1:
        return f"expected one frame, got {frames}; save each as an image first"
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        return "expected no transparency, got transparent pixels; put the image on a background first"
    return ""


def _ppm_depth(tile: Any) -> int:
    """Return the largest value that a tile of a PPM file can have, or 0 for other formats."""
    return tile[3][1] if tile[0].startswith("ppm") and isinstance(tile[3], tuple) else 0


def _resized(pixels: np.ndarray, size: Size) -> np.ndarray:
    """Resize an image (H, W) or (H, W, 3) to (height, width), by Pillow's bilinear filter, which averages."""
    from PIL import Image

    turned = size[::-1]
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(turned, _BILINEAR))
    exact = Image.fromarray(pixels.astype(np.float32)).resize(turned, _BILINEAR)
    return np.rint(np.asarray(exact)).astype(np.uint16)


def of_torchvision(
    name: str, kind: str, folder: Path, download: bool, n_classes: int, resize: Size | None
) -> dict[str, Part]:
    """Return what one of torchvision's classes has in a folder, or fetches into it."""
    with needs("images"):
        import torchvision.datasets

    published = getattr(torchvision.datasets, kind)
    try:
        parts = {part: published(folder, train=part == "train", download=download) for part in ("train", "test")}
    except RuntimeError as error:
        raise FileNotFoundError(
            f"root: expected {name} in {folder}, got none; pass download=True (in a command --download) to fetch it, "
            f"or a local copy: idx files, an .npz, or train/ and test/ with class folders ({error})"
        ) from None
    return {
        part: checked(folder, np.asarray(found.data), np.asarray(found.targets), n_classes, resize)
        for part, found in parts.items()
    }


def checked(where: Path, images: np.ndarray, labels: np.ndarray, n_classes: int, resize: Size | None) -> Part:
    """Return a part of images (n, H, W[, C]) and labels (n,), checked against each other."""
    images = np.asarray(images)
    if images.dtype not in DTYPES or images.ndim not in (3, 4) or images.shape[3:] > (MOST_CHANNELS,):
        raise ValueError(
            f"{where}: expected uint8 or uint16 images (n, height, width[, channels]), 1 to {MOST_CHANNELS} channels, "
            f"got {images.dtype} of shape {images.shape}"
        )
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    if resize is not None:
        flat = images.reshape(-1, *images.shape[2:])
        images = np.stack([_resized(image, resize) for image in flat]).reshape(*images.shape[:2], *resize)
    return Part(where, images, checked_labels(str(where), labels, len(images), n_classes))


def checked_labels(where: str, targets: ArrayLike, count: int, n_classes: int) -> np.ndarray:
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
