"""Recordings in pieces: by time, by number, by annotated label."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

import neuromorphic_datasets as nd
from neuromorphic_datasets import EVENT_DTYPE, EventList, RecordingError, cut


def events(times):
    made = np.zeros(len(times), EVENT_DTYPE)
    made["t"], made["x"] = times, np.arange(len(times)) % 5
    return made


def times_of(pieces):
    return [pieces[position][0]["t"].tolist() for position in range(len(pieces))]


def two(**options):
    return EventList(
        [events(range(0, 100, 10)), events(range(1000, 1050, 10))], [1, 0], sensor_size=(5, 1, 2), **options
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"time_window": 30}, [[0, 10, 20], [30, 40, 50], [60, 70, 80], [1000, 1010, 1020]]),
        ({"time_window": 30, "remainder": "keep"}, [
            [0, 10, 20], [30, 40, 50], [60, 70, 80], [90], [1000, 1010, 1020], [1030, 1040],
        ]),
        ({"time_window": 40, "overlap": 20}, [
            [0, 10, 20, 30], [20, 30, 40, 50], [40, 50, 60, 70], [1000, 1010, 1020, 1030],
        ]),
        ({"n_events": 4}, [[0, 10, 20, 30], [40, 50, 60, 70], [1000, 1010, 1020, 1030]]),
        ({"n_events": 4, "remainder": "keep"}, [
            [0, 10, 20, 30], [40, 50, 60, 70], [80, 90], [1000, 1010, 1020, 1030], [1040],
        ]),
        ({"n_events": 4, "overlap": 2}, [
            [0, 10, 20, 30], [20, 30, 40, 50], [40, 50, 60, 70], [60, 70, 80, 90], [1000, 1010, 1020, 1030],
        ]),
        ({"n_events": 10}, [list(range(0, 100, 10))]),
        ({"time_window": 91}, [list(range(0, 100, 10))]),
    ],
)  # fmt: skip
def test_pieces(tmp_path, options, expected):
    is_long = options.get("n_events") == 10 or options.get("time_window") == 91
    with pytest.warns(UserWarning, match="recordings without a piece: 1 of 2") if is_long else nullcontext():
        pieces = cut(two(), cache=tmp_path, **options)
    assert times_of(pieces) == expected
    assert pieces.targets.tolist() == [0 if piece[0] >= 1000 else 1 for piece in expected]
    assert (pieces.sensor_size, pieces.classes, pieces.name) == ((5, 1, 2), ["0", "1"], "recordings-pieces")


@pytest.mark.parametrize("options", [{"time_window": 17.5}, {"n_events": 7}])
def test_pieces_without_overlap_are_the_whole(tmp_path, options):
    rng = np.random.default_rng(0)
    whole = EventList([events(np.sort(rng.integers(0, 500, 200)))], [0], sensor_size=(5, 1, 2))
    pieces = cut(whole, remainder="keep", cache=tmp_path, **options)
    joined = np.concatenate([pieces[position][0] for position in range(len(pieces))])
    np.testing.assert_array_equal(joined, whole[0][0])


def test_pauses_give_no_pieces(tmp_path):
    whole = EventList([events([0, 1, 1000, 1001, 1100])], [0], sensor_size=(5, 1, 2))
    assert times_of(cut(whole, time_window=100, cache=tmp_path)) == [[0, 1], [1000, 1001]]


def test_annotated_labels(tmp_path):
    (tmp_path / "labels.csv").write_text("class,startTime_usec,endTime_usec\n7,0,35\n3,35,1000\n")
    intervals = [nd.read_intervals(tmp_path / "labels.csv"), [(3, 1010, 1030)]]
    pieces = cut(two(), intervals=intervals, cache=tmp_path)
    assert times_of(pieces) == [[0, 10, 20, 30], [40, 50, 60, 70, 80, 90], [1010, 1020]]
    assert [pieces.classes[label] for label in pieces.targets] == ["7", "3", "3"]
    assert pieces.classes == ["3", "7"]
    with pytest.warns(UserWarning, match="intervals without events: 1; recordings without a piece: 1 of 2"):
        named = cut(
            two(), intervals=[[("wave", 0, 50), ("clap", 100, 500)], []], classes=["clap", "wave"], cache=tmp_path
        )
    assert (named.classes, named.targets.tolist()) == (["clap", "wave"], [1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^time_window, n_events and intervals: expected exactly one"),
        ({"time_window": 1, "n_events": 1}, "^time_window, n_events and intervals: expected exactly one"),
        ({"time_window": 0}, "^time_window: expected a finite number > 0"),
        ({"time_window": 1e-9}, "^recording 0: time_window: expected at most 67108864 windows"),
        ({"time_window": 5, "overlap": 5}, "^overlap: expected a number >= 0 and < 5, got 5"),
        ({"n_events": 5, "overlap": 5}, r"^overlap: expected an integer in \[0, 4\], got 5"),
        ({"n_events": 5, "remainder": "both"}, "^remainder: expected 'keep' or 'drop'"),
        ({"n_events": 5, "classes": ["a"]}, "^classes: expected None without intervals"),
        (
            {"n_events": 11},
            "^recordings: expected recordings longer than a piece, in µs, got none; the first recording is from 0",
        ),
        ({"intervals": [[]]}, "^intervals: expected 2 lists, one per recording, got 1"),
        ({"intervals": [[(1, 5, 5)], []]}, "^intervals: expected start < end in all of recording 0"),
        ({"intervals": [[(1, 5, 15)], []], "classes": [2]}, r"^intervals: expected labels among \['2'\], got \['1'\]"),
    ],
)
def test_arguments_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        cut(two(), cache=tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,start,end\n1,2,3\n", "expected columns class, startTime_usec, endTime_usec, got"),
        ("class,startTime_usec,endTime_usec\n1,2.5,3\n", "expected times in µs, whole numbers, got .*'2.5'"),
        ("class,startTime_usec,endTime_usec\n1,2\n", "expected times in µs, whole numbers"),
        ("", "expected columns class, startTime_usec, endTime_usec, got None"),
    ],
)
def test_annotations_are_checked(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(RecordingError, match=rf"labels\.csv: {message}"):
        nd.read_intervals(tmp_path / "labels.csv")


def test_pieces_go_into_the_loaders_and_change_with_the_rule(tmp_path):
    rng = np.random.default_rng(0)
    whole = EventList(
        [events(np.sort(rng.integers(0, 1000, 100))) for _ in range(8)], [0, 1] * 4, sensor_size=(5, 1, 2)
    )
    pieces = cut(whole, n_events=20, cache=tmp_path)
    made = nd.loaders(pieces, n_time_bins=4, val_fraction=0, test_fraction=0.25, cache=tmp_path)
    frames = torch.cat([batch for loader in made if loader for batch, _ in loader], 1)
    assert frames.shape == (4, 40, 2, 1, 5)
    assert (frames.sum((0, 2, 3, 4)) == 20).all()
    rules = [{"n_events": 20}, {"n_events": 25}, {"n_events": 20, "overlap": 5}, {"time_window": 100}]
    assert len({cut(whole, cache=tmp_path, **rule).fingerprint for rule in rules}) == 4


def test_pieces_stay_in_the_part_of_their_whole(tmp_path):
    pair = EventList([events(range(40))] * 6, [0, 1] * 3), EventList([events(range(20))] * 2, [0, 1])
    pair = [EventList(part._recordings, part.targets, sensor_size=(5, 1, 2)) for part in pair]
    pieces = cut(pair, n_events=10, cache=tmp_path)
    made = nd.loaders(pieces, n_time_bins=2, val_fraction=0, cache=tmp_path)
    assert [len(loader.dataset) for loader in made if loader] == [24, 4]


def test_a_transform_is_applied_to_the_pieces(tmp_path):
    pieces = cut(two(transform=len), n_events=4, cache=tmp_path)
    assert [pieces[position][0] for position in range(3)] == [4, 4, 4]


def test_no_event_is_on_both_sides_of_a_division(tmp_path):
    rng = np.random.default_rng(0)
    whole = EventList(
        [events(np.sort(rng.choice(10_000, 20, replace=False)) + 10_000 * number) for number in range(10)],
        [0, 1] * 5,
        sensor_size=(5, 1, 2),
    )
    pieces = cut(whole, n_events=4, overlap=2, cache=tmp_path)
    source = {tuple(piece["t"].tolist()): int(piece["t"][0]) // 10_000 for piece, _ in (pieces[i] for i in range(90))}
    assert pieces.groups.tolist() == list(source.values())
    for options in ({}, {"fold": 1, "folds": 3}):
        train, val, test = nd.loaders(pieces, val_fraction=0.2, cache=tmp_path, **options)
        parts = [{int(pieces.groups[number]) for number in part.dataset._numbers} for part in (train, val, test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert set(nd.load(pieces, "test").groups).isdisjoint(nd.load(pieces, "train").groups)


@pytest.mark.parametrize(
    ("intervals", "message"),
    [
        ([[("a", 0)], []], r"^intervals: expected \(label, start, end\) in lists, got"),
        ([[("a", 0.1, 0.5)], []], "^recordings: expected intervals that have events, in µs, got none; the first"),
    ],
)
def test_intervals_are_checked(tmp_path, intervals, message):
    with pytest.raises(ValueError, match=message):
        cut(two(), intervals=intervals, cache=tmp_path)


def test_two_wholes_of_a_class_are_needed(tmp_path):
    whole = EventList([events(range(0, 1000, 10))] * 2, [0, 1], sensor_size=(5, 1, 2))
    pieces = cut(whole, n_events=10, cache=tmp_path)
    with pytest.raises(ValueError, match=r"^test_fraction: expected pieces of two recordings .* got 1 of class 0; set"):
        nd.loaders(pieces, cache=tmp_path)
