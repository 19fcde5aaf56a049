"""The files that people have: tables of many kinds, and faulty events."""

import struct

import h5py
import numpy as np
import pytest
from event_files import (
    EVENTS,
    FORMATS,
    HEIGHT,
    SIZE,
    WIDTH,
    csv,
    evt2,
    evt3,
    evt21,
    file,
    mvsec,
    rows,
    same,
    write,
)
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import neuromorphic_datasets as nd
from neuromorphic_datasets import EVENT_DTYPE, EventFolder, RecordingError, read_events, to_frames


@pytest.mark.parametrize(
    "content",
    [
        "\ufefft,x,y,p\n" + rows(),
        '"t","x","y","p"\n' + rows(),
        "'t' ; 'x' ; 'y' ; 'p'\n" + rows(separator=";"),
        "# recorded on Monday\n# t x y p\n" + rows(separator=" "),
        "# t,x,y,p\n" + rows(),
        "timestamp_us,x,y,polarity\n" + rows(),
        "t [us], x, y, p\n" + rows(),
        "t,x,y,p\n" + rows(x=float, y=float, t=float, p=float),
        "t (ns),x,y,p\n" + rows(t=lambda t: 1000 * t + 499),
        "t (ns),x,y,p\n" + rows(t=lambda t: 1000 * t - 499.5),
        "time_s,x,y,p\n" + rows(t=lambda t: f"{t / 1e6:.6f}"),
        "ts,xs,ys,ps\n" + rows(p=lambda p: 1 if p else -1),
        f"%geometry:{WIDTH},{HEIGHT}\n" + rows("xypt"),
        f"%geometry {WIDTH} x {HEIGHT}\nx,y,p,t\n" + rows("xypt"),
        "p\tt\ty\tx\n" + rows("ptyx", "\t"),
        "t,x,y,p\r\n" + rows().replace("\n", "\r\n"),
        "t,x,y,p\n\n" + rows(),
    ],
)
def test_tables_of_text(tmp_path, content):
    same(read_events(file(tmp_path, "a.csv", content)))
    same(read_events(file(tmp_path, "a.txt", content)))


def test_the_rpg_groups_text(tmp_path):
    seconds = rows(separator=" ", t=lambda t: f"{t / 1e6:.9f}")
    same(read_events(file(tmp_path, "a.txt", seconds)))
    same(read_events(file(tmp_path, "b.txt", f"{WIDTH} {HEIGHT}\n{seconds}"), sensor_size=SIZE))
    same(read_events(file(tmp_path, "c.txt", rows(separator=" "))))
    same(read_events(file(tmp_path, "d.txt", rows(separator=" ", t=lambda t: f"{t / 1e3:.3f}")), time_unit="ms"))
    with pytest.raises(RecordingError, match=r"e\.txt: event 0: \(x=3, y=4\) is off the sensor of 3 x 9 pixels"):
        read_events(file(tmp_path, "e.txt", f"3 9\n{seconds}"))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1), ("ns", 1000)])
def test_units_of_time(tmp_path, unit, factor):
    path = file(tmp_path, "a.csv", "t,x,y,p\n" + rows(t=lambda t: repr(t * factor)))
    same(read_events(path, time_unit=unit))
    table = np.zeros(len(EVENTS), [("t", float), ("x", int), ("y", int), ("p", int)])
    for field in "xyp":
        table[field] = EVENTS[field]
    table["t"] = EVENTS["t"] * factor
    np.save(tmp_path / "a.npy", table)
    same(read_events(tmp_path / "a.npy", time_unit=unit))


def test_units_that_contradict_a_file_or_have_no_effect_are_refused(tmp_path):
    path = file(tmp_path, "a.csv", "t_us,x,y,p\n" + rows())
    with pytest.raises(RecordingError, match=r"a\.csv: expected time_unit 'us', as its times are named, got 's'"):
        read_events(path, time_unit="s")
    for option, value, kind in (("time_unit", "s", "a table"), ("place", "events", "an HDF5 file")):
        with pytest.raises(ValueError, match=rf"^{option}: expected None, as .*a\.raw is not {kind}, got '{value}'"):
            read_events(write(tmp_path, "a.raw"), **{option: value})
    with pytest.raises(ValueError, match=r"^time_unit: expected None or one of .* got 'min'"):
        read_events(path, time_unit="min")
    with pytest.raises(
        RecordingError, match=r"line 2: expected 4 whole numbers, .*; for times in another unit than µs set time"
    ):
        read_events(file(tmp_path, "b.csv", "t,x,y,p\n0.5,1,1,1\n"))


def test_tables_without_rows(tmp_path):
    path = file(tmp_path, "a.csv", "t,x@39,y@1,p\n" + rows())
    assert read_events(file(tmp_path, "b.csv", "t,x,p\n" + rows("txp"))).dtype.names == ("x", "t", "p")
    same(read_events(file(tmp_path, "c.csv", rows("txp")), columns="txp"), fields="xtp")
    np.save(tmp_path / "d.npy", np.stack([EVENTS["t"], EVENTS["x"], EVENTS["p"]], axis=1).astype(np.int64))
    same(read_events(tmp_path / "d.npy", columns="txp"), fields="xtp")
    np.savez(tmp_path / "e.npz", timestamp=EVENTS["t"], x=EVENTS["x"], pol=EVENTS["p"])
    same(read_events(tmp_path / "e.npz"), fields="xtp")
    with pytest.raises(RecordingError, match=r"a\.csv: event 0: \(x=3, y=4\) is off the sensor of 39 x 1"):
        read_events(path)


def test_archives_of_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", events=EVENTS)
    same(read_events(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", np.stack([EVENTS[field] for field in "xytp"], axis=1).astype(np.int64))
    same(read_events(tmp_path / "b.npz", columns="xytp"))
    np.savez(tmp_path / "c.npz", t=EVENTS["t"], x=EVENTS["x"], y=EVENTS["y"][:2], p=EVENTS["p"])
    with pytest.raises(RecordingError, match=r"c\.npz: expected columns of one length, got .*'y': \(2,\)"):
        read_events(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", np.array([{}], object))
    with pytest.raises(RecordingError, match=r"d\.npz: not a complete NumPy archive: .*allow_pickle"):
        read_events(tmp_path / "d.npz")


def test_mvsecs_tables(tmp_path):
    mvsec(tmp_path / "a.hdf5")
    same(read_events(tmp_path / "a.hdf5"))
    with h5py.File(tmp_path / "a.hdf5", "a") as opened:
        opened["davis/right/events"] = opened["davis/left/events"][:2]
    with pytest.raises(RecordingError, match=r"got in \['davis/left/events', 'davis/right/events'\]; set place"):
        read_events(tmp_path / "a.hdf5")
    same(read_events(tmp_path / "a.hdf5", place="davis/right/events"), EVENTS[:2])
    with pytest.raises(RecordingError, match=r"expected 'davis/middle', as place says, got \['davis'\]"):
        read_events(tmp_path / "a.hdf5", place="davis/middle")


def test_a_table_anywhere_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["mine"] = np.stack([EVENTS[field] for field in "ptxy"], axis=1).astype(np.int64)
    same(read_events(tmp_path / "a.h5", place="mine", columns="ptxy"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("stated", [False, True])
def test_the_two_orders_of_evt21(tmp_path, legacy, stated):
    order = f"% endianness {'legacy' if legacy else 'little'}\n".encode() if stated else b""
    header = b"% evt 2.1\n% geometry 16x12\n" + order
    same(read_events(file(tmp_path, "a.raw", evt21(header=header, legacy=legacy))))


def test_vectors_of_evt21(tmp_path):
    words = [8 << 60, 1 << 60 | 5 << 54 | 64 << 43 | 3 << 32 | 0b1011, 6 << 54 | 0x80000001]
    header = b"% format EVT21;endianness=little;height=320;width=320\n"
    events = read_events(file(tmp_path, "a.raw", header + struct.pack("<3Q", *words)))
    assert events["x"].tolist() == [64, 65, 67, 0, 31]
    assert events["t"].tolist() == [5, 5, 5, 6, 6]
    assert events["p"].tolist() == [1, 1, 1, 0, 0]


def test_an_order_that_cannot_be_told_is_refused(tmp_path):
    header = b"% evt 2.1\n"
    with pytest.raises(RecordingError, match="expected endianness=little or endianness=legacy in the header"):
        read_events(file(tmp_path, "a.raw", header + struct.pack("<2Q", 1, 1)))


# Faulty events.


@pytest.mark.parametrize("name", FORMATS)
def test_events_off_the_sensor_are_dropped_and_counted(tmp_path, name):
    path = write(tmp_path, name)
    smaller = (15, 12, 2)
    if name.endswith(".aedat"):
        pytest.skip("the size of an AEDAT file is that of its camera")
    with pytest.warns(UserWarning, match=r"faults dropped: 1; the first: .*(event 3|is off the sensor)"):
        events = read_events(path, sensor_size=smaller, on_error="drop")
    same(events, np.delete(EVENTS, 3))


@pytest.mark.parametrize("name", ["a.csv", "a.raw", "b.raw", "c.raw", "a.dat", "a.npy", "a.npz", "a.h5", "a.es"])
def test_what_is_off_a_stated_sensor_is_dropped(tmp_path, name):
    events = EVENTS.copy()
    events["x"][2] = 17
    path = write(tmp_path, name, events)
    with pytest.raises(RecordingError):
        read_events(path, sensor_size=SIZE)
    with pytest.warns(UserWarning, match="faults dropped: 1"):
        same(read_events(path, sensor_size=SIZE, on_error="drop"), np.delete(EVENTS, 2))


@pytest.mark.parametrize("name", ["a.csv", "b.raw", "a.dat", "a.npy", "a.npz", "a.h5", "a.bin", "c.aedat"])
def test_the_fewest_events_are_dropped_for_order(tmp_path, name):
    events = np.repeat(EVENTS, 2)
    events["t"] = [1, 2, 3, 9000, 4, 5, 6, 2, 7, 8, 9, 10]  # one leap ahead, one step back
    path = write(tmp_path, name, events)
    with pytest.warns(UserWarning, match=r"faults dropped: 2.* event 4: the time goes back, from 9000 to 4"):
        same(read_events(path, on_error="drop"), np.delete(events, [3, 7]))


def test_lines_that_are_no_numbers_are_dropped(tmp_path):
    content = csv().decode().splitlines()
    content[3:3] = ["oops", "1,2", "nan,1,1,1", "180.5,1,1,1", "180,3,3,7", "180,99999,3,1"]
    path = file(tmp_path, "a.csv", "\n".join(content))
    with pytest.warns(UserWarning, match=r"faults dropped: 6.* first: line 4: expected 4 numbers, got 'oops'"):
        same(read_events(path, on_error="drop"))


def test_unknown_words_and_cuts_are_dropped(tmp_path):
    header = b"% evt 2.0\n% geometry 16x12\n"
    content = header + struct.pack("<I", 3 << 28) + evt2(header=b"") + b"\0\0"
    with pytest.warns(UserWarning, match=r"faults dropped: 2.* first: byte \d+: expected words of 4 bytes"):
        same(read_events(file(tmp_path, "a.raw", content), on_error="drop"))
    path = file(tmp_path, "b.raw", evt3(header=b"% evt 3.0\n") + struct.pack("<H", 1 << 12))
    with pytest.warns(UserWarning, match=r"faults dropped: 1.* first: byte \d+ \(after event 6\): a word of"):
        same(read_events(path, on_error="drop"))


def test_nothing_but_faulty_events(tmp_path):
    path = file(tmp_path, "a.csv", "t,x,y,p\n0,0,0,5\n")
    with pytest.raises(RecordingError, match=r"got none; faults dropped: 1.* first: event 0: expected a valid"):
        read_events(path, on_error="drop")
    with pytest.raises(ValueError, match=r"^on_error: expected 'raise' or 'drop', got 'skip'"):
        read_events(path, on_error="skip")


def test_clocks_that_step_back_a_little_stand_still(tmp_path):
    events = EVENTS.copy()
    events["t"] = [100, 200, 195, 198, 300, 290]
    for name in ("b.raw", "a.csv", "a.npy", "a.dat"):
        path = write(tmp_path, name, events)
        with pytest.raises(RecordingError, match="event 2: the time goes back, from 200 to 195"):
            read_events(path, clock_tolerance=4)
        assert read_events(path, clock_tolerance=10)["t"].tolist() == [100, 200, 200, 200, 300, 300]
    with pytest.raises(ValueError, match=r"^clock_tolerance: expected an integer in"):
        read_events(path, clock_tolerance=-1)


LONG = np.tile(EVENTS, 6).astype(EVENT_DTYPE)
LONG["t"] += np.repeat(np.arange(6) * 100_000, len(EVENTS))


class Own(nd.EventDataset):
    def __init__(self):
        super().__init__("own", "all", SIZE, ["a", "b"], [0, 1] * 4, fingerprint="1")

    def events(self, position):
        events = LONG.copy()
        if position == 5:
            events["x"][1], events["p"][2], events["t"][3] = 99, 7, 1
        return events


def test_faulty_events_of_sets_are_dropped_and_reported_each_time(tmp_path):
    for name in ("left", "right"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "mine" / name / f"{number}.csv").write_bytes(csv(LONG))
    bad = tmp_path / "mine" / "right" / "1.csv"
    bad.write_bytes(csv(LONG).replace(b"\n180,12,9,1", b"\n180,12,9,8"))
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"faults dropped: 1.* first: .*1\.csv: event 2: expected a valid p"):
            recordings = EventFolder(tmp_path / "mine", on_error="drop", cache=tmp_path)
        assert [len(recordings[position][0]) for position in range(4)] == [36, 36, 36, 35]
        with pytest.warns(UserWarning, match=r"faults dropped: 3.* first: own all, recording 5: event 2: exp"):
            train, _, test = nd.loaders(Own(), on_error="drop", val_fraction=0, cache=tmp_path)
        assert sum(float(frames.sum()) for loader in (train, test) for frames, _ in loader) == 8 * 36 - 3
    with pytest.raises(RecordingError, match="own all, recording 5: events: expected ascending times"):
        nd.loaders(Own(), val_fraction=0, cache=tmp_path)


def test_folders_of_tables_share_their_options(tmp_path):
    for name in ("left", "right"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "0.csv").write_text("t,x@16,y@12,p\n" + rows(t=lambda t: f"{t / 1e6:.6f}"))
        (tmp_path / "mine" / name / "notes.txt").write_text("recorded by me\n")
    with pytest.warns(UserWarning, match=r"files that are not read: 2 \(\.txt 2\)"):
        recordings = EventFolder(tmp_path / "mine", time_unit="s", cache=tmp_path)
    same(recordings[1][0])


@settings(max_examples=examples(ci=40, thorough=1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(FORMATS),
    times=st.lists(st.integers(0, (1 << 22) - 1), min_size=1, max_size=40),
    seed=st.integers(0, 1 << 16),
    bins=st.integers(1, 7),
)
def test_what_is_written_is_what_is_read_cached_and_counted(tmp_path_factory, name, times, seed, bins):
    folder = tmp_path_factory.mktemp("written")
    rng = np.random.default_rng(seed)
    events = np.zeros(len(times), EVENTS.dtype)
    events["t"] = np.sort(times)
    events["x"], events["y"] = rng.integers(WIDTH, size=len(times)), rng.integers(HEIGHT, size=len(times))
    events["p"] = rng.random(len(times)) < 0.5
    for label in ("a", "b"):
        (folder / "set" / label).mkdir(parents=True)
        write(folder / "set" / label, name, events)
    recordings = EventFolder(folder / "set", sensor_size=(256, 256, 2), cache=folder)
    same(recordings[1][0], events)
    frames = to_frames(recordings[0][0], (256, 256, 2), n_time_bins=bins)
    expected = np.zeros_like(frames)
    last = int(events["t"][-1]) - int(events["t"][0]) + 1
    for x, y, t, p in events.tolist():
        expected[(t - int(events["t"][0])) * bins // last, int(p), y, x] += 1
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize(("t", "unit"), [(2**58, "s"), (2**44, "s"), (2**50, "ms")])
def test_times_that_do_not_fit_are_refused(tmp_path, t, unit):
    np.save(tmp_path / "a.npy", np.array([(1, 1, 0, 1), (1, 1, t, 1)], [(field, "i8") for field in "xytp"]))
    with pytest.raises(RecordingError, match=rf"event 1: expected a time within 2\*\*56 µs, in {unit}, got {t}"):
        read_events(tmp_path / "a.npy", time_unit=unit)


def test_offsets_that_do_not_fit_are_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as opened:
        for field in "xytp":
            opened[f"events/{field}"] = [1, 1]
        opened["t_offset"] = 2**63 - 2
    with pytest.raises(RecordingError, match=r"a\.h5: expected t_offset to be an integer within 2\*\*56"):
        read_events(tmp_path / "a.h5")


def test_integers_and_decimals_in_ns_are_one_time(tmp_path):
    lines = "t (ns),x,y,p\n1499,1,1,1\n1500,1,1,1\n1999,1,1,1\n"
    whole = read_events(file(tmp_path, "a.csv", lines))
    decimal = read_events(file(tmp_path, "b.csv", lines + "9000.0,1,1,1\n"))
    assert whole["t"].tolist() == [1, 2, 2] == decimal["t"][:3].tolist()


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_columns_of_tables_with_names_are_refused(tmp_path, name):
    path = write(tmp_path, name)
    with pytest.raises((RecordingError, ValueError), match="columns"):
        read_events(path, columns="pyxt")


def test_tables_of_pandas_are_read(tmp_path):
    lines = rows().splitlines()
    numbered = "\n".join(f"{number},{line}" for number, line in enumerate(lines))
    same(read_events(file(tmp_path, "a.csv", f",t,x,y,p\n{numbered}\n")))
    with pytest.raises(RecordingError, match=r"x, y, t and p, one each, got .*; x may be named xs, y may be named ys"):
        read_events(file(tmp_path, "b.csv", "col,row,t,p\n1,1,1,1\n"))
