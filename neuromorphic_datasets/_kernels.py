"""Loops over events and over the words of recordings, compiled by Numba.

Decoders write into the columns xs, ys, ts and ps, which are long enough, and return ``(count, fault, position)``: the
number of events written, the reason why decoding stopped (an index of `FAULTS`; 0 at the end of the data) and the word
at which it did. Those of EVT also return the number of words of events left out because no word of time precedes them.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

FAULTS = (
    "",
    "the time goes back",
    "a coordinate is off the sensor",
    "a word of an unknown type",
    "an event comes before its row is known",
    "the recording ends within an event",
)
_TIME_BACK, _OFF_SENSOR, _UNKNOWN_WORD, _NO_ROW, _CUT = range(1, len(FAULTS))


def _compiled(function: Callable) -> Callable:
    """Compile on the first call, and cache the machine code on disk if a folder for it can be written."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is no such folder
        return njit(nogil=True)(function)


@_compiled
def count(x, y, p, starts, ends, frames, most, wraps):
    """Count events [starts[i], ends[i]) into ``frames[i, p, y, x]``.

    Return -1, or the first event that is off the sensor or, unless counts may wrap around, raises a count beyond
    `most`.
    """
    _, polarities, height, width = frames.shape
    for i in range(len(starts)):
        for j in range(starts[i], ends[i]):
            if not (0 <= x[j] < width and 0 <= y[j] < height and 0 <= p[j] < polarities):
                return j
            before = frames[i, np.intp(p[j]), y[j], x[j]]
            if before == most and not wraps:
                return j
            frames[i, np.intp(p[j]), y[j], x[j]] = before + 1
    return -1


@_compiled
def copy_times(t, p, times):
    """Copy t into `times`; return the first index whose time is smaller than the previous one, or -1, and any p < 0.

    In a structured array t and p are on the same cache lines.
    """
    descents, negative = 0, 0
    for i in range(len(t)):
        times[i] = t[i]
        negative += p[i] < 0
        if i:
            descents += t[i] < t[i - 1]
    return first_descent(times) if descents else -1, negative > 0


@_compiled
def first_descent(t):
    """Return the first index whose time is smaller than the previous one, or -1."""
    descents = 0
    for i in range(1, len(t)):  # without an early exit, so that it is vectorised
        descents += t[i] < t[i - 1]
    if descents:
        for i in range(1, len(t)):
            if t[i] < t[i - 1]:
                return i
    return -1


@_compiled
def first_off(x, y, width, height):
    """Return the first index at which x or y is not on the sensor, or -1."""
    off = 0
    for i in range(len(x)):  # without an early exit, so that it is vectorised
        off += (x[i] < 0) | (x[i] >= width) | (y[i] < 0) | (y[i] >= height)
    if off:
        for i in range(len(x)):
            if x[i] < 0 or x[i] >= width or y[i] < 0 or y[i] >= height:
                return i
    return -1


@_compiled
def evt2(words, width, height, xs, ys, ts, ps):
    """Decode EVT 2.0: 32-bit words of polarity (or another type), six bits of time, x and y."""
    high, wraps, count, before, untimed = np.int64(-1), np.int64(0), 0, np.int64(0), 0
    for i in range(len(words)):
        word = np.int64(words[i])
        kind = word >> 28
        if kind <= 1:
            if high < 0:
                untimed += 1  # the event's time is unknown
                continue
            x, y = word >> 11 & 0x7FF, word & 0x7FF
            t = (wraps + high) << 6 | word >> 22 & 0x3F
            if x >= width or y >= height:
                return count, _OFF_SENSOR, i, untimed
            if t < before:
                return count, _TIME_BACK, i, untimed
            xs[count], ys[count], ts[count], ps[count] = x, y, t, kind == 1
            before = t
            count += 1
        elif kind == 8:
            new = word & 0xFFFFFFF
            if new < high - (1 << 27):
                wraps += 1 << 28
            high = new
        elif kind != 10 and kind != 14 and kind != 15:
            return count, _UNKNOWN_WORD, i, untimed
    return count, 0, len(words), untimed


@_compiled
def evt3_size(words):
    """Return the number of events in EVT 3.0 words, or slightly more."""
    size = 0
    for i in range(len(words)):  # without branches, so that it is vectorised; counts the bits set in a vector's mask
        word = np.uint32(words[i])
        kind = word >> np.uint32(12)
        bits = word & np.uint32(0xFFF)
        bits -= (bits >> np.uint32(1)) & np.uint32(0x555)
        bits = (bits & np.uint32(0x333)) + ((bits >> np.uint32(2)) & np.uint32(0x333))
        bits = (bits + (bits >> np.uint32(4))) & np.uint32(0xF0F)
        bits = (bits + (bits >> np.uint32(8))) & np.uint32(0xF)
        size += (kind == 2) + ((kind == 4) | (kind == 5)) * bits
    return size


@_compiled
def evt3(words, width, height, xs, ys, ts, ps):
    """Decode EVT 3.0: 16-bit words, each of which changes a part of the state or sends events in the current state.

    Cameras repeat words of time with the low part a few µs off; time stands still where that would turn it back.
    """
    high, low, wraps, y = np.int64(-1), np.int64(0), np.int64(0), np.int64(-1)
    base, polarity = np.int64(0), False
    count, before, untimed = 0, np.int64(0), 0
    for i in range(len(words)):
        word = np.int64(words[i])
        kind, payload = word >> 12, word & 0xFFF
        if kind == 2 or kind == 4 or kind == 5:
            if high < 0:
                untimed += 1  # the events' time is unknown
                continue
            if y < 0:
                return count, _NO_ROW, i, untimed
            t = (wraps + high) << 12 | low
            if t < before - 0xFFF:
                return count, _TIME_BACK, i, untimed
            t = before = max(t, before)
            if kind == 2:
                x, mask, polarity_now = payload & 0x7FF, np.int64(1), payload >> 11 == 1
            else:
                x, mask, polarity_now = base, payload if kind == 4 else payload & 0xFF, polarity
                base += 12 if kind == 4 else 8
            while mask:
                if mask & 1:
                    if x >= width or y >= height:
                        return count, _OFF_SENSOR, i, untimed
                    xs[count], ys[count], ts[count], ps[count] = x, y, t, polarity_now
                    count += 1
                mask >>= 1
                x += 1
        elif kind == 0:
            y = payload & 0x7FF
        elif kind == 3:
            base, polarity = payload & 0x7FF, payload >> 11 == 1
        elif kind == 6:
            low = payload
        elif kind == 8 and payload != high:
            if payload < high - (1 << 11):
                wraps += 1 << 12
            high, low = payload, np.int64(0)
        elif kind != 7 and kind != 8 and kind != 10 and kind != 14 and kind != 15:
            return count, _UNKNOWN_WORD, i, untimed
    return count, 0, len(words), untimed


@_compiled
def event_stream(data, width, height, xs, ys, ts, ps):
    """Decode the DVS events of Event Stream 2: a byte of time step and polarity, then x and y, with rows upwards."""
    i, t, count = 0, np.int64(0), 0
    while i < len(data):
        first = np.int64(data[i])
        if first >= 0xFE:
            t += 0x7F * (first & 1)
            i += 1
            continue
        if i + 5 > len(data):
            return count, _CUT, i
        t += first >> 1
        x, y = np.int64(data[i + 1]) | np.int64(data[i + 2]) << 8, np.int64(data[i + 3]) | np.int64(data[i + 4]) << 8
        if x >= width or y >= height:
            return count, _OFF_SENSOR, i
        xs[count], ys[count], ts[count], ps[count] = x, height - 1 - y, t, first & 1 == 1
        count += 1
        i += 5
    return count, 0, i
