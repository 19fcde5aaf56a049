"""Your own data sets in loaders: options, parts, windows, and random sets."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sets_of_users import GOOD, HALVES, SIZE, Own, array
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

import neuromorphic_datasets as nd
from neuromorphic_datasets import EventFolder, RecordingError, loaders, to_frames, transforms

# Arguments that take effect or are refused.


def test_a_transform_of_events_takes_effect(tmp_path):
    own = Own([array(GOOD)] * 4, transform=lambda events: events[events["p"] == 1])
    for augment in (None, transforms.DropEvents(0)):
        train, _, test = loaders(own, cache=tmp_path, n_time_bins=3, augment=augment, **HALVES)
        for part in (train, test):
            assert next(iter(part))[0].sum((0, 1, 3, 4)).tolist() == [0, 4]


@pytest.mark.parametrize("result", [lambda events: events["x"], lambda events: events[::-1], lambda events: None])
def test_an_invalid_result_of_a_transform_is_refused(tmp_path, result):
    _, _, test = loaders(Own([array(GOOD)] * 4, transform=result), cache=tmp_path, **HALVES)
    with pytest.raises((TypeError, ValueError), match=r"^own train, recording \d: events: expected "):
        next(iter(test))


@pytest.mark.parametrize("options", [{"time_window": 5}, {"n_time_bins": 3}])
def test_frames_of_a_folder_or_a_transform_take_effect(folder, tmp_path, options):
    expected = to_frames(array([(1, 2, 10, 1), (3, 4, 20, 0)]), (4, 5, 2), **options)
    made = EventFolder(folder, columns="xytp", cache=tmp_path, **options)
    given = Own([made.events(0)] * 4, size=(4, 5, 2), transform=transforms.ToFrames((4, 5, 2), **options))
    for recordings in (made, given):
        _, _, test = loaders(recordings, cache=tmp_path, **HALVES)
        frames, _, *lengths = next(iter(test))
        np.testing.assert_array_equal(frames[:, 0], expected)
        assert [length.tolist() for length in lengths] == ([[3] * len(frames[0])] if "time_window" in options else [])
        for other in ({"n_time_bins": 4}, {"time_window": 4}, {"remainder": "drop"}):
            with pytest.raises(ValueError, match=r"^n_time_bins, time_window and remainder: expected none of them"):
                loaders(recordings, cache=tmp_path, **HALVES, **other)


def test_a_folder_without_frames_takes_the_loaders(folder, tmp_path):
    recordings = EventFolder(folder, columns="xytp", cache=tmp_path)
    assert next(iter(loaders(recordings, n_time_bins=3, **HALVES)[2]))[0].shape[0] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "somewhere"}, "^root and download: expected only with a name, got 'somewhere'"),
        ({"download": True}, "^root and download: expected only with a name"),
        ({"folds": 2, "fold": 0}, "^test_fraction: expected only with a data set of .* and without folds, got 0.5"),
    ],
)
def test_options_without_effect_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        loaders(Own([array(GOOD)] * 4), cache=tmp_path, **HALVES, **options)


# Nothing is left out.


@pytest.mark.parametrize(("steps", "bins"), [(256, 128), (300, 7), (5, 10)])
def test_bins_reach_to_the_last_event(tmp_path, steps, bins):
    events = array([(t % 8, t % 6, t, t % 2) for t in range(steps)])
    kept, dropped = (
        loaders(Own([events] * 4), cache=tmp_path, n_time_bins=bins, remainder=remainder, **HALVES)[2]
        for remainder in ("keep", "drop")
    )
    per_bin = next(iter(kept))[0].sum((1, 2, 3, 4))
    assert per_bin.sum() == 2 * steps
    assert per_bin.max() - per_bin.min() <= 2
    from tonic.transforms import ToFrame

    np.testing.assert_array_equal(next(iter(dropped))[0][:, 0], ToFrame(SIZE, n_time_bins=bins)(events.copy()))


def test_a_class_that_is_only_tested_is_refused(tmp_path):
    for part, digits in (("Train", "02"), ("Test", "012")):
        for digit in digits:
            (tmp_path / part / digit).mkdir(parents=True)
            (tmp_path / part / digit / "0.bin").write_bytes(bytes([3, 4, 0x80, 0, 50]))
    with pytest.raises(
        ValueError, match=r"^name: expected every class of the test part in training, got none of \['1'"
    ):
        loaders("nmnist", root=tmp_path, cache=tmp_path, val_fraction=0)


def test_a_rare_class_is_in_every_part_or_refused(tmp_path):
    targets = [0] * 60 + [1] * 2
    own = Own([array(GOOD)] * 62, targets)
    with pytest.raises(ValueError, match=r"^test_fraction: .* the rarest class, b, has 2, got 0.1"):
        loaders(own, cache=tmp_path, val_fraction=0, test_fraction=0.1)
    train, _, test = loaders(own, cache=tmp_path, **HALVES)
    assert [np.bincount(part.dataset.targets).tolist() for part in (train, test)] == [[30, 1], [30, 1]]


# Protocols.


def names(frames, labels):
    """Return the number of events and the label of each recording of a batch (B, T, C, H, W)."""
    return sorted(zip(frames.sum((1, 2, 3, 4)).int().tolist(), labels.tolist(), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("packed", [True, False])
def test_a_loaders_data_set_is_one_for_torch(tmp_path, workers, packed):
    rows = [[(1, 1, t, 0) for t in range(count + 1)] for count in range(20)]
    events = [array(row) for row in rows]
    bins = 2 if packed else 200
    train = loaders(Own(events), cache=tmp_path, n_time_bins=bins, val_fraction=0, test_fraction=0.2, batch_size=4)[0]
    assert train.dataset._packed.shape is None or packed
    everything = names(*DataLoader(train.dataset, 16).__iter__().__next__())
    assert len({count for count, _ in everything}) == 16
    assert all((count - 1) % 2 == label for count, label in everything)
    parts = random_split(train.dataset, [10, 6], torch.Generator().manual_seed(0))
    wholes = [
        ConcatDataset(parts),
        ConcatDataset([Subset(train.dataset, range(9)), Subset(train.dataset, range(9, 16))]),
        Subset(Subset(train.dataset, range(16)), range(16)),
    ]
    for whole in wholes:
        singly, together = [], []
        for frames, labels in DataLoader(whole, 4, shuffle=True, num_workers=workers):
            assert (frames.shape, labels.shape) == ((4, bins, 2, 6, 8), (4,))
            singly += names(frames, labels)
        for frames, labels in DataLoader(whole, 4, collate_fn=train.collate_fn, num_workers=workers):
            assert (frames.shape, labels.dtype) == ((bins, 4, 2, 6, 8), torch.int64)
            together += names(frames.transpose(0, 1), labels)
        assert sorted(singly) == sorted(together) == everything


def test_windows_in_a_subset(tmp_path):
    events = [array([(1, 1, t, 0) for t in range(10 * (count + 1))]) for count in range(4)]
    train, _, _ = loaders(Own(events), cache=tmp_path, time_window=10, **HALVES)
    frames, label, length = train.dataset[1]
    assert (len(frames), type(label), type(length)) == (length, int, int)
    for whole in (Subset(train.dataset, [1, 0]), ConcatDataset([train.dataset])):
        frames, _, lengths = next(iter(DataLoader(whole, 2, collate_fn=train.collate_fn)))
        assert frames.shape == (lengths.max(), 2, 2, 6, 8)
        assert (frames.sum((0, 2, 3, 4)) == 10 * lengths).all()
    with pytest.raises(IndexError):
        train.dataset[2]


def test_images_in_a_subset():
    train, _, _ = nd.images.loaders("digits", batch_size=8)
    for whole in (Subset(train.dataset, range(8)), ConcatDataset([train.dataset])):
        for collate in (None, train.collate_fn):
            images, labels = next(iter(DataLoader(whole, 8, collate_fn=collate)))
            assert torch.equal(images, torch.stack([train.dataset[i][0] for i in range(8)]))
            assert torch.equal(labels, train.dataset.targets[:8])


# Any data set: right, or an error that names the recording.

INTEGERS = ("i1", "u1", "<i2", ">i2", "u2", "i4", ">u4", "i8", "u8", "f4", "f8", "?", "O")


@st.composite
def recordings(draw):
    """Rows of four numbers, mostly valid, with a type for each column."""
    low = draw(st.sampled_from([0, 0, 0, 0, 0, -1]))
    count = draw(st.sampled_from([0] + [1, 2, 3, 7, 20] * 4))
    scale = draw(st.sampled_from([1, 1, 1, 1, 1000, 1e-3, 0.5]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([0] * 9 + [1]))
    table = np.stack([rng.integers(low, side + reach, count) for side in SIZE], axis=1).astype(float)
    t = rng.integers(0, draw(st.sampled_from([1, 3, 50, 100])), count) * float(scale)
    if draw(st.integers(0, 9)):
        t = np.sort(t)
    if count and not draw(st.integers(0, 19)):
        t[draw(st.integers(0, count - 1))] = draw(st.sampled_from([np.nan, np.inf, -5.0]))
    types = [draw(st.sampled_from(INTEGERS if draw(st.integers(0, 3)) == 0 else ("i8", "f8"))) for _ in "xytp"]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        events = np.zeros(count, list(zip("xytp", types, strict=True)))
        for field, column in zip("xytp", (table[:, 0], table[:, 1], t, table[:, 2]), strict=True):
            events[field] = column.astype(types["xytp".index(field)])
    return events


def is_good(events):
    """Return whether a recording is valid, checking its numbers one by one."""
    rows = [tuple(row) for row in events.tolist()]
    if not rows or any(dtype == "O" for dtype, _ in events.dtype.fields.values()):
        return False
    if not all(np.isfinite(value) and value == int(value) for row in rows for value in row):
        return False
    on = all(0 <= x < SIZE[0] and 0 <= y < SIZE[1] for x, y, _, _ in rows)
    on = on and any({p for *_, p in rows} <= codes for codes in ({0, 1}, {-1, 1}))
    on = on and all(abs(t) < 2**56 for _, _, t, _ in rows)
    return on and all(before[2] <= after[2] for before, after in itertools.pairwise(rows))


def span(events):
    """Return the time from the first to the last event."""
    return int(events["t"][-1]) - int(events["t"][0])


def counted(events, bins, window):
    """Return frames, counted event by event."""
    rows = [[int(value) for value in row] for row in events.tolist()]
    first, last = rows[0][2], rows[0][2] + span(events)
    frames = np.zeros((bins or (last - first) // window + 1, *SIZE[::-1]))
    for x, y, t, p in rows:
        number = (t - first) * bins // (last - first + 1) if bins else (t - first) // window
        frames[number, int(p > 0), y, x] += 1
    return frames


@settings(
    max_examples=examples(ci=40, thorough=1000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=st.lists(recordings(), min_size=4, max_size=8),
    later=st.lists(recordings(), min_size=4, max_size=8),
    bins=st.sampled_from([None, 1, 2, 5, 40]),
    window=st.integers(1, 60),
    fingerprint=st.booleans(),
    data=st.data(),
)
def test_random_sets_are_counted_right_or_refused_by_name(tmp_path, first, later, bins, window, fingerprint, data):
    for number, events in enumerate((first, data.draw(st.sampled_from([first, later, first[::-1]])))):
        if data.draw(st.integers(0, 2)):
            events = [recording for recording in events if is_good(recording)]
            events += [array(GOOD)] * (4 - len(events))
        state = (
            f"{number} {[(recording.dtype.descr, recording.tolist()) for recording in events]}" if fingerprint else ""
        )
        own = Own(events, fingerprint=state)
        time = {"n_time_bins": bins} if bins else {"time_window": window}
        bad = [number for number, recording in enumerate(events) if not is_good(recording)]
        if bad:
            with pytest.raises(RecordingError, match=f"^own train, recording {bad[0]}: events: "):
                loaders(own, cache=tmp_path, **time, **HALVES)
            continue
        if any(span(recording) // window > 2**20 for recording in events if not bins):
            with pytest.raises(ValueError, match=r"^own train, recording \d: time_window: expected at most "):
                list(itertools.chain(*loaders(own, cache=tmp_path, **time, **HALVES)[::2]))
            continue
        expected = [(number % 2, counted(recording, bins, window)) for number, recording in enumerate(events)]
        for part in loaders(own, cache=tmp_path, batch_size=3, **time, **HALVES)[::2]:
            for frames, labels, *lengths in part:
                for column, label in enumerate(labels.tolist()):
                    length = int(lengths[0][column]) if lengths else len(frames)
                    ours = frames[:length, column].numpy()
                    same = [n for n, (one, want) in enumerate(expected) if one == label and np.array_equal(want, ours)]
                    assert same and not frames[length:, column].any()
                    expected.pop(same[0])
        assert expected == []
