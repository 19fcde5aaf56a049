"""Loops over events and over the words of recordings, compiled by Numba.

Decoders take a piece of a recording, and `state`, made by `new_state`, which carries what they know to the next piece.
They write events into the columns xs, ys, ts and ps, which are long enough, and return ``(count, used)``: the number of
events, and the number of words that were read. At a fault they stop, and `state` has its number in `FAULTS`; those that
are lenient leave out the event or the word instead, count it, and go on.
"""

from collections.abc import Callable

import numpy as np
from numba import njit

FAULTS = (
    "",
    "a coordinate is off the sensor",
    "a word of an unknown type",
    "an event comes before its row is known",
    "the recording ends within an event",
)
_OFF_SENSOR, _UNKNOWN_WORD, _NO_ROW, CUT = range(1, len(FAULTS))
# The entries of a state: the clock's high part, its wrap-arounds and its low part, the time of the last event, the row
# and the base of vectors; words of events without a time; the fault; those left out, and the first one's fault,
# word and event.
_HIGH, _WRAPS, _LOW, _BEFORE, _ROW, _BASE, _POLARITY = range(7)
UNTIMED, FAULT, LEFT_OUT, FIRST_FAULT, FIRST_WORD, FIRST_EVENT, _WORDS, _EVENTS = range(7, 15)


def new_state() -> np.ndarray:
    """Return the state of a decoder at the start of a recording."""
    state = np.zeros(15, np.int64)
    state[[_HIGH, _ROW]] = -1
    return state


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
    polarities, height, width = np.uint64(frames.shape[1]), np.uint64(frames.shape[2]), np.uint64(frames.shape[3])
    for i in range(len(starts)):
        frame = frames[i]
        for j in range(starts[i], ends[i]):
            # Without a sign negative ones are large, and no index counts from the end, which saves time.
            channel, row, column = np.uint64(p[j]), np.uint64(y[j]), np.uint64(x[j])
            if column >= width or row >= height or channel >= polarities:
                return j
            before = frame[channel, row, column]
            if before == most and not wraps:
                return j
            frame[channel, row, column] = before + 1
    return -1


@_compiled
def cells(x, y, p, starts, ends, height, width, counts, columns, values, sizes):
    """Write the cells (p * height + y) * width + x that have events, and their counts, of each slice of the events.

    `counts` is zero for every cell, and is so again; `sizes` gets the number of cells of each slice. Return -1, or the
    first event that is off the sensor.
    """
    n = 0
    for i in range(len(starts)):
        first = n
        for j in range(starts[i], ends[i]):
            if not (0 <= x[j] < width and 0 <= y[j] < height and 0 <= p[j] * height * width < len(counts)):
                for k in range(first, n):
                    counts[columns[k]] = 0
                return j
            cell = (np.int64(p[j]) * height + y[j]) * width + x[j]
            if counts[cell] == 0:
                columns[n] = cell
                n += 1
            counts[cell] += 1
        sizes[i] = n - first
        columns[first:n].sort()
        for k in range(first, n):
            values[k] = counts[columns[k]]
            counts[columns[k]] = 0
    return -1


@_compiled
def place_rows(starts, sizes, columns, values, all_columns, all_values):
    """Copy rows of these sizes, one after the other, to where they start in a batch."""
    n = 0
    for i in range(len(sizes)):
        for k in range(sizes[i]):
            all_columns[starts[i] + k], all_values[starts[i] + k] = columns[n], values[n]
            n += 1


@_compiled
def write_rows(x, y, t, p, table):
    """Write columns into the rows of a table of x, y, t and p, or of x, t and p; one pass is several times as fast."""
    if table.shape[1] == 4:
        for i in range(len(t)):
            table[i, 0], table[i, 1], table[i, 2], table[i, 3] = x[i], y[i], t[i], p[i]
    else:
        for i in range(len(t)):
            table[i, 0], table[i, 1], table[i, 2] = x[i], t[i], p[i]


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
def _leave_out(state, fault, word, event, lenient):
    """Note a fault; return whether to go on."""
    if not lenient:
        state[FAULT] = fault
        return False
    if state[LEFT_OUT] == 0:
        state[FIRST_FAULT], state[FIRST_WORD], state[FIRST_EVENT] = fault, state[_WORDS] + word, state[_EVENTS] + event
    state[LEFT_OUT] += 1
    return True


@_compiled
def _done(state, count, used):
    """Count the events and words of a piece, and return them."""
    state[_WORDS] += used
    state[_EVENTS] += count
    return count, used


@_compiled
def _new_high(state, high, bits):
    """Set the high part of the clock, which wraps around after `bits` bits."""
    if high < state[_HIGH] - (1 << (bits - 1)):
        state[_WRAPS] += 1 << bits
    state[_HIGH] = high


@_compiled
def evt2(words, width, height, lenient, state, xs, ys, ts, ps):
    """Decode EVT 2.0: 32-bit words of polarity (or another type), six bits of time, x and y."""
    count = 0
    for i in range(len(words)):
        word = np.int64(words[i])
        kind = word >> 28
        if kind <= 1:
            if state[_HIGH] < 0:
                state[UNTIMED] += 1  # the event's time is unknown
                continue
            x, y = word >> 11 & 0x7FF, word & 0x7FF
            t = (state[_WRAPS] + state[_HIGH]) << 6 | word >> 22 & 0x3F
            if x < width and y < height:
                xs[count], ys[count], ts[count], ps[count] = x, y, t, kind == 1
                count += 1
            elif not _leave_out(state, _OFF_SENSOR, i, count, lenient):
                return _done(state, count, i)
        elif kind == 8:
            _new_high(state, word & 0xFFFFFFF, 28)
        elif kind != 10 and kind != 14 and kind != 15 and not _leave_out(state, _UNKNOWN_WORD, i, count, lenient):
            return _done(state, count, i)
    return _done(state, count, len(words))


@_compiled
def evt21_size(words):
    """Return the number of events in EVT 2.1 words, or slightly more."""
    size = 0
    for i in range(len(words)):
        mask = np.int64(words[i] & np.uint64(0xFFFFFFFF)) if np.int64(words[i] >> np.uint64(60)) <= 1 else np.int64(0)
        while mask:
            mask &= mask - 1
            size += 1
    return size


@_compiled
def evt21(words, width, height, lenient, state, xs, ys, ts, ps):
    """Decode EVT 2.1: 64-bit words as of EVT 2.0, whose lower half tells which of 32 pixels from x on have an event."""
    count = 0
    for i in range(len(words)):
        word = np.int64(words[i] >> np.uint64(32))
        kind = word >> 28
        if kind <= 1:
            if state[_HIGH] < 0:
                state[UNTIMED] += 1
                continue
            x, y, mask = word >> 11 & 0x7FF, word & 0x7FF, np.int64(words[i] & np.uint64(0xFFFFFFFF))
            t = (state[_WRAPS] + state[_HIGH]) << 6 | word >> 22 & 0x3F
            while mask:
                if mask & 1:
                    if x < width and y < height:
                        xs[count], ys[count], ts[count], ps[count] = x, y, t, kind == 1
                        count += 1
                    elif not _leave_out(state, _OFF_SENSOR, i, count, lenient):
                        return _done(state, count, i)
                mask >>= 1
                x += 1
        elif kind == 8:
            _new_high(state, word & 0xFFFFFFF, 28)
        elif kind != 10 and kind != 14 and kind != 15 and not _leave_out(state, _UNKNOWN_WORD, i, count, lenient):
            return _done(state, count, i)
    return _done(state, count, len(words))


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
def evt3(words, width, height, lenient, state, xs, ys, ts, ps):
    """Decode EVT 3.0: 16-bit words, each of which changes a part of the state or sends events in the current state.

    Cameras repeat words of time with the low part a few µs off; time stands still where that would turn it back.
    """
    high, low, wraps, y = state[_HIGH], state[_LOW], state[_WRAPS], state[_ROW]
    base, polarity, before = state[_BASE], state[_POLARITY] == 1, state[_BEFORE]
    count, used = 0, len(words)
    for i in range(len(words)):
        word = np.int64(words[i])
        kind, payload = word >> 12, word & 0xFFF
        if kind == 2 or kind == 4 or kind == 5:
            if high < 0:
                state[UNTIMED] += 1  # the events' time is unknown
                continue
            if y < 0:
                if not _leave_out(state, _NO_ROW, i, count, lenient):
                    used = i
                    break
                continue
            t = (wraps + high) << 12 | low
            if t >= before - 0xFFF:
                t = before = max(t, before)
            if kind == 2:
                x, mask, polarity_now = payload & 0x7FF, np.int64(1), payload >> 11 == 1
            else:
                x, mask, polarity_now = base, payload if kind == 4 else payload & 0xFF, polarity
                base += 12 if kind == 4 else 8
            while mask:
                if mask & 1:
                    if x < width and y < height:
                        xs[count], ys[count], ts[count], ps[count] = x, y, t, polarity_now
                        count += 1
                    elif not _leave_out(state, _OFF_SENSOR, i, count, lenient):
                        break
                mask >>= 1
                x += 1
            if state[FAULT]:
                used = i
                break
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
            if not _leave_out(state, _UNKNOWN_WORD, i, count, lenient):
                used = i
                break
    state[_HIGH], state[_LOW], state[_WRAPS], state[_ROW] = high, low, wraps, y
    state[_BASE], state[_POLARITY], state[_BEFORE] = base, polarity, before
    return _done(state, count, used)


@_compiled
def event_stream(data, width, height, lenient, state, xs, ys, ts, ps):
    """Decode the DVS events of Event Stream 2: a byte of time step and polarity, then x and y, with rows upwards.

    An event that the piece does not hold as a whole is left to the next one.
    """
    i, t, count = 0, state[_BEFORE], 0
    while i < len(data):
        first = np.int64(data[i])
        if first >= 0xFE:
            t += 0x7F * (first & 1)
            i += 1
            continue
        if i + 5 > len(data):
            break
        t += first >> 1
        x, y = np.int64(data[i + 1]) | np.int64(data[i + 2]) << 8, np.int64(data[i + 3]) | np.int64(data[i + 4]) << 8
        if x < width and y < height:
            xs[count], ys[count], ts[count], ps[count] = x, height - 1 - y, t, first & 1 == 1
            count += 1
        elif not _leave_out(state, _OFF_SENSOR, i, count, lenient):
            break
        i += 5
    state[_BEFORE] = t
    return _done(state, count, i)


@_compiled
def longest_ascent(t):
    """Return which of the times to keep so that they ascend and the fewest are left out."""
    n = len(t)
    ends, before, length = np.empty(n, np.int64), np.empty(n, np.int64), 0  # by length, the last index of the best row
    for i in range(n):
        low, high = 0, length
        while low < high:
            middle = (low + high) // 2
            if t[ends[middle]] <= t[i]:
                low = middle + 1
            else:
                high = middle
        before[i] = ends[low - 1] if low else -1
        ends[low] = i
        length = max(length, low + 1)
    kept = np.zeros(n, np.bool_)
    i = ends[length - 1] if length else -1
    while i >= 0:
        kept[i] = True
        i = before[i]
    return kept
