"""Spiking Heidelberg Digits."""

from pathlib import Path
from typing import Any

import numpy as np

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, tonic


def labels_of(source: Any) -> np.ndarray:
    """Return the labels in the HDF5 file of one of Tonic's objects."""
    import h5py

    with h5py.File(Path(source.location_on_system, source.data_filename), "r") as file:
        return file["labels"][()].astype(np.int64)


PAGE = "https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/"
URL = "https://zenkelab.org/datasets/"
INFO = Info(
    name="shd",
    title="Spiking Heidelberg Digits",
    sensor_size=(700, 1, 1),
    n_classes=20,
    splits=("train", "test"),
    licence="CC BY 4.0",
    citation="Cramer et al. 2020, The Heidelberg Spiking Data Sets",
    homepage=PAGE,
    files=(
        RemoteFile(
            "shd_train.h5.zip", (f"{URL}shd_train.h5.zip",), md5="f3252aeb598ac776c1b526422d90eecb", split="train"
        ),
        RemoteFile("shd_test.h5.zip", (f"{URL}shd_test.h5.zip",), md5="1503a5064faa34311c398fb0a1ed0a6f", split="test"),
    ),
    folder="SHD",
    patterns={"train": "shd_train.h5", "test": "shd_test.h5"},
    open=tonic(Reading("SHD", TRAIN_TEST, labels_of)),
)
