"""Writers of event files that follow the published descriptions of the formats, not our readers."""

import struct

import numpy as np

EVENTS = np.array(
    [(3, 4, 100, 1), (0, 0, 100, 0), (12, 9, 180, 1), (15, 11, 5000, 0), (1, 2, 70_000, 1), (14, 3, 70_001, 0)],
    dtype=[("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")],
)
"""Six events of a sensor of 16 x 12 pixels."""
WIDTH, HEIGHT = 16, 12


def evt2(events=EVENTS, header=b"% evt 2.0\n% geometry 16x12\n"):
    words, high = [], None
    for x, y, t, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 28 | high & 0xFFFFFFF)
        words.append(int(p) << 28 | (t & 0x3F) << 22 | x << 11 | y)
    words.append(0xA << 28)  # a trigger, which is not an event of the sensor
    return header + struct.pack(f"<{len(words)}I", *words)


def evt21(events=EVENTS, header=b"% evt 2.1\n% format EVT21;endianness=little;height=12;width=16\n", legacy=False):
    words, high = [], None
    for x, y, t, p in events.tolist():
        if t >> 6 != high:
            high = t >> 6
            words.append(0x8 << 60 | (high & 0xFFFFFFF) << 32)
        words.append(int(p) << 60 | (t & 0x3F) << 54 | (x & ~31) << 43 | y << 32 | 1 << (x & 31))
    words.append(0xA << 60)
    if legacy:  # the upper half of a word first
        words = [word >> 32 | (word & 0xFFFFFFFF) << 32 for word in words]
    return header + struct.pack(f"<{len(words)}Q", *words)


def evt3(events=EVENTS, header=b"% evt 3.0\n% geometry 16x12\n", vectors=True):
    words, state = [], {}
    for x, y, t, p in events.tolist():
        for kind, value in ((8, t >> 12 & 0xFFF), (6, t & 0xFFF), (0, y)):
            if state.get(kind) != value or (kind == 6 and state.get("t") != t):
                state[kind] = value
                words.append(kind << 12 | value)
        state["t"] = t
        if p and vectors:  # a vector of one event, of eight pixels, beginning two pixels before it where possible
            base = max(0, x - 2)
            words += [3 << 12 | 1 << 11 | base, 5 << 12 | 1 << (x - base)]
        else:
            words.append(2 << 12 | int(p) << 11 | x)
    words += [0xA << 12, 0xE << 12, 0x7 << 12, 0xF << 12]
    return header + struct.pack(f"<{len(words)}H", *words)


def dat(events=EVENTS, header=b"% Data file containing CD events.\n% Version 2\n% Height 12\n% Width 16\n"):
    body = b"".join(struct.pack("<II", t & 0xFFFFFFFF, x | y << 14 | int(p) << 28) for x, y, t, p in events.tolist())
    return header + bytes([12, 8]) + body


def dat1(events=EVENTS):
    body = b"".join(struct.pack("<II", t, x | y << 9 | int(p) << 17) for x, y, t, p in events.tolist())
    return b"% Data file containing TD events.\n% Version 1\n" + bytes([0, 8]) + body


def es(events=EVENTS):
    body, before = b"", 0
    for x, y, t, p in events.tolist():
        delta = t - before
        body += b"\xff" * (delta // 127) + bytes([delta % 127 << 1 | int(p)])
        body += struct.pack("<HH", x, HEIGHT - 1 - y)
        before = t
    return b"Event Stream" + bytes([2, 0, 0, 1]) + struct.pack("<HH", WIDTH, HEIGHT) + body


def nmnist(events=EVENTS):
    return b"".join(bytes([x, y, int(p) << 7 | t >> 16, t >> 8 & 255, t & 255]) for x, y, t, p in events.tolist())


def csv(events=EVENTS, header="t,x@16,y@12,on"):
    lines = [header] if header else []
    return "".join(f"{line}\n" for line in lines + [f"{t},{x},{y},{int(p)}" for x, y, t, p in events.tolist()]).encode()


def rpg(events=EVENTS):
    """The Event Camera Dataset's events.txt, with the sensor's size in the first line."""
    return "".join(
        [f"{WIDTH} {HEIGHT}\n", *(f"{t / 1e6:.9f} {x} {y} {int(p)}\n" for x, y, t, p in events.tolist())]
    ).encode()


def metavision(events=EVENTS):
    lines = [f"%geometry:{WIDTH},{HEIGHT}", *(f"{x},{y},{int(p)},{t}" for x, y, t, p in events.tolist())]
    return "".join(f"{line}\n" for line in lines).encode()


def aedat2(events=EVENTS, chip="eu.seebetter.ini.chips.davis.DAVIS240C"):
    """A DAVIS240, whose rows count upwards and whose columns are mirrored, with words of its frames in between."""
    header = f"#!AER-DAT2.0\r\n# created by a test\r\n# AEChip: {chip}\r\n#End Of ASCII Header\r\n".encode()
    body = b""
    for x, y, t, p in events.tolist():
        body += struct.pack(">II", 179 - y << 22 | 239 - x << 12 | int(p) << 11, t)
        body += struct.pack(">II", 1 << 31 | 5 << 12, t)
    return header + body


def aedat2_dvs128(events=EVENTS):
    header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    return header + b"".join(
        struct.pack(">II", 127 - y << 8 | 127 - x << 1 | int(p), t) for x, y, t, p in events.tolist()
    )


def aedat3(events=EVENTS, overflow=0):
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2020-01-01 00:00:00 (TZ+0000)\r\n"
    header += b"#!END-HEADER\r\n"
    body = b""
    for start in range(0, len(events), 4):
        part = events[start : start + 4].tolist()
        words = [struct.pack("<Ii", x << 17 | y << 2 | int(p) << 1 | 1, t) for x, y, t, p in part]
        words.append(struct.pack("<Ii", 9 << 17, part[-1][2]))  # an invalid one
        body += struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(words), len(words), len(part)) + b"".join(words)
        # A packet of another type, three events of twelve bytes.
        body += struct.pack("<hhiiiiii", 0, 1, 12, 4, overflow, 3, 2, 2) + bytes(36)
    return header + body


def npy(path, events=EVENTS):
    np.save(path, events)


def npz(path, events=EVENTS):
    np.savez_compressed(path, **{name: events[name].astype(np.int64) for name in "txyp"})


def mvsec(path, events=EVENTS):
    import h5py

    table = np.stack([events["x"], events["y"], events["t"] / 1e6, np.where(events["p"], 1.0, -1.0)], axis=1)
    with h5py.File(path, "w") as file:
        file["davis/left/events"] = table


def hdf5(path, events=EVENTS, place="events", split=True):
    import h5py

    with h5py.File(path, "w") as file:
        if split:
            group = file if place == "" else file.create_group(place)
            for name in "xytp":
                group[name] = events[name].astype(np.int64)
        else:
            file[place] = events


def aedat4(path, events=EVENTS):
    import faery

    array = np.zeros(len(events), [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), (("p", "on"), "?")])
    for name in "txyp":
        array[name] = events[name]
    faery.events_stream_from_array(array, dimensions=(WIDTH, HEIGHT)).to_file(str(path))


BINARY = {
    "a.raw": evt3,
    "b.raw": evt2,
    "c.raw": evt21,
    "a.dat": dat,
    "b.dat": dat1,
    "a.es": es,
    "a.bin": nmnist,
    "a.csv": csv,
    "b.csv": metavision,
    "a.txt": rpg,
    "a.aedat": aedat2,
    "b.aedat": aedat2_dvs128,
    "c.aedat": aedat3,
}
"""Writers that return bytes, by file name."""
ON_DISK = {"a.npy": npy, "a.npz": npz, "a.h5": hdf5, "b.h5": mvsec, "a.aedat4": aedat4}
"""Writers that take the path, by file name."""


def write(folder, name, events=EVENTS):
    """Write the events in the format of a name from `BINARY` or `ON_DISK`; return the path."""
    path = folder / name
    if name in BINARY:
        path.write_bytes(BINARY[name](events))
    else:
        ON_DISK[name](path, events)
    return path


SIZE = (WIDTH, HEIGHT, 2)
FORMATS = [*BINARY, *ON_DISK]


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def same(events, expected=EVENTS, fields="xytp"):
    for field in fields:
        np.testing.assert_array_equal(events[field], expected[field])


def rows(order="txyp", separator=",", **shown):
    """Return the lines of the events, each field shown in its own way."""
    kinds = {field: shown.get(field, int) for field in "xytp"}
    return "".join(separator.join(str(kinds[field](event[field].item())) for field in order) + "\n" for event in EVENTS)
