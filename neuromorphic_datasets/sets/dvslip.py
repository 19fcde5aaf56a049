"""DVS-Lip."""

from .._download import RemoteFile
from .._tonic import Reading
from ._info import TRAIN_TEST, Info, tonic

INFO = Info(
    name="dvslip",
    title="DVS-Lip",
    sensor_size=(128, 128, 2),
    n_classes=100,
    splits=("train", "test"),
    licence="see its homepage",
    citation="Tan et al. 2022, Multi-Grained Spatio-Temporal Features Perceived Network for Event-Based Lip-Reading",
    homepage="https://sites.google.com/view/event-based-lipreading",
    files=(
        RemoteFile(
            "DVS-Lip.zip",
            ("https://drive.google.com/file/d/1dBEgtmctTTWJlWnuWxFtk8gfOdVVpkQ0/view",),
            md5="2dcb959255122d4cdeb6094ca282494b",
            by_hand=True,
        ),
    ),
    folder="DVSLip",
    patterns={"train": "DVS-Lip/train/*/*.npy", "test": "DVS-Lip/test/*/*.npy"},
    note="Google Drive asks for confirmation before it delivers a file of this size: fetch it with a browser.",
    open=tonic(Reading("DVSLip", TRAIN_TEST)),
)
