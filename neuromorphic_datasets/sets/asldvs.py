"""ASL-DVS."""

from .._download import RemoteFile
from .._tonic import Reading
from ._info import Info, tonic

INFO = Info(
    name="asldvs",
    title="ASL-DVS",
    sensor_size=(240, 180, 2),
    n_classes=26,
    splits=("all",),
    licence="see its homepage",
    citation="Bi et al. 2019, Graph-based Object Classification for Neuromorphic Vision Sensing",
    homepage="https://github.com/PIX2NVS/NVS2Graph",
    files=(RemoteFile("ASLDVS.zip", ("https://www.dropbox.com/sh/ibq0jsicatn7l6r/AACNrNELV56rs1YInMWUs9CAa?dl=1",)),),
    folder="ASLDVS",
    patterns={"all": "**/*.mat"},
    note="No recordings of j and z, which are movements. The host repacks the file for each download, so its "
    "checksum is not fixed; the file was reported missing in 2024.",
    open=tonic(Reading("ASLDVS", {"all": {}})),
)
