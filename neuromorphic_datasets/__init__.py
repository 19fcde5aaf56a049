"""Event-camera data sets, ready for training: the same three calls for every set.

* `names` lists the sets.
* `load` opens one as a map-style data set of (events, label).
* `loaders` makes the training, validation and test loaders of frames.

``saccade-digits``, the offline default, needs no download: its recordings are simulated on first use and
cached (see `neuromorphic_datasets.saccade_digits` for the model). ``nmnist`` is N-MNIST, read through Tonic.

Example:
    >>> import neuromorphic_datasets
    >>> neuromorphic_datasets.names()
    ['nmnist', 'saccade-digits']
"""

from ._catalogue import load, names
from ._dataset import EventDataset
from ._loaders import loaders

__all__ = ["EventDataset", "load", "loaders", "names"]
