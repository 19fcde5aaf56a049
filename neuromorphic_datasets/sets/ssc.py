"""Spiking Speech Commands."""

from .._download import RemoteFile
from .._tonic import Reading
from ._info import Info, tonic
from .shd import PAGE, URL, labels_of

INFO = Info(
    name="ssc",
    title="Spiking Speech Commands",
    sensor_size=(700, 1, 1),
    n_classes=35,
    splits=("train", "val", "test"),
    licence="CC BY 4.0",
    citation="Cramer et al. 2020, The Heidelberg Spiking Data Sets",
    homepage=PAGE,
    files=tuple(
        RemoteFile(f"ssc_{name}.h5.zip", (f"{URL}ssc_{name}.h5.zip",), md5=md5, split=split)
        for split, name, md5 in (
            ("train", "train", "d102be95e7144fcc0553d1f45ba94170"),
            ("val", "valid", "b4eee3516a4a90dd0c71a6ac23a8ae43"),
            ("test", "test", "a35ff1e9cffdd02a20eb850c17c37748"),
        )
    ),
    folder="SSC",
    patterns={"train": "ssc_train.h5", "val": "ssc_valid.h5", "test": "ssc_test.h5"},
    open=tonic(
        Reading("SSC", {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}}, labels_of)
    ),
)
