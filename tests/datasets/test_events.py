"""Events in columns: what enters, what leaves, and sensors of one row."""

import numpy as np
import pytest
import torch

import neuromorphic_datasets as nd
from neuromorphic_datasets._events import EVENT_DTYPE, Events


def line(count=50, seed=0):
    """Return events of a sensor of one row, without a field y."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, [(field, np.int64) for field in "xtp"])
    events["x"], events["p"] = rng.integers(39, size=count), rng.integers(2, size=count)
    events["t"] = np.sort(rng.integers(10_000, size=count))
    return events


class Line(nd.EventDataset):
    def __init__(self, transform=None):
        super().__init__("line", "all", (39, 1, 2), ["a", "b"], [0, 1] * 4, transform, fingerprint="1")

    def events(self, position):
        return line(seed=position)


def test_columns_and_structured_arrays_are_the_same():
    events = np.array([(3, 4, 10, 1), (5, 6, 25, 0)], EVENT_DTYPE)
    columns = Events.of(events)
    np.testing.assert_array_equal(columns.structured(), events)
    assert len(columns) == 2
    assert columns[1:].structured().tolist() == [(5, 6, 25, 0)]
    assert Events.compact([3], None, [10], [-1]).structured().tolist() == [(3, 10, 0)]
    assert Events.compact([], [], [], []).structured().dtype == EVENT_DTYPE


def test_polarities_of_minus_one_are_off():
    events = np.array([(0, 0, 0, -1), (0, 0, 1, 1)], EVENT_DTYPE)
    assert Events.of(events).p.tolist() == [0, 1]
    assert events["p"].tolist() == [-1, 1]


def test_a_sensor_of_one_row_needs_no_y(tmp_path):
    seen = []
    train, _, test = nd.loaders(
        Line(lambda events: (seen.append(events.dtype.names), events)[1]),
        n_time_bins=5,
        val_fraction=0,
        test_fraction=0.5,
        cache=tmp_path,
    )
    for loader in (train, test):
        [(frames, _)] = loader
        assert frames.shape == (5, 4, 2, 1, 39)
        assert frames.sum() == 4 * 50
    assert set(seen) == {("x", "t", "p")}
    [(plain, _)] = nd.loaders(Line(), n_time_bins=5, val_fraction=0, test_fraction=0.5, cache=tmp_path)[2]
    assert torch.equal(plain, frames)
    assert nd.batch_to_frames([line()], (39, 1, 2), n_time_bins=5).sum() == 50


def test_a_set_of_events_with_and_without_rows_is_refused(tmp_path):
    class Mixed(Line):
        def events(self, position):
            events = line(seed=position)
            rows = np.zeros(len(events), EVENT_DTYPE)
            for field in "xtp":
                rows[field] = events[field]
            return events if position != 3 else rows

    message = "recording 3: events: expected events without a field y, as in earlier recordings, got events with"
    with pytest.raises(nd.RecordingError, match=message):
        nd.loaders(Mixed(), cache=tmp_path)


@pytest.mark.parametrize("duration", [1, 7, 299_999, 1 << 55])
def test_bins_start_where_they_should(duration):
    events = np.zeros(9, EVENT_DTYPE)
    events["t"] = sorted({0, *np.linspace(0, duration, 9).astype(np.int64)} | set(range(9)))[:9]
    events["t"][-1] = max(duration, 8)
    frames = nd.to_frames(events, (1, 1, 1), n_time_bins=4)
    last = int(events["t"][-1]) + 1
    bins = [int(t) * 4 // last for t in events["t"].tolist()]
    assert frames[:, 0, 0, 0].tolist() == [bins.count(number) for number in range(4)]
