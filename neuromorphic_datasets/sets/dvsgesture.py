"""DVS128 Gesture."""

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, figshare, tonic

INFO = Info(
    name="dvsgesture",
    title="DVS128 Gesture",
    sensor_size=(128, 128, 2),
    n_classes=11,
    splits=("train", "test"),
    licence="CC BY 4.0",
    citation="Amir et al. 2017, A Low Power, Fully Event-Based Gesture Recognition System",
    homepage="https://research.ibm.com/interactive/dvsgesture/",
    files=(
        RemoteFile("ibmGestureTrain.tar.gz", figshare(38022171), md5="3a8f0d4120a166bac7591f77409cb105", split="train"),
        RemoteFile("ibmGestureTest.tar.gz", figshare(38020584), md5="56070e45dadaa85fff82e0fbfbc06de5", split="test"),
    ),
    folder="DVSGesture",
    patterns={"train": "ibmGestureTrain/*/*.npy", "test": "ibmGestureTest/*/*.npy"},
    note="Tonic's cut version: one gesture per recording, times in whole ms.",
    open=tonic(Reading("DVSGesture", TRAIN_TEST)),
)
