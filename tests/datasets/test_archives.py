"""Archives that are damaged or reach outside, and sets that are fetched, unpacked, verified and cleared."""

import gzip
import hashlib
import io
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from dataclasses import replace

import pytest
from event_files import EVENTS, nmnist
from servers import DATA, good, left_in

import neuromorphic_datasets as nd
from neuromorphic_datasets import _archive, sets
from neuromorphic_datasets._download import RemoteFile


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files, **fields):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def by_name(value):
    """Return the name of a case: the content of archives differs with the time."""
    return value if isinstance(value, str) else "archive"


FILES = {"a/1.txt": b"one", "a/b/2.txt": b"two" * 1000}


@pytest.mark.parametrize(
    ("name", "content", "files"),
    [
        ("x.zip", zipped(FILES), FILES),
        ("x.tar.gz", tarred(FILES), FILES),
        ("x.gz", gzip.compress(b"whole"), {"x": b"whole"}),
        ("x.zip", zipped({"in/y.zip": zipped(FILES)}), {f"in/{name}": content for name, content in FILES.items()}),
    ],
    ids=by_name,
)
def test_archives_are_unpacked_whole(tmp_path, name, content, files):
    (tmp_path / name).write_bytes(content)
    _archive.unpack(tmp_path / name, None)
    unpacked = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {key: value for key, value in unpacked.items() if not key.startswith(".")} == files
    manifest = _archive.manifest_path(tmp_path / name)
    assert _archive.damaged_files(manifest) == []
    first = sorted(files)[0]
    (tmp_path / first).write_bytes(b"onf")
    assert _archive.damaged_files(manifest) == [first]
    (tmp_path / first).unlink()
    assert _archive.damaged_files(manifest) == [first]


def linked_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", zipped({"ok": b"1", "../evil": b"2"})),
        ("x.zip", zipped({"/evil": b"2"})),
        ("x.zip", zipped({"a/../../evil": b"2"})),
        ("x.zip", linked_zip()),
        ("x.tar.gz", tarred({"../evil": b"2"})),
        ("x.tar.gz", tarred({"/evil": b"2"})),
        ("x.tar.gz", tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        ("x.tar.gz", tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="ok")),
        ("x.tar.gz", tarred({"pipe": b""}, type=tarfile.FIFOTYPE)),
    ],
    ids=by_name,
)
def test_archives_that_reach_outside_are_refused(tmp_path, name, content):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(_archive.UnsafeArchiveError):
        _archive.unpack(folder / name, None)
    assert left_in(folder) == {name}
    assert left_in(tmp_path) == {"in"}


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.zip", zipped(FILES)), ("x.tar.gz", tarred(FILES)), ("x.gz", gzip.compress(DATA))],
    ids=by_name,
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "zeros"])
def test_damaged_archives_leave_nothing(tmp_path, name, content, damage):
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 0xFF
    bad = {"cut": content[: len(content) // 2], "flipped": bytes(flipped), "zeros": bytes(len(content))}[damage]
    (tmp_path / name).write_bytes(bad)
    with pytest.raises(ValueError, match=f"{name}: damaged"):
        _archive.unpack(tmp_path / name, None)
    assert left_in(tmp_path) == {name}


@pytest.fixture
def catalogue(server, monkeypatch):
    """N-MNIST's entry with small archives on the test's server."""
    archives = {
        "train": zipped({f"Train/{digit}/{i:05}.bin": nmnist() for digit in (3, 7) for i in range(4)}),
        "test": zipped({f"Test/{digit}/00001.bin": nmnist(EVENTS[:4]) for digit in (3, 7)}),
    }
    files = []
    for split, content in archives.items():
        server.plays[split] = [lambda handler, content=content: good(handler, content)]
        md5 = hashlib.md5(content).hexdigest()
        files.append(RemoteFile(f"{split}.zip", (server.url(split),), md5, len(content), split))
    entry = replace(sets.SETS["nmnist"], files=tuple(files))
    monkeypatch.setitem(sets.SETS, "nmnist", entry)
    return archives


def test_a_set_is_fetched_unpacked_and_read(server, catalogue, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)pass download=True.*train\.zip"):
        nd.load("nmnist", root=tmp_path)
    assert server.requests == []
    for _ in range(2):
        recordings = nd.load("nmnist", root=tmp_path, download=True)
        assert recordings.targets.tolist() == [3] * 4 + [7] * 4
    assert server.requests == [("train", None)]
    assert nd.download("nmnist", root=tmp_path) == tmp_path / "NMNIST"
    assert server.requests == [("train", None), ("test", None)]
    assert len(nd.load("nmnist", "all", root=tmp_path)) == 10
    assert not list(tmp_path.rglob("*.zip"))


def test_a_manually_installed_archive_is_unpacked(server, catalogue, tmp_path):
    (tmp_path / "NMNIST").mkdir()
    (tmp_path / "NMNIST" / "train.zip").write_bytes(catalogue["train"])
    assert len(nd.load("nmnist", root=tmp_path)) == 8
    (tmp_path / "NMNIST" / "test.zip").write_bytes(catalogue["test"][:-5])
    with pytest.raises(ValueError, match=r"test\.zip: expected \d+ bytes with MD5 .*, got another file"):
        nd.load("nmnist", "test", root=tmp_path)
    assert server.requests == []


def test_verify_and_clear(server, catalogue, tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))  # which clearing searches too
    with pytest.raises(FileNotFoundError):
        nd.verify("nmnist", root=tmp_path)
    folder = nd.download("nmnist", root=tmp_path)
    assert nd.verify("nmnist", root=tmp_path) == []
    (folder / "Train" / "3" / "00002.bin").write_bytes(nmnist(EVENTS[::-1]))
    (folder / "Test" / "7" / "00001.bin").unlink()
    assert nd.verify("nmnist", root=tmp_path) == [
        f"{folder / 'Train' / '3' / '00002.bin'}: missing or changed",
        f"{folder / 'Test' / '7' / '00001.bin'}: missing or changed",
    ]
    with pytest.warns(UserWarning, match="1 of 8 recordings are left out"):
        packs = nd.cache("nmnist", root=tmp_path, cache=tmp_path, on_error="skip")
    assert sorted(nd.clear("nmnist", root=tmp_path)) == sorted([*packs, folder])
    assert list(tmp_path.iterdir()) == []


def test_verify_reads_a_manual_copy_and_clear_keeps_it(tmp_path):
    for digit, content in ((3, nmnist()), (7, b"123")):
        (tmp_path / "Train" / str(digit)).mkdir(parents=True)
        (tmp_path / "Train" / str(digit) / "00001.bin").write_bytes(content)
    nd.clear("nmnist", root=tmp_path)  # files that other tests packed
    [wrong] = nd.verify("nmnist", root=tmp_path)
    assert "7/00001.bin: byte 0" in wrong
    assert nd.clear("nmnist", root=tmp_path) == []
    assert len(nd.load("nmnist", root=tmp_path)) == 2


UNPACK = textwrap.dedent("""
    import os, sys, time
    from pathlib import Path
    from neuromorphic_datasets import _archive

    replace, count = os.replace, 0

    def slow(source, target):
        global count
        count += 1
        if count == 3:  # some files are in place, others are not
            Path(sys.argv[1] + ".now").touch()
            time.sleep(60)
        replace(source, target)

    os.replace = slow
    _archive.unpack(Path(sys.argv[1]), None)
""")


@pytest.mark.thorough
def test_a_killed_unpacking_is_finished_by_the_next_run(server, catalogue, tmp_path):
    killed, clean = tmp_path / "killed", tmp_path / "clean"
    for root in (killed, clean):
        (root / "NMNIST").mkdir(parents=True)
        (root / "NMNIST" / "train.zip").write_bytes(catalogue["train"])
    archive = killed / "NMNIST" / "train.zip"
    process = subprocess.Popen([sys.executable, "-c", UNPACK, str(archive)])
    while not (killed / "NMNIST" / "train.zip.now").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(killed.rglob("*.bin"))) > 0
    (killed / "NMNIST" / "train.zip.now").unlink()
    trees = []
    for root in (killed, clean):
        assert len(nd.load("nmnist", root=root)) == 8
        paths = [path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix != ".lock"]
        trees.append({str(path.relative_to(root)): path.read_bytes() for path in paths})
    assert trees[0] == trees[1]
