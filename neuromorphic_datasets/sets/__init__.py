"""The published data sets, one file each: what it is, where its files are, and how it is read.

URLs, checksums and layouts are those of Tonic 1.7, or as a file says.
"""

from . import (
    asldvs,
    bullying10k,
    cifar10dvs,
    dvsgesture,
    dvsgesture_raw,
    dvslip,
    esimagenet,
    hardvs,
    navgesture_sit,
    navgesture_walk,
    ncaltech101,
    ncars,
    nmnist,
    ntidigits,
    pokerdvs,
    saccade_digits,
    shd,
    smnist,
    ssc,
    stmnist,
)
from ._info import Info

__all__ = ["SETS", "Info"]

_FILES = (
    asldvs,
    bullying10k,
    cifar10dvs,
    dvsgesture,
    dvsgesture_raw,
    dvslip,
    esimagenet,
    hardvs,
    navgesture_sit,
    navgesture_walk,
    ncaltech101,
    ncars,
    nmnist,
    ntidigits,
    pokerdvs,
    saccade_digits,
    shd,
    smnist,
    ssc,
    stmnist,
)
SETS = {file.INFO.name: file.INFO for file in _FILES}
"""Every data set by name."""
