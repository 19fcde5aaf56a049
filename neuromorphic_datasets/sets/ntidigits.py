"""N-TIDIGITS18, single digits."""

from typing import Any

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, tonic


def _tidigits_labels(source: Any) -> list[int]:
    return [source.class_map[name.split("-")[-1]] for name in source._samples]


INFO = Info(
    name="ntidigits",
    title="N-TIDIGITS18, single digits",
    sensor_size=(64, 1, 1),
    n_classes=11,
    splits=("train", "test"),
    licence="see its homepage",
    citation="Anumula et al. 2018, Feature Representations for Neuromorphic Audio Spike Streams",
    homepage="https://docs.google.com/document/d/1Uxe7GsKKXcy6SlDUX4hoJVAC0-UkH-8kr5UXp0Ndi1M",
    files=(
        RemoteFile(
            "n-tidigits.hdf5",
            (
                "https://www.dropbox.com/scl/fi/1x4lxt9yyw25sc3tez8oi/n-tidigits.hdf5"
                "?e=2&rlkey=w8gi5udvib2zqzosusa5tr3wq&dl=1",
            ),
            md5="360a2d11e5429555c9197381cf6b58e0",
        ),
    ),
    folder="NTIDIGITS18",
    patterns={"train": "n-tidigits.hdf5", "test": "n-tidigits.hdf5"},
    open=tonic(
        Reading(
            "NTIDIGITS18",
            {split: {**arguments, "single_digits": True} for split, arguments in TRAIN_TEST.items()},
            _tidigits_labels,
        )
    ),
)
