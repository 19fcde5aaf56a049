"""Copies, parts and tuples of a set are read as the set is, and every seed tests on the same part."""

import numpy as np
import pytest

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventDataset, EventFolder, loaders

GOOD = np.array([(1, 1, 0, 0), (2, 5, 3, 1), (7, 0, 10, 1)], nd.EVENT_DTYPE)


class Own(EventDataset):
    """Recordings of two classes by turns, each longer than the one before."""

    def __init__(self, count):
        super().__init__("own", "train", (8, 6, 2), ["a", "b"], np.arange(count) % 2)

    def events(self, position):
        events = GOOD.copy()
        events["t"][-1] += position
        return events


class Method(Own):
    def fingerprint(self):
        return "1"


class AllOn(EventFolder):
    def events(self, position):
        events = super().events(position)
        events["p"] = 1
        return events


def totals(source, cache):
    """Return the numbers of OFF and ON events in training and test."""
    train, _, test = loaders(source, n_time_bins=1, cache=cache, val_fraction=0)
    return sum(frames.sum((0, 1, 3, 4)) for part in (train, test) for frames, _ in part).tolist()


def test_a_class_s_own_events_count_in_tuples_and_parts(folder, tmp_path):
    plain, on = (kind(folder, columns="xytp", cache=tmp_path) for kind in (EventFolder, AllOn))
    assert totals(plain, tmp_path) == [8, 8]
    assert totals(on, tmp_path) == [0, 16]
    assert totals((on, on), tmp_path) == [0, 32]
    assert totals(nd.load(on, "all", transform=lambda events: events), tmp_path) == [0, 16]


def test_dropped_faults_stay_dropped_in_tuples_and_parts(folder, tmp_path):
    (folder / "a" / "0.csv").write_text("".join(f"1,2,{t},1\n" for t in (*range(10), 5)))
    with pytest.warns(UserWarning, match="faults dropped: 1; the first: .*the time goes back"):
        mine = EventFolder(folder, columns="xytp", on_error="drop", cache=tmp_path)
    assert sum(totals((mine, mine), tmp_path)) == 48
    assert sum(totals(nd.load(mine, "all", transform=lambda events: events), tmp_path)) == 24
    with pytest.raises(ValueError, match=r"^on_error: expected 'raise', as mine has been read already, got 'skip'"):
        loaders(mine, on_error="skip")


def test_the_test_part_is_the_same_for_every_seed(tmp_path):
    own = Own(20)
    expected = [int(events["t"][-1]) - 10 for events, _ in nd.load(own, "test")]
    for seed in range(3):
        _, _, test = loaders(own, seed=seed, cache=tmp_path)
        assert test.dataset._numbers.tolist() == expected


@pytest.mark.parametrize("source", [Method(10), (Method(10), Method(10)), nd.load(Method(10), "train")])
def test_a_method_is_no_fingerprint(source, tmp_path):
    with pytest.raises(TypeError, match=r"^fingerprint: expected a string, got .*; write @property above"):
        loaders(source, cache=tmp_path)
