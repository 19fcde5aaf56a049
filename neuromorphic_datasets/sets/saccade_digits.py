"""saccade-digits."""

from collections.abc import Callable
from pathlib import Path

from .._dataset import EventDataset
from ._info import DIGITS, Info


def _open_saccade_digits(info: Info, split: str, folder: Path, transform: Callable | None) -> EventDataset:
    from ..saccade_digits import SaccadeDigits

    return SaccadeDigits(split, folder, transform)


INFO = Info(
    name="saccade-digits",
    title="saccade-digits",
    sensor_size=(34, 34, 2),
    n_classes=10,
    splits=("train", "test"),
    licence="BSD 3-Clause (scikit-learn's digits)",
    citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits",
    homepage="https://archive.ics.uci.edu/dataset/80",
    note="Simulated on first use and kept; needs no network.",
    class_names=DIGITS,
    open=_open_saccade_digits,
)
