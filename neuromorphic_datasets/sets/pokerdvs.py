"""POKER-DVS."""

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, tonic

_POKER = "https://raw.githubusercontent.com/neuromorphs/tonic/d6f0a56421008c8e5700ca52abda193f9ff29836/tonic/datasets/"
INFO = Info(
    name="pokerdvs",
    title="POKER-DVS",
    sensor_size=(35, 35, 2),
    n_classes=4,
    splits=("train", "test"),
    licence="see its homepage",
    citation="Serrano-Gotarredona and Linares-Barranco 2015, Poker-DVS and MNIST-DVS",
    homepage="http://www2.imse-cnm.csic.es/caviar/POKERDVS.html",
    files=(
        RemoteFile(
            "pips_train.tar.gz", (f"{_POKER}pips_train.tar.gz",), md5="412bcfb96826e4fcb290558e8c150aae", split="train"
        ),
        RemoteFile(
            "pips_test.tar.gz", (f"{_POKER}pips_test.tar.gz",), md5="eef2bf7d0d3defae89a6fa98b07c17af", split="test"
        ),
    ),
    folder="POKERDVS",
    patterns={"train": "pips_train/*/*.npy", "test": "pips_test/*/*.npy"},
    note="Tonic's package lacks the files; its repository has them.",
    open=tonic(Reading("POKERDVS", TRAIN_TEST, sort_by_label=True)),
)
