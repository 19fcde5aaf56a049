"""Recordings of words, which a compiled decoder reads piece by piece."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._events import Events, RecordingError
from ._recording import Losses, Options, empty

# The sensor's sides in files that state no geometry; no address of EVT is larger.
LARGEST = 2048
# More words than an event has.
_LEAST = 64


@dataclass(frozen=True)
class Format:
    """A format: its decoder in `_kernels`, the most events in some words, and the type of a word."""

    decode: Callable
    size: Callable[[np.ndarray], int]
    word: np.dtype


def decoded(
    path: Path,
    form: Format,
    words: np.ndarray,
    offset: int,
    sensor_size: tuple[int, int, int] | None,
    options: Options,
    losses: Losses,
) -> Iterator[Events]:
    """Yield the events of words that start at a byte of a file.

    Raises:
        RecordingError: naming the byte of a fault.
    """
    from .. import _kernels

    width, height = sensor_size[:2] if sensor_size else (LARGEST, LARGEST)
    state, start, events, piece = _kernels.new_state(), 0, 0, max(options.piece or len(words), _LEAST)

    def place(word: int, event: int) -> str:
        return f"byte {offset + word * form.word.itemsize} (after event {event})"

    while start < len(words):
        part = words[start : start + piece]
        columns = empty(form.size(part))
        count, used = form.decode(part, width, height, options.lenient, state, *vars(columns).values())
        start, events = start + used, events + count
        if state[_kernels.FAULT]:
            raise RecordingError(f"{path}: {place(start, events)}: {_kernels.FAULTS[state[_kernels.FAULT]]}")
        yield columns[:count]
        if used < len(part) and start + len(part) - used >= len(words):  # the rest is less than an event
            if not options.lenient:
                raise RecordingError(f"{path}: {place(start, events)}: {_kernels.FAULTS[_kernels.CUT]}")
            losses.add(1, f"{place(start, events)}: {_kernels.FAULTS[_kernels.CUT]}")
            break
    if state[_kernels.LEFT_OUT]:
        fault, word, event = state[[_kernels.FIRST_FAULT, _kernels.FIRST_WORD, _kernels.FIRST_EVENT]]
        losses.add(int(state[_kernels.LEFT_OUT]), f"{place(word, event)}: {_kernels.FAULTS[fault]}")
    if state[_kernels.UNTIMED] and events:
        warnings.warn(
            f"{path}: {state[_kernels.UNTIMED]} words of events before the first word of time are left out",
            stacklevel=2,
        )
