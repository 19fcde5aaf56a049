"""Memory settings for the processes of our commands."""

from __future__ import annotations

import ctypes

# The parameters of glibc's mallopt, and the largest threshold that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGEST = -1, -3, 1 << 25


def keep_freed() -> bool:
    """Let the process keep the memory that it frees for the next training step, which needs the same sizes.

    Otherwise glibc returns it to the system, which zeroes it page by page when it is needed again: on two cores that
    is a tenth of the time of training a small network. Does nothing with other C libraries.

    Returns:
        Whether the C library accepted both settings.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(set_option(_MMAP_THRESHOLD, _LARGEST) and set_option(_TRIM_THRESHOLD, (1 << 31) - 1))
