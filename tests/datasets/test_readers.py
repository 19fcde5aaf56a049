"""Readers of event files: intact ones are read exactly, damaged ones never."""

import struct
from pathlib import Path

import numpy as np
import pytest
from event_files import EVENTS, FORMATS, aedat2, aedat3, csv, dat, es, evt2, evt3, file, hdf5, nmnist, write
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from neuromorphic_datasets import EVENT_DTYPE, RecordingError, read_events
from neuromorphic_datasets.readers import read_recording


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_back_its_events(tmp_path, name):
    events = read_events(write(tmp_path, name))
    assert events.dtype == EVENT_DTYPE
    np.testing.assert_array_equal(events, EVENTS)


@pytest.mark.parametrize("name", FORMATS)
def test_random_recordings(tmp_path, name):
    rng = np.random.default_rng(3)
    events = np.zeros(1000, EVENT_DTYPE)
    events["x"], events["y"], events["p"] = (
        rng.integers(16, size=1000),
        rng.integers(12, size=1000),
        rng.random(1000) < 0.5,
    )
    events["t"] = 50 + np.sort(rng.integers(1 << 22, size=1000))
    np.testing.assert_array_equal(read_events(write(tmp_path, name, events)), events)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, (16, 12, 2)) for name in ("a.raw", "a.dat", "a.es", "a.csv", "a.aedat4")),
        *((name, None) for name in ("b.dat", "a.bin", "a.npy", "a.h5")),
        ("a.aedat", (240, 180, 2)),
        ("b.aedat", (128, 128, 2)),
        ("c.aedat", (128, 128, 2)),
    ],
)
def test_the_sensor_that_a_file_states(tmp_path, name, size):
    assert read_recording(write(tmp_path, name)).sensor_size == size


def test_headers_of_either_kind(tmp_path):
    for header in (b"% format EVT3;height=12;width=16\n% end\n", b"% evt 3.0\n% geometry 16x12\n"):
        assert read_recording(file(tmp_path, "a.raw", evt3(header=header))).sensor_size == (16, 12, 2)
    assert read_recording(file(tmp_path, "a.raw", evt2(header=b"% format EVT2\n"))).sensor_size is None


@pytest.mark.parametrize(
    "header",
    [
        "% format EVT3;height= 12;width = 16 ",
        "% evt 3.0\n% width  16 \n% height   12 ",
        "% evt 3.0\n% geometry  16 x 12 ",
    ],
)
def test_spaces_around_a_side_are_no_part_of_it(tmp_path, header):
    path = file(tmp_path, "a.raw", evt3(header=f"{header}\n% end\n".encode()))
    assert read_recording(path).sensor_size == (16, 12, 2)
    path = file(tmp_path, "a.dat", dat().replace(b"Width 16", b"Width  16 "))
    assert read_recording(path).sensor_size == (16, 12, 2)


@pytest.mark.parametrize("side", ["1A", "-16"])
def test_a_sensor_that_is_no_numbers_is_refused(tmp_path, side):
    headers = (
        f"% format EVT3;height=12;width={side}",
        f"% evt 3.0\n% width {side}\n% height 12",
        "% evt 3.0\n% geometry 16",
    )
    for header in headers[side == "-16" :]:
        path = file(tmp_path, "a.raw", evt3(header=f"{header}\n% end\n".encode()))
        with pytest.raises(RecordingError, match=r"a\.raw: expected the sensor's width and height in the header, got "):
            read_recording(path)
    path = file(tmp_path, "a.dat", dat().replace(b"Width 16", f"Width {side}".encode()))
    assert side.encode() in path.read_bytes()
    with pytest.raises(RecordingError, match=r"a\.dat: expected the sensor's width and height in the header, got "):
        read_recording(path)


def test_vectors_of_twelve_and_eight_pixels(tmp_path):
    words = [8 << 12, 6 << 12 | 5, 0 << 12 | 2, 3 << 12 | 1, 4 << 12 | 0b100000000011, 5 << 12 | 0b101]
    path = file(tmp_path, "a.raw", b"% evt 3.0\n" + struct.pack("<6H", *words))
    events = read_events(path)
    assert events["x"].tolist() == [1, 2, 12, 13, 15]
    assert set(events[["y", "t", "p"]].tolist()) == {(2, 5, False)}


@pytest.mark.parametrize(("writer", "name", "bits"), [(evt3, "a.raw", 24), (evt2, "a.raw", 34), (dat, "a.dat", 32)])
def test_times_that_wrap_around_are_continued(tmp_path, writer, name, bits):
    events = np.repeat(EVENTS[:1], 4)
    events["t"] = np.array([-40, -3, 5, 600]) + (1 << bits)
    expected = events["t"]
    t = read_events(file(tmp_path, name, writer(events)))["t"]
    np.testing.assert_array_equal(t, expected)


def test_aedat3_overflow_counter(tmp_path):
    assert read_events(file(tmp_path, "a.aedat", aedat3(overflow=1)))["t"][0] == EVENTS["t"][0] + (1 << 31)


def test_nmnist_overflow_events(tmp_path):
    first, overflow, second = nmnist(EVENTS[:1]), bytes([0, 240, 0, 0, 0]), nmnist(EVENTS[:1])
    assert read_events(file(tmp_path, "a.bin", first + overflow + second))["t"].tolist() == [100, 100 + 2**13]


@pytest.mark.parametrize("header", ["t,x,y,p", "timestamp, x, y, polarity", "T;X;Y;ON", "t x y p"])
def test_names_and_separators_of_csv(tmp_path, header):
    separator = ";" if ";" in header else "," if "," in header else " "
    content = csv(header="").decode().replace(",", separator)
    np.testing.assert_array_equal(read_events(file(tmp_path, "a.csv", f"{header}\n{content}".encode())), EVENTS)


def test_columns_without_names(tmp_path):
    path = file(tmp_path, "a.csv", csv(header=""))
    with pytest.raises(RecordingError, match=r"a\.csv: expected column names .*'100,3,4,1'; .* or set columns"):
        read_events(path)
    np.testing.assert_array_equal(read_events(path, columns="txyp"), EVENTS)
    plain = np.stack([EVENTS[field].astype(np.int64) for field in "ptyx"], axis=1)
    np.save(tmp_path / "a.npy", plain)
    with pytest.raises(RecordingError, match=r"a\.npy: expected an array with the fields .* set columns if"):
        read_events(tmp_path / "a.npy")
    np.testing.assert_array_equal(read_events(tmp_path / "a.npy", columns="ptyx"), EVENTS)


def test_polarities_of_minus_one_are_off(tmp_path):
    content = csv().replace(b",0\n", b",-1\n")
    np.testing.assert_array_equal(read_events(file(tmp_path, "a.csv", content)), EVENTS)


@pytest.mark.parametrize(("place", "split"), [("", True), ("events", True), ("CD/events", False), ("events", False)])
def test_places_in_hdf5(tmp_path, place, split):
    hdf5(tmp_path / "a.h5", place=place, split=split)
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5"), EVENTS)


def test_dsecs_offset_of_time(tmp_path):
    import h5py

    hdf5(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as opened:
        opened["t_offset"] = 10**12
    assert read_events(tmp_path / "a.h5")["t"][0] == 10**12 + 100


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("a.bin", "a.csv", "b.csv", "a.txt")])
def test_a_mislabelled_ending_does_not_matter(tmp_path, name):
    path = write(tmp_path, name)
    other = path.with_suffix(".raw" if path.suffix != ".raw" else ".npy")
    path.rename(other)
    np.testing.assert_array_equal(read_events(other), EVENTS)


@pytest.mark.parametrize("ending", [".raw", ".dat", ".es", ".aedat", ".aedat4", ".npy", ".h5", ".txt", ""])
@pytest.mark.parametrize("content", ["zeros", "random"])
def test_files_that_are_not_recordings_are_refused(tmp_path, ending, content):
    data = bytes(1000) if content == "zeros" else np.random.default_rng(0).bytes(1000)
    with pytest.raises(RecordingError, match=r"expected a recording .* got a file that starts with"):
        read_events(file(tmp_path, f"a{ending}", data))


@pytest.mark.parametrize("ending", [".bin", ".csv"])
@pytest.mark.parametrize("size", [5, 1000])
def test_zeros_and_noise_are_not_recordings(tmp_path, ending, size):
    for seed in (None, 0, 1):
        data = bytes(size) if seed is None else np.random.default_rng(seed).bytes(size)
        if ending == ".bin" and size == 5 and seed is not None:
            continue  # one event of any values is possible
        with pytest.raises(RecordingError, match=f"a{ending}: "):
            read_events(file(tmp_path, f"a{ending}", data))


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_file_is_named(tmp_path, name):
    with pytest.raises(RecordingError, match=f"{name}: the file is empty"):
        read_events(file(tmp_path, name, b""))


def test_a_folder_or_nothing_in_place_of_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a file, got a folder"):
        read_events(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a file, got nothing"):
        read_events(tmp_path / "missing.raw")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "a.aedat4"])
def test_a_recording_without_events_is_named(tmp_path, name):
    with pytest.raises(RecordingError, match=rf"{name}: (expected at least one event|the file is empty)"):
        read_events(write(tmp_path, name, EVENTS[:0]))


@pytest.mark.parametrize("name", FORMATS)
def test_truncation_is_reported_or_leaves_a_correct_part(tmp_path, name):
    """A file cut between two events looks complete; but no event may be invented or changed."""
    content = write(tmp_path, name).read_bytes()
    cut = tmp_path / f"cut{Path(name).suffix}"
    outcomes = set()
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        try:
            events = read_events(cut)
        except RecordingError as error:
            assert str(cut) in str(error)
            outcomes.add("refused")
        else:
            assert 0 < len(events) <= len(EVENTS)
            if name in ("a.csv", "b.csv", "a.txt"):  # a number cut in its last digit is another number
                events = events[:-1]
            np.testing.assert_array_equal(events, EVENTS[: len(events)])
            outcomes.add("part")
    assert "refused" in outcomes


@pytest.mark.parametrize(
    ("name", "excess", "message"),
    [
        ("a.raw", 1, r"byte \d+: expected words of 2 bytes to the end, got 1 more"),
        ("b.raw", 3, r"byte \d+: expected words of 4 bytes to the end, got 3 more"),
        ("a.dat", 5, r"byte \d+: expected words of 8 bytes to the end, got 5 more"),
        ("a.es", 1, r"byte \d+ \(after event 6\): the recording ends within an event"),
        ("a.bin", 2, r"byte 30: expected words of 5 bytes to the end, got 2 more"),
        ("a.aedat", 7, r"byte \d+: expected words of 8 bytes to the end, got 7 more"),
        ("c.aedat", 20, r"byte \d+: the file ends within a packet's header"),
    ],
)
def test_the_byte_of_a_cut_is_reported(tmp_path, name, excess, message):
    path = write(tmp_path, name)
    with open(path, "ab") as opened:
        opened.write(bytes([2]) * excess)
    with pytest.raises(RecordingError, match=message):
        read_events(path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("a.es", "a.aedat4")])
def test_times_out_of_order_are_reported(tmp_path, name):
    events = EVENTS.copy()
    events["t"] = [100, 200, 300_000, 250, 300_001, 300_002]
    with pytest.raises(RecordingError, match=r"event 3\)?: the time goes back"):
        read_events(write(tmp_path, name, events))


@pytest.mark.parametrize("name", ["a.raw", "b.raw", "a.dat", "a.csv", "a.es"])
def test_coordinates_off_the_sensor_are_reported(tmp_path, name):
    events = EVENTS.copy()
    events["x"][2] = 17
    with pytest.raises(RecordingError, match=r"(event 2.*off the sensor|event 2\): a coordinate is off the sensor)"):
        read_events(write(tmp_path, name, events))


def test_the_callers_sensor_is_checked_too(tmp_path):
    with pytest.raises(RecordingError, match=r"event 2: \(x=12, y=9\) is off the sensor of 10 x 10 pixels"):
        read_events(write(tmp_path, "a.bin"), sensor_size=(10, 10, 2))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.raw", b"% evt 3.0\n" + struct.pack("<HH", 8 << 12, 1 << 12), r"byte 12 \(after event 0\): a word of an"),
        ("a.raw", b"% evt 3.0\n" + struct.pack("<HH", 8 << 12, 2 << 12), "an event comes before its row is known"),
        ("a.raw", b"% evt 2.0\n" + struct.pack("<I", 2 << 28), r"byte 10 \(after event 0\): a word of an unknown type"),
        ("a.raw", b"% evt 2.1\n", "expected endianness=little or endianness=legacy in the header"),
        ("a.raw", b"% date today\n1234", "got 1 lines of text without it"),
        ("a.dat", b"% Version 2\n" + bytes([14, 8]), "expected events of type 0 or 12 in 8 bytes, got type 14 in 8"),
        ("a.dat", b"% Version 2\n\x00\x08" + struct.pack("<II", 5, 7 << 28), r"event 0\): expected polarity 0 or 1"),
        ("a.es", es()[:12] + b"\x01" + es()[13:], "byte 12: expected version 2 of Event Stream, got 1"),
        ("a.es", es()[:15] + b"\x04" + es()[16:], r"byte 15: expected DVS events \(type 1\), got type 4"),
        ("a.aedat", aedat2(chip="some.Cochlea"), "expected a chip .*'DAVIS240'.* got Cochlea"),
        ("a.aedat", aedat3().replace(b"#!END-HEADER\r\n", b""), "expected a header of AEDAT 3.1 up to #!END-HEADER"),
        ("a.csv", b"a,b,c,d\n1,2,3,4\n", r"expected columns x, y, t and p, one each, got \['a', 'b', 'c', 'd'\]"),
        ("a.csv", b"t,x,y,p\n1,2,3,1\n1,2,3\n", "line 3: expected 4 whole numbers, got '1,2,3'"),
        ("a.csv", b"t,x,y,p\n1,2,3,high\n", "line 2: expected 4 whole numbers, got '1,2,3,high'"),
        ("a.csv", b"t,x,y,p\n1.5,2,3,1\n", "line 2: expected 4 whole numbers, got '1.5,2,3,1'; for times"),
        ("a.csv", b"t,x,y,p\n1,2,3,2\n", "event 0: expected p to be 0 or 1 in all events, or -1 or 1 in all, got 2"),
        ("a.csv", b"t,x,y,p\n1,-2,3,1\n", r"event 0: expected coordinates in \[0, 32767\], got \(x=-2, y=3\)"),
    ],
)  # fmt: skip
def test_damage_is_reported(tmp_path, name, content, message):
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(file(tmp_path, name, content))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("at", "byte", "message"),
    [
        (324, 0xB8, "byte 324: expected a header in UTF-8, got 0xb8"),
        (21, 0xFF, "byte 14: expected a header of AEDAT 4"),
    ],
)
def test_a_damaged_header_of_aedat_4_does_not_end_the_process(tmp_path, at, byte, message):
    path = write(tmp_path, "a.aedat4")
    content = bytearray(path.read_bytes())
    content[at] = byte
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        read_events(path)


@settings(max_examples=examples(ci=200, thorough=4000))
@given(
    name=st.sampled_from(FORMATS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    kept=st.floats(0, 1),
)
def test_damaged_files_neither_crash_nor_hang_nor_lie(tmp_path_factory, name, edits, kept):
    """Events read from a damaged file obey the rules of a recording."""
    folder = tmp_path_factory.mktemp("damaged")
    path = write(folder, name)
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[int(place * len(content))] = value
    path.write_bytes(content[: int(kept * len(content)) + 1])
    try:
        recording = read_recording(path)
    except RecordingError as error:
        assert str(path) in str(error)
        return
    events = recording.events.structured()
    assert len(events) > 0
    assert (np.diff(events["t"]) >= 0).all()
    assert min(events["x"].min(), events["y"].min()) >= 0
    if recording.sensor_size is not None:
        assert events["x"].max() < recording.sensor_size[0]
        assert events["y"].max() < recording.sensor_size[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"columns": "xyt"},
            ValueError,
            "^columns: expected the letters t, x, y and p in some order, y or not, such as \"txyp\", got 'xyt'",
        ),
        ({"columns": 4}, ValueError, "^columns"),
        ({"sensor_size": 34}, TypeError, "^sensor_size"),
    ],
)
def test_arguments_are_checked(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        read_events(write(tmp_path, "a.csv"), **options)
