"""Random events in columns of several dtypes."""

import numpy as np

SIZE = (7, 5, 2)
DTYPES = {
    "int64": [(field, "i8") for field in "xytp"],
    "packed": [("x", "i2"), ("y", "i2"), ("t", "i8"), ("p", "?")],
    "unsigned": [("t", "u8"), ("x", "u2"), ("y", "u2"), ("p", "?")],
    "small": [("x", "u1"), ("y", "i4"), ("t", "u4"), ("p", "u1")],
}


def recording(seed=0, count=50, last=1000, first=0, dtype="int64", size=SIZE):
    """Return `count` random events within `last` µs from `first` on."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, DTYPES[dtype])
    for field, high in zip("xyp", size, strict=True):
        events[field] = rng.integers(high, size=count)
    events["t"] = first + np.sort(rng.integers(last, size=count))
    return events
