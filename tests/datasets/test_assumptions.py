"""Properties that a recording does not state are required, and stated values are never changed by a cast."""

import struct
import sys
import types

import numpy as np
import pytest
from event_files import EVENTS, aedat2, aedat2_dvs128, aedat3, csv, dat, evt2, evt3, hdf5, npy

from neuromorphic_datasets import EventFolder, RecordingError, read_events
from neuromorphic_datasets._events import Events
from neuromorphic_datasets.readers import read_recording


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def table(events=EVENTS, **changed):
    """Return the events as float columns in a structured array, some of them changed."""
    floats = np.array(events.tolist(), [(field, "f8") for field in "xytp"])
    for field, values in changed.items():
        floats[field] = values
    return floats


def unnamed(content):
    return b"".join(line for line in content.splitlines(True) if b"AEChip" not in line)


def test_the_size_of_an_unnamed_camera_is_required(tmp_path):
    for content in (unnamed(aedat2()), unnamed(aedat2_dvs128()), b"#!AER-DAT2.0\r\n# by a simulator\r\n" + bytes(8)):
        with pytest.raises(RecordingError, match=r"a\.aedat: .*camera is unknown; .*\(346, 260, 2\) for a DAVIS346"):
            read_events(file(tmp_path, "a.aedat", content))
        with pytest.raises(RecordingError, match="its camera is unknown"):
            read_events(file(tmp_path, "a.aedat", content), sensor_size=(64, 64, 2))


@pytest.mark.parametrize(("writer", "size"), [(aedat2, (240, 180, 2)), (aedat2_dvs128, (128, 128, 2))])
def test_the_sensors_size_names_the_camera(tmp_path, writer, size):
    path = file(tmp_path, "a.aedat", unnamed(writer()))
    np.testing.assert_array_equal(read_events(path, sensor_size=size), EVENTS)
    (tmp_path / "mine" / "left").mkdir(parents=True)
    path.rename(tmp_path / "mine" / "left" / "a.aedat")
    recordings = EventFolder(tmp_path / "mine", sensor_size=size, cache=tmp_path)
    assert recordings.sensor_size == size
    assert recordings[0][0]["x"].tolist() == EVENTS["x"].tolist()


def test_a_size_does_not_outvote_the_name(tmp_path):
    path = file(tmp_path, "a.aedat", aedat2())
    np.testing.assert_array_equal(read_events(path, sensor_size=(346, 260, 2)), EVENTS)


@pytest.mark.parametrize("size", [(240, 180, 2), (346, 260, 2)])
def test_a_size_of_a_camera_with_other_addresses_contradicts_the_name(tmp_path, size):
    path = file(tmp_path, "a.aedat", aedat2_dvs128())
    with pytest.raises(RecordingError, match=rf"a\.aedat: expected sensor_size \(.*, got \({size[0]}, "):
        read_events(path, sensor_size=size)
    np.testing.assert_array_equal(read_events(path, sensor_size=(256, 256, 2)), EVENTS)


@pytest.mark.parametrize("names", ["12", "21"])
def test_sensors_of_two_sizes_need_a_stated_size(tmp_path, names):
    (tmp_path / "mine" / "left").mkdir(parents=True)
    for name, size in zip(names, ("x@16,y@12", "x@300,y@12"), strict=True):
        file(tmp_path / "mine" / "left", f"{name}.csv", csv(header=f"t,{size},p"))
    file(tmp_path / "mine" / "left", "3.csv", csv())
    with pytest.raises(RecordingError, match=r"2\.csv: expected a sensor of size \(.*, got \(.* set sensor_size"):
        EventFolder(tmp_path / "mine", cache=tmp_path)
    recordings = EventFolder(tmp_path / "mine", sensor_size=(300, 12, 2), cache=tmp_path)
    assert [len(events) for events, _ in recordings] == [6, 6, 6]


def test_addresses_of_a_davis_are_refused_for_a_dvs128(tmp_path):
    for path in (
        file(tmp_path, "a.aedat", aedat2(chip="ch.unizh.ini.jaer.chip.retina.DVS128")),
        file(tmp_path, "b.aedat", unnamed(aedat2())),
    ):
        with pytest.raises(RecordingError, match=r"byte \d+: expected an address of a DVS128, below 2\*\*16, got 0x"):
            read_events(path, sensor_size=(128, 128, 2))
    # The software's own events, with bit 31, are left out as before.
    path = file(tmp_path, "c.aedat", aedat2_dvs128() + struct.pack(">II", 1 << 31 | 1 << 20, 80_000))
    np.testing.assert_array_equal(read_events(path), EVENTS)


def two_sources():
    """AEDAT 3.1 whose second packet of polarity events is from another camera."""
    content = bytearray(aedat3())
    second = content.rindex(struct.pack("<hhii", 1, 1, 8, 4))
    content[second : second + 4] = struct.pack("<hh", 1, 2)
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.aedat", aedat3().replace(b"RAW", b"Compressed"), "expected a line '#Format: RAW' .* got format Compressed"),
        ("a.aedat", aedat3().replace(b"#Format: RAW\r\n", b""), "expected a line '#Format: RAW' .* got format None"),
        ("a.aedat", aedat2().replace(b"# created by a test", b"# Timestamps tick is 1 ms"), "ticks of 1 us, got 1 ms"),
        ("a.aedat", two_sources(), r"expected the events of one camera, got sources \[1, 2\]"),
        ("a.dat", dat().replace(b"Version 2", b"Version 3"), "expected version 1 or 2 of DAT, got '3'"),
        ("a.dat", dat().replace(b"Version 2", b"Version"), "expected version 1 or 2 of DAT, got ''"),
        ("a.raw", evt3(header=b"% evt 3.0\n% endianness big\n"), "expected little-endian words, got big"),
        ("a.csv", csv(header="t,time,x,y"), "expected columns x, y, t and p, one each"),
        ("a.csv", csv(header="x_ns,x,y,p"), "expected columns x, y, t and p, one each, got .*x_ns"),
        ("a.csv", csv().replace(b"5000,", b"0.005,"), "expected 4 whole numbers, got .*0.005"),
        ("a.csv", csv().replace(b"180,12,9,1", b"180,12,9,-1"), "event 2: expected p to be 0 or 1 in all .* got -1"),
        ("a.csv", csv(EVENTS[::-1]), "event 1: the time goes back, from 70001 to 70000"),
        ("a.csv", csv(header="t,x@16,y,p"), r"expected the sensor's size as x@WIDTH and y@HEIGHT, got {'x': '16'}"),
        ("a.csv", csv(header="t@9,x@16,y@12,p"), "expected the sensor's size as x@WIDTH and y@HEIGHT, got {'t': '9'"),
        ("a.csv", csv(header="t,x@16,y@tall,p"), "expected the sensor's size as .*'tall'"),
        ("a.csv", csv().replace(b"180,12,9", b"#180,12,9"), "expected 4 whole numbers, got '#180"),
        ("a.csv", csv().replace(b"180,12,9", b"180,12.5,9"), "expected 4 whole numbers, got '180,12.5"),
        ("a.csv", csv().replace(b"180,12,9", b"180,nan,9"), "expected 4 whole numbers, got '180,nan"),
        ("a.csv", b"t,x,y,p\n9007199254740993,1.0,1,1\n", "expected 4 whole numbers, got '9007199254740993,1.0"),
    ],
)  # fmt: skip
def test_no_assumption_is_made(tmp_path, name, content, message):
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(file(tmp_path, name, content))
    assert str(tmp_path / name) in str(caught.value)


def test_words_before_the_first_time_are_counted(tmp_path):
    header, untimed = b"% evt 3.0\n", struct.pack("<HHH", 0 << 12 | 2, 2 << 12 | 5, 2 << 12 | 6)
    path = file(tmp_path, "a.raw", header + untimed + evt3(header=b""))
    with pytest.warns(UserWarning, match=r"a\.raw: 2 words of events before the first word of time are left out"):
        np.testing.assert_array_equal(read_events(path), EVENTS)
    path = file(tmp_path, "b.raw", b"% evt 2.0\n" + struct.pack("<I", 1 << 28) + evt2(header=b""))
    with pytest.warns(UserWarning, match=r"b\.raw: 1 words of events"):
        np.testing.assert_array_equal(read_events(path), EVENTS)


def write_npy(folder, events):
    npy(folder / "a.npy", events)
    return folder / "a.npy"


def write_hdf5(folder, events):
    import h5py

    with h5py.File(folder / "a.h5", "w") as opened:
        for field in "xytp":
            opened[f"events/{field}"] = events[field]
    return folder / "a.h5"


@pytest.mark.parametrize("write", [write_npy, write_hdf5])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"t": EVENTS["t"] / 1e6}, "event 0: expected an integer t, got 0.0001"),
        ({"t": EVENTS["t"] + 1.7e18}, r"event 0: expected t in \[-.*\], got 1.7"),
        ({"t": np.nan}, "event 0: expected an integer t, got nan"),
        ({"x": [3, 0, 12.5, 15, 1, 14]}, "event 2: expected an integer x, got 12.5"),
        ({"y": [4, 70_000, 9, 11, 2, 3]}, "event 1: expected y in .* got 70000"),
        ({"p": [1, -1, 0, 1, -1, 0]}, "event 2: expected p to be 0 or 1 in all events, or -1 or 1 in all, got 0"),
        ({"p": [1, 2, 1, 2, 1, 2]}, "event 1: expected p to be 0 or 1 in all events, or -1 or 1 in all, got 2"),
        ({"p": 255}, "event 0: expected p .* got 255"),
        ({"t": [100, 100, 180, 5000, 70_000, 6]}, "event 5: the time goes back, from 70000 to 6"),
    ],
)
def test_values_that_do_not_fit_are_named(tmp_path, write, changed, message):
    path = write(tmp_path, table(**changed))
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("write", [write_npy, write_hdf5])
def test_whole_floats_and_signs_are_read(tmp_path, write):
    signs = np.where(EVENTS["p"], 1, -1)
    np.testing.assert_array_equal(read_events(write(tmp_path, table(p=signs))), EVENTS)
    off = read_events(write(tmp_path, table(p=-1)))
    assert not off["p"].any()


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("x", [40_000], r"event 0: expected x in \[-32768, 32767\], got 40000"),
        ("t", [0.5], "event 0: expected an integer t, got 0.5"),
        ("p", [2], "event 0: expected p"),
        ("y", ["4"], "expected a number as y, got <U1"),
        ("t", [1, 2], "expected columns of one length"),
    ],
)
def test_packing_changes_no_value(column, values, message):
    columns = {field: [1] for field in "xytp"} | {column: values}
    with pytest.raises((TypeError, ValueError), match=message):
        Events.compact(**columns)


def test_dsecs_offset_does_not_hide_seconds(tmp_path):
    import h5py

    path = write_hdf5(tmp_path, table(t=EVENTS["t"] / 1e6))
    with h5py.File(path, "a") as opened:
        opened["t_offset"] = 10**12
    with pytest.raises(RecordingError, match=r"event 0: expected an integer t, got 0.0001"):
        read_events(path)
    path = write_hdf5(tmp_path, EVENTS)
    with h5py.File(path, "a") as opened:
        opened["t_offset"] = 0.5
    with pytest.raises(
        RecordingError, match=r"a\.h5: expected t_offset to be an integer within 2\*\*56, in µs, got 0.5"
    ):
        read_events(path)


def test_two_places_in_hdf5_are_ambiguous(tmp_path):
    import h5py

    hdf5(tmp_path / "a.h5", place="CD/events")
    with h5py.File(tmp_path / "a.h5", "a") as opened:
        for field in "xytp":
            opened[f"events/{field}"] = EVENTS[field][:2]
    with pytest.raises(RecordingError, match=r"in one place, .* got in \['CD/events', 'events'\]; set place"):
        read_events(tmp_path / "a.h5")


def filtered(path, code):
    """Write events as with a filter that is not installed here; its name and the chunk's bytes are invented."""
    import h5py
    from h5py import h5d, h5p, h5s, h5t, h5z

    with h5py.File(path, "w") as opened:
        group = opened.create_group("CD/events")
        for field in "xytp":
            pipeline = h5p.create(h5p.DATASET_CREATE)
            pipeline.set_chunk((6,))
            pipeline.set_filter(code, h5z.FLAG_OPTIONAL)
            shape = h5s.create_simple((6,))
            h5d.create(group.id, field.encode(), h5t.NATIVE_INT64, shape, pipeline).write_direct_chunk((0,), b"bytes")
    return path


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(32001, r"pip install \".\[hdf5\]\""), (0x8ECF, "hdf5_ecf and name its folder in HDF5_PLUGIN")],
)
def test_a_missing_filter_is_not_damage(tmp_path, monkeypatch, code, remedy):
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    with pytest.raises(RecordingError, match=rf"/CD/events/\w is compressed with the HDF5 filter {code} .*{remedy}"):
        read_events(filtered(tmp_path / "a.h5", code))


def test_hdf5plugin_is_imported_where_it_is_needed(tmp_path, monkeypatch):
    from h5py import h5z

    monkeypatch.setitem(sys.modules, "hdf5plugin", types.ModuleType("hdf5plugin"))
    asked = []
    monkeypatch.setattr(h5z, "filter_avail", lambda code: asked.append(code) or len(asked) > 1)
    with pytest.raises(RecordingError, match="not a complete HDF5 file"):  # the filter is still missing
        read_events(filtered(tmp_path / "a.h5", 32001))
    assert set(asked) == {32001}


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.raw"])
def test_columns_that_have_no_effect_are_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes({"a.csv": csv, "a.raw": evt3}.get(name, bytes)())
    if name == "a.npy":
        npy(path)
    with pytest.raises(ValueError, match=r"^columns: expected None, as .* got 'xytp'"):
        read_events(path, columns="xytp")


def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path):
    for content, columns in ((csv(), None), (csv(header=""), "txyp")):
        path = file(tmp_path, "a.csv", "\ufeff".encode() + content)
        np.testing.assert_array_equal(read_events(path, columns=columns), EVENTS)


def test_the_source_of_the_packets_gives_the_size(tmp_path):
    header = b"#Source 1: DVS128\r\n"
    content = aedat3().replace(header, b"#Source 0: DAVIS346\r\n" + header)
    assert read_recording(file(tmp_path, "a.aedat", content)).sensor_size == (128, 128, 2)


@pytest.mark.parametrize("header", ["# t,x,y,p", "#t,x,y,p", '"t","x","y","p"', "'t', 'x', 'y', 'p'", "# t x y p"])
def test_headers_of_numpy_and_pandas(tmp_path, header):
    content = csv(header="")
    if "," not in header:
        content = content.replace(b",", b" ")
    np.testing.assert_array_equal(read_events(file(tmp_path, "a.csv", f"{header}\n".encode() + content)), EVENTS)


@pytest.mark.parametrize("shape", ["%.1f", "%.18e", "%d"])
@pytest.mark.parametrize("names", [True, False])
def test_tables_of_savetxt(tmp_path, shape, names):
    columns = np.stack([EVENTS[field].astype(float) for field in "txyp"], axis=1)
    np.savetxt(tmp_path / "a.csv", columns, shape, delimiter=",", header="t,x,y,p" if names else "")
    np.testing.assert_array_equal(read_events(tmp_path / "a.csv", columns=None if names else "txyp"), EVENTS)
