"""Readers on real recordings, beside other libraries' readers."""

import numpy as np
import pytest
import tonic.io
from event_files import file
from folders import real_data

from neuromorphic_datasets import EVENT_DTYPE, RecordingError, read_events
from neuromorphic_datasets.readers import read_recording


@pytest.mark.real_data
def test_evt3_equals_its_oracle_except_where_expelliarmus_counts_time_twice():
    """expelliarmus, which made the oracle, adds 4096 µs whenever the low part of the time falls, as it does at each
    new high part and, in this file, at each repeated one; gen4.dat shows that the high part alone is right."""
    folder = real_data("event_formats")
    events, oracle = read_events(folder / "evt3_sample.raw"), np.load(folder / "evt3_sample.npy")
    assert len(events) == 219_596
    for field in "xyp":
        np.testing.assert_array_equal(events[field], oracle[field])
    surplus = oracle["t"] - events["t"]
    assert set((surplus % 4096).tolist()) == {0}
    assert (surplus[:20_000] == 0).all()
    assert (np.diff(surplus) >= 0).all()


@pytest.mark.real_data
def test_evt3_equals_dat_except_for_the_time_offset():
    folder = real_data("event_formats")
    raw, other = read_events(folder / "gen4.raw"), read_events(folder / "gen4.dat")
    assert len(raw) == 1_218_618
    for field in "xyp":
        np.testing.assert_array_equal(raw[field], other[field])
    assert set((raw["t"] - other["t"]).tolist()) == {11_194_368}


@pytest.mark.real_data
def test_event_stream_equals_csv():
    folder = real_data("event_formats")
    events = read_events(folder / "dvs.es")
    assert len(events) == 473_225
    np.testing.assert_array_equal(events, read_events(folder / "dvs.csv"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("evt2_sample.raw", 539_481, None),
        ("sample.aedat4", 111_954, (320, 240, 2)),
        ("sample_nmnist.bin", 4325, None),
        ("sample_ncars.dat", 2009, None),
        ("davis240_aedat2.aedat", 162_771, (240, 180, 2)),
    ],
)
def test_real_files_have_their_events(name, count, size):
    recording = read_recording(real_data("event_formats") / name)
    assert (len(recording.events), recording.sensor_size) == (count, size)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "encoding"), [("evt2_sample.raw", "evt2"), ("gen4.dat", "dat"), ("sample_ncars.dat", "dat")]
)
def test_expelliarmus_reads_the_same(name, encoding):
    import expelliarmus

    path = real_data("event_formats") / name
    peer, events = expelliarmus.Wizard(encoding="evt2" if "evt2" in name else "dat").read(path), read_events(path)
    for field in "xytp":
        np.testing.assert_array_equal(events[field], peer[field])


@pytest.mark.real_data
def test_tonic_reads_the_same_bin():
    path = real_data("event_formats") / "sample_nmnist.bin"
    peer, events = tonic.io.read_mnist_file(path, dtype=EVENT_DTYPE), read_events(path)
    np.testing.assert_array_equal(events, peer)


@pytest.mark.real_data
def test_files_of_frames_without_events_are_reported():
    with pytest.raises(RecordingError, match=r"frames_only\.aedat4: .*no event"):
        read_events(real_data("event_formats") / "frames_only.aedat4")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["evt3_sample.raw", "evt2_sample.raw", "gen4.dat", "dvs.es", "sample.aedat4"])
def test_real_files_cut_at_any_place(tmp_path, name):
    whole = read_events(real_data("event_formats") / name)
    content = (real_data("event_formats") / name).read_bytes()
    rng = np.random.default_rng(0)
    for size in [*range(0, 400, 13), *rng.integers(len(content), size=8)]:
        path = file(tmp_path, name, content[:size])
        try:
            events = read_events(path)
        except RecordingError:
            continue
        np.testing.assert_array_equal(events, whole[: len(events)])
