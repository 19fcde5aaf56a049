"""Event-camera data sets, ready for training: the same calls for every set.

* `names` and `info` describe the available sets; `load` opens one as a map-style data set of (events, label).
* `loaders` makes the training, validation and test loaders of frames.
* `EventFolder` and `EventList` make data sets of your own recordings, from files and from arrays; `read_events` reads
  a single file, of any supported format.
* `cut` makes recordings of the pieces of others, by time, by number or by annotated label.
* `to_frames`, `batch_to_frames` and `transforms` turn events into tensors; `stream` turns a file that is larger than
  memory into frames.
* `download`, `cache`, `verify` and `clear` manage the files.
* `images` provides still images for networks without time; `as_events` turns them into recordings.

``saccade-digits``, the offline default, needs no download: its recordings are simulated on first use and
cached (see `neuromorphic_datasets.saccade_digits` for the model). So are those of ``random-manifolds``, in which only
spike times tell the classes apart; `RandomManifolds` makes others of its kind.

Example:
    >>> import neuromorphic_datasets as nd
    >>> nd.names()[:4]
    ['asldvs', 'bullying10k', 'cifar10dvs', 'dvsgesture']
"""

from . import images, transforms
from ._catalogue import cache, clear, download, info, load, names, verify
from ._cutting import cut
from ._dataset import EventDataset
from ._download import DownloadError
from ._events import EVENT_DTYPE
from ._frames import batch_to_frames, to_frames
from ._loaders import loaders
from ._pieces import Interval, read_intervals
from ._simulated import as_events
from ._streaming import stream
from .event_folder import EventFolder
from .event_list import EventList
from .random_manifolds import RandomManifolds
from .readers import RecordingError, read_events

__all__ = [
    "EVENT_DTYPE",
    "DownloadError",
    "EventDataset",
    "EventFolder",
    "EventList",
    "Interval",
    "RandomManifolds",
    "RecordingError",
    "as_events",
    "batch_to_frames",
    "cache",
    "clear",
    "cut",
    "download",
    "images",
    "info",
    "load",
    "loaders",
    "names",
    "read_events",
    "read_intervals",
    "stream",
    "to_frames",
    "transforms",
    "verify",
]
