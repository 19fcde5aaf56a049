"""A page for exploring concepts: one HTML file that needs no network."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._files import replacing
from .._pages import render
from ..models import ICBM
from ..nn._batches import check_labels, unpack
from ..nn._modes import in_eval
from .coding import Codes
from .explaining import gallery_of, profiles

_GALLERY = 24
_PER_SHEET = 1024
_LARGEST = 96


def write_atlas(
    model: ICBM,
    loader: Iterable,
    path: str | PathLike,
    *,
    classes: Sequence[str] | None = None,
    title: str = "Concept atlas",
) -> None:
    """Write a page with a gallery of every concept and an explanation of every image.

    A concept's gallery shows the images in which it is strongest, weakest and nearest to its threshold, and random
    ones. An image's page shows what each concept adds to the classes' scores, and lets the reader switch concepts.
    Images can be filtered by class and by concepts.

    Args:
        model: trained; evaluated with hard concepts, its mode is restored. Interventions in force are ignored:
            concepts are switched in the page.
        loader: of (images (B, C, H, W) within [0, 1] with 1 or 3 channels, labels). Images larger than 96 pixels are
            shrunk.
        path: of the page, an .html file.
        classes: names of the classes; None for numbers.
        title: of the page.

    Raises:
        ValueError: if the loader is empty, the images have another number of channels, a label is out of range, the
            number of names differs from that of the classes, or the concepts are not 0 or 1.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> model = ICBM(torch.nn.Flatten(), n_concepts=4, n_classes=2, in_features=64)
        >>> loader = [(torch.rand(10, 1, 8, 8), torch.arange(10) % 2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atlas(model, loader, f"{folder}/atlas.html", classes=["even", "odd"], title="Parity")
        ...     "<title>Parity" in Path(folder, "atlas.html").read_text(encoding="utf-8")
        True
    """
    model.check_binary()
    n_classes = model.head.out_features
    names = [str(number) for number in range(n_classes)] if classes is None else list(classes)
    if len(names) != n_classes:
        raise ValueError(f"classes: expected {n_classes} names, got {len(names)}")
    pictures, potentials, labels = _evaluated(model, loader)
    check_labels(labels, n_classes)
    codes = Codes.of(potentials, labels)
    data = {
        "classes": names,
        "labels": labels.tolist(),
        "weights": model.head.weight.detach().double().cpu().tolist(),
        "bias": model.head.bias.detach().double().cpu().tolist(),
        "bits": _base64(np.packbits(codes.numpy(), axis=1, bitorder="little").tobytes()),
        "concepts": [
            {**profile, "gallery": gallery_of(column, _GALLERY)}
            for profile, column in zip(profiles(codes, n_classes), potentials.T, strict=True)
        ],
        "picture": {"height": pictures.shape[1], "width": pictures.shape[2], "columns": 32, "per_sheet": _PER_SHEET},
    }
    page = render(
        "htaf_snn.concepts",
        "atlas.html.jinja",
        title=title,
        data=_for_script(data),
        sheets=_for_script(_sheets(pictures)),
    )
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


@torch.no_grad()
def _evaluated(model: ICBM, loader: Iterable) -> tuple[np.ndarray, Tensor, Tensor]:
    """Return pictures, uint8 (N, H, W) or (N, H, W, 3), potentials (N, K) and labels (N,) of a loader's images."""
    device = model.head.weight.device
    batches, potentials, labels = [], [], []
    with in_eval(model):
        for images, numbers, _ in map(unpack, loader):
            if images.ndim != 4 or images.shape[1] not in (1, 3):
                raise ValueError(f"loader: expected images (B, 1 or 3, H, W), got {tuple(images.shape)}")
            potentials.append(model.potentials(images.to(device)).cpu())
            labels.append(numbers.cpu())
            batches.append(_shrunk(images).mul(255).round().clamp(0, 255).to("cpu", torch.uint8))
    if not batches:
        raise ValueError("loader: expected at least one image, got none")
    pictures = torch.cat(batches).numpy()
    pictures = pictures[:, 0] if pictures.shape[1] == 1 else pictures.transpose(0, 2, 3, 1)
    return pictures, torch.cat(potentials), torch.cat(labels)


def _shrunk(images: Tensor) -> Tensor:
    largest = max(images.shape[2:])
    if largest <= _LARGEST:
        return images
    size = [max(1, round(side * _LARGEST / largest)) for side in images.shape[2:]]
    return torch.nn.functional.interpolate(images, size, mode="area")


def _sheets(pictures: np.ndarray) -> list[str]:
    """Arrange pictures in sheets of 1024, 32 per row, each sheet a PNG in base 64."""
    from PIL import Image

    height, width = pictures.shape[1:3]
    sheets = []
    for start in range(0, len(pictures), _PER_SHEET):
        part = pictures[start : start + _PER_SHEET]
        sheet = np.zeros((math.ceil(len(part) / 32) * height, 32 * width, *pictures.shape[3:]), np.uint8)
        for index, picture in enumerate(part):
            top, left = index // 32 * height, index % 32 * width
            sheet[top : top + height, left : left + width] = picture
        content = io.BytesIO()
        Image.fromarray(sheet).save(content, "PNG")
        sheets.append(_base64(content.getvalue()))
    return sheets


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _for_script(value: dict | list) -> str:
    """Return JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
