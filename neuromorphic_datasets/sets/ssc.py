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
    splits=("train", "valid", "test"),
    licence="CC BY 4.0",
    citation="Cramer et al. 2020, The Heidelberg Spiking Data Sets",
    homepage=PAGE,
    files=tuple(
        RemoteFile(f"ssc_{split}.h5.zip", (f"{URL}ssc_{split}.h5.zip",), md5, split=split)
        for split, md5 in (
            ("train", "d102be95e7144fcc0553d1f45ba94170"),
            ("valid", "b4eee3516a4a90dd0c71a6ac23a8ae43"),
            ("test", "a35ff1e9cffdd02a20eb850c17c37748"),
        )
    ),
    folder="SSC",
    patterns={"train": "ssc_train.h5", "valid": "ssc_valid.h5", "test": "ssc_test.h5"},
    open=tonic(Reading("SSC", {split: {"split": split} for split in ("train", "valid", "test")}, labels_of)),
)
