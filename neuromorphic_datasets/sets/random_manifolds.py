"""random-manifolds."""

from collections.abc import Callable
from pathlib import Path

from .._dataset import EventDataset
from ._info import DIGITS, Info


def _open_random_manifolds(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    from ..random_manifolds import RandomManifolds

    return RandomManifolds(split, root=folder, transform=transform)


INFO = Info(
    name="random-manifolds",
    title="random smooth manifolds",
    sensor_size=(20, 1, 1),
    n_classes=10,
    splits=("train", "val", "test"),
    licence="MIT",
    citation="Zenke and Vogels 2021, The Remarkable Robustness of Surrogate Gradient Learning for Instilling Complex "
    "Function in Spiking Neural Networks",
    homepage="https://doi.org/10.1162/neco_a_01367",
    note="Generated on first use and kept; needs no network.",
    class_names=DIGITS,
    open=_open_random_manifolds,
)
